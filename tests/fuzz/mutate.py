"""Ways to damage a file: its bytes, its JSON values, the members of an archive, the opcodes of a pickle."""

from __future__ import annotations

import io
import json
import pickletools
import struct
import zipfile
from random import Random
from typing import Any

import onnx
import torch
from safetensors.torch import load, save

NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    64,
    255,
    256,
    1000,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**64 - 1,
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    *(-1, 0, 1, 2, 5, 10**6, 2**31, 2**40, 2**63, 10**30),
    *(0.5, -0.5, 1e308, float("inf"), float("nan")),
    *("", "a", "0", "weight", "../../x", "\x1b[2J", "[red]", "\ud800", "\u202e", "x" * 5000, "fc.weight", "é"),
    *([], {}, [None], [1, 2], [[]], {"a": {}}, {"": 0}, [1e400]),
)


def mutate_bytes(random: Random, data: bytes) -> bytes:
    """A few changes of the bytes themselves."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        at = random.randrange(len(found) + 1)
        kind = random.randrange(8)
        if kind == 0:
            found[at : at + 1] = bytes([random.randrange(256)])
        elif kind == 1 and at < len(found):
            found[at] ^= 1 << random.randrange(8)
        elif kind == 2:
            del found[at : at + random.choice((1, 2, 4, 16, 100))]
        elif kind == 3:
            found[at:at] = random.randbytes(random.choice((1, 2, 4, 16)))
        elif kind == 4:
            form = random.choice(["<B", "<H", "<I", "<Q", ">I", ">Q"])
            value = random.choice(NUMBERS) % 2 ** (8 * struct.calcsize(form))
            found[at : at + struct.calcsize(form)] = struct.pack(form, value)
        elif kind == 5:
            start, length = random.randrange(len(found) + 1), random.choice((1, 4, 16, 64))
            found[at:at] = found[start : start + length]
        elif kind == 6 and random.random() < 0.3:
            del found[at:]
        elif kind == 7:
            length = random.choice((1, 4, 8, 32))
            found[at : at + length] = bytes([random.choice((0, 255, 0x5D, 0x7B))]) * length
    return bytes(found)


def mutate_json(random: Random, data: bytes) -> bytes:
    """Other values, other names, missing entries, repeated ones, deep nesting; sometimes the bytes."""
    if random.random() < 0.2:
        return mutate_bytes(random, data)
    if random.random() < 0.01:
        return b"[" * random.choice((10, 1000, 10**5)) + data
    content = json.loads(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        content = _change(random, content)
    text = json.dumps(content)
    if random.random() < 0.05:
        text = text.replace(": ", ': 1e999, "a": ', 1)
    return text.encode()


def _change(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        kind = random.random()
        if kind < 0.08:
            del value[key]
        elif kind < 0.14:
            value[str(random.choice(VALUES))[:2000]] = value.pop(key)
        elif kind < 0.2:
            value[str(random.choice(VALUES))[:2000]] = random.choice(VALUES)
        elif kind < 0.25:
            value[key] = value[random.choice(list(value))]
        else:
            value[key] = _change(random, value[key])
        return value
    if isinstance(value, list) and value and random.random() < 0.85:
        at = random.randrange(len(value))
        kind = random.random()
        if kind < 0.1:
            del value[at]
        elif kind < 0.2:
            value.insert(at, random.choice(VALUES))
        else:
            value[at] = _change(random, value[at])
        return value
    if type(value) is int and random.random() < 0.5:
        return value + random.choice((-1, 1, -value, 2**20, 10**18))
    return json.loads(json.dumps(random.choice(VALUES)))


def mutate_zip(random: Random, data: bytes, inner: Any = mutate_bytes) -> bytes:
    """Members changed by `inner`, dropped, renamed, doubled, compressed; sometimes the archive's own bytes."""
    if random.random() < 0.3:
        return mutate_bytes(random, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(item.filename, archive.read(item)) for item in archive.infolist()]
    at = random.randrange(len(members))
    name, content = members[at]
    kind = random.random()
    if kind < 0.06:
        del members[at]
    elif kind < 0.1:
        members[at] = (random.choice(("x", "../x", "data.pkl", "a/data.pkl", name.upper(), name + "0")), content)
    elif kind < 0.14:
        members.append((name, mutate_bytes(random, content)))
    elif kind < 0.16:
        members[at] = (name, content + bytes(2**20))
    else:
        chosen = [i for i, (n, _) in enumerate(members) if n.endswith((".pkl", ".npy"))]
        at = random.choice(chosen) if chosen and random.random() < 0.85 else at
        members[at] = (members[at][0], inner(random, members[at][1]))
    how = zipfile.ZIP_DEFLATED if random.random() < 0.3 else zipfile.ZIP_STORED
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", how) as archive:
        for n, c in members:
            archive.writestr(zipfile.ZipInfo(n), c, compress_type=how)
    return target.getvalue()


