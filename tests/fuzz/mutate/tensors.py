"""Damage to a file of safetensors: its header and its tensors."""

from __future__ import annotations

import json
import struct
from random import Random

import torch
from safetensors.torch import load, save

from .jsons import mutate_json
from .raw import NUMBERS, mutate_bytes


def mutate_safetensors(random: Random, data: bytes) -> bytes:
    """Other tensors in a good file; header values, its length, the data."""
    if random.random() < 0.5:
        return _change_tensors(random, data)
    if random.random() < 0.3:
        return mutate_bytes(random, data)
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    if random.random() < 0.1:
        return struct.pack("<Q", random.choice(NUMBERS)) + header + rest
    content = json.loads(header)
    if random.random() < 0.7:
        entry = content[random.choice([k for k in content if k != "__metadata__"])]
        kind = random.randrange(3)
        if kind == 0:
            kinds = "F64 F16 BF16 I64 I8 U8 BOOL F8_E4M3 F8_E5M2 F8_E8M0 F4 U16 U64 C64 X1"
            entry["dtype"] = random.choice(kinds.split())
        elif kind == 1:
            entry["shape"] = random.choice(
                (
                    [],
                    [0],
                    [1],
                    [2**40],
                    [2**32, 2**32],
                    [0, 2**62],
                    [1] * 70,
                    entry["shape"][::-1],
                    [*entry["shape"], 1],
                )
            )
        else:
            entry["data_offsets"] = [
                random.choice((0, 4, 8, 64, 2**40)),
                random.choice((0, 4, 64, 128, 2**40, 2**63)),
            ]
        header = json.dumps(content).encode()
    else:
        header = mutate_json(random, header)
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + rest


DTYPES = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool, torch.complex64)
DTYPES += (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16)


def _change_tensors(random: Random, data: bytes) -> bytes:
    """A tensor of another shape, type, name or value, or none of that name."""
    tensors = load(data)
    for _ in range(random.choice((1, 1, 2))):
        name = random.choice(sorted(tensors))
        tensor = tensors.pop(name)
        kind = random.randrange(7)
        if kind == 0:
            tensor = tensor.to(random.choice(DTYPES))
        elif kind == 1 and tensor.dim():
            dim = random.randrange(tensor.dim())
            tensor = tensor.narrow(dim, 0, random.randrange(tensor.shape[dim] + 1))
        elif kind == 2:
            tensor = random.choice((tensor.flatten(), tensor[None], tensor.repeat(2, *[1] * (tensor.dim() - 1))))
        elif kind == 3:
            value = random.choice((float("nan"), float("inf"), 0, -1, 100, 255))
            tensor = torch.nan_to_num(torch.full(tensor.shape, value)).to(tensor.dtype)
        elif kind == 4:
            name = random.choice((name + "x", "num_batches_tracked", "", "\x1b[2J", "x" * 3000))
        elif kind == 5:
            tensor = (
                torch.full(tensor.shape, float("nan")) if tensor.is_floating_point() else torch.zeros_like(tensor)
            )
        elif len(tensors) and random.random() < 0.7:
            continue  # dropped
        tensors[name] = tensor.contiguous().clone()
    return save(tensors)