_NAMES = (
    "collections OrderedDict",
    "collections Counter",
    "__builtin__ set",
    "__builtin__ bytearray",
    "__builtin__ complex",
    "_codecs encode",
    "torch Size",
    "torch device",
    "torch Tensor",
    "torch FloatStorage",
    "torch LongStorage",
    "torch float32",
    "torch float8_e4m3fn",
    "torch strided",
    "torch.nn.parameter Parameter",
    "torch.nn.modules.linear Linear",
    "torch.nn.modules.conv Conv2d",
    "torch.nn.modules.container Sequential",
    "torch.nn.modules.activation MultiheadAttention",
    "torch.nn.modules.upsampling Upsample",
    "torch.storage UntypedStorage",
    "torch._tensor _rebuild_from_type_v2",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state",
    "torch._utils _rebuild_sparse_tensor",
    "torch._utils _rebuild_qtensor",
    "torch._utils _rebuild_wrapper_subclass",
    "torch._utils _rebuild_meta_tensor_no_storage",
    "torchvision.models.resnet ResNet",
    "torchvision.models.vision_transformer ConvStemConfig",
    "os system",
    "builtins eval",
)
_STRINGS = (
    b"forward",
    b"_forward_hooks",
    b"_modules",
    b"_parameters",
    b"weight",
    b"storage",
    b"0",
    b"cpu",
    b"",
    b"\xff",
)


def _piece(random: Random) -> bytes:
    kind = random.randrange(9)
    if kind == 0:
        return b"c" + random.choice(_NAMES).replace(" ", "\n").encode() + b"\n"
    if kind == 1:
        return b"J" + struct.pack("<I", random.choice(NUMBERS) % 2**32)
    if kind == 2:
        number = random.choice(NUMBERS).to_bytes(9, "little")
        return b"\x8a" + bytes([len(number)]) + number
    if kind == 3:
        text = random.choice(_STRINGS)
        return b"X" + struct.pack("<I", len(text)) + text
    if kind == 4:
        return random.choice((b"q", b"h")) + bytes([random.randrange(20)])
    if kind == 5:
        return random.choice((b"R", b"\x81", b"b", b"Q"))
    if kind == 6:
        return random.choice((b"]", b"}", b"\x8f", b")", b"(", b"N", b"\x88"))
    if kind == 7:
        return random.choice((b"t", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u"))
    return random.choice(
        (b".", b"0", b"2", b"\x93", b"r" + struct.pack("<I", 2**32 - 1), b"\x80\x04", b"G" + bytes(8))
    )


def mutate_pickle(random: Random, data: bytes) -> bytes:
    """Opcodes dropped, doubled, swapped, put in, with other arguments; sometimes the bytes."""
    if random.random() < 0.2:
        return mutate_bytes(random, data)
    try:
        starts = [at for _, _, at in pickletools.genops(data) if at is not None]
    except ValueError:  # damaged once already
        return mutate_bytes(random, data)
    end = data.index(b".", starts[-1]) + 1
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], end], strict=True)]
    rest = data[end:]
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(pieces))
        kind = random.randrange(6)
        if kind == 0 and len(pieces) > 2:
            del pieces[at]
        elif kind == 1:
            pieces[at:at] = [_piece(random) for _ in range(random.choice((1, 1, 2, 5)))]
        elif kind == 2:
            pieces[at] = _piece(random)
        elif kind == 3:
            other = random.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif kind == 4:
            pieces[at:at] = pieces[max(0, at - random.choice((1, 2, 5, 20))) : at]
        else:
            numbers = [i for i, p in enumerate(pieces) if p[:1] in b"KMJ"]
            if numbers:
                value = random.choice(NUMBERS) % 2**32
                pieces[random.choice(numbers)] = b"J" + struct.pack("<I", value)
    return b"".join(pieces) + rest


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


def mutate_onnx(random: Random, data: bytes) -> bytes:
    """Fields of the graph; sometimes the bytes."""
    if random.random() < 0.5:
        return mutate_bytes(random, data)
    proto = onnx.load_model_from_string(data)
    graph = proto.graph
    for _ in range(random.choice((1, 1, 2))):
        kind = random.randrange(9)
        tensor, node = random.choice(graph.initializer), random.choice(graph.node)
        if kind == 0:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            entry = tensor.external_data.add()
            entry.key, entry.value = (
                "location",
                random.choice(("../../etc/passwd", "/etc/passwd", "", "w.bin", ".")),
            )
        elif kind == 1 and tensor.dims:
            tensor.dims[0] = random.choice((0, -1, 1, 2**40, 2**62))
        elif kind == 2:
            node.op_type = random.choice(("Add", "Reshape", "Relu", "ConstantOfShape", "If", "X", ""))
        elif kind == 3 and node.input:
            node.input[0] = random.choice(("", "x", random.choice(graph.initializer).name))
        elif kind == 4:
            entry = proto.metadata_props.add()
            entry.key, entry.value = (
                "snnprune.normalization",
                random.choice(("[" * 10**5, "{}", "NaN", "x", "[1,2")),
            )
        elif kind == 5:
            shape = graph.input[0].type.tensor_type.shape
            random.choice(shape.dim).dim_value = random.choice((0, 1, 3, 2**40, -1))
        elif kind == 6:
            proto.opset_import[0].version = random.choice((0, 1, 7, 99, -1))
        elif kind == 7:
            graph.input.extend([graph.input[0]] if random.random() < 0.5 else [])
            del graph.output[random.randrange(2) :]
        else:
            graph.input[0].type.tensor_type.elem_type = random.choice((0, 1, 7, 8, 10, 99))
    return proto.SerializeToString()
