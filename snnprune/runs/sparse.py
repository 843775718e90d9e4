"""Weights with many exact zeros, stored as their nonzero values and one bit per weight."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import StructureError

_VALUES, _BITS = "nonzero", "bits"  # beside the parameter's name


def pack(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """A state dict in which the named parameters are replaced by their values and bits."""
    packed = dict(state)
    for name in names:
        tensor = packed.pop(name)
        there = tensor != 0
        packed[f"{name}.{_VALUES}"] = tensor[there].contiguous()
        packed[f"{name}.{_BITS}"] = torch.from_numpy(np.packbits(there.flatten().numpy()))
    return packed


def stored_bytes(model: nn.Module, names: Collection[str] = ()) -> int:
    """Bytes of a model's tensors in a file, the named parameters packed; names and the like are not counted."""
    state = model.state_dict(keep_vars=True)
    packed = pack({name: state[name].detach().cpu() for name in names}, names)
    done = {id(state[name]) for name in names}  # a tensor under several names is stored once
    plain = {id(t): t for t in state.values() if isinstance(t, Tensor) and id(t) not in done}
    return sum(t.numel() * t.element_size() for t in [*plain.values(), *packed.values()])


def shapes(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, list[int]]:
    """Parameter name -> its shape, for the structure file."""
    return {name: list(state[name].shape) for name in names}


def unpack(state: Mapping[str, Tensor], entries: Any, sizes: Mapping[str, Mapping[str, int]]) -> dict[str, Tensor]:
    """What `pack` was given.

    Args:
        state: the content of the weights file.
        entries: parameter name -> shape, from the structure file.
        sizes: layer name -> sizes, from the structure file; a shape has to be that of its layer. Whoever
            has compared these with the model's own knows that no more memory is taken than the model takes.

    Raises:
        StructureError: the entries are malformed or do not fit the file.
    """
    if not isinstance(entries, Mapping):
        raise StructureError(f"the table of sparse parameters is {type(entries).__name__}, not a mapping.")
    found = dict(state)
    for name, shape in entries.items():
        layer = sizes.get(name.removesuffix(".weight"), {})
        known = name.endswith(".weight") and {"in", "out"} <= set(layer) and isinstance(shape, list)
        if not known or shape != [layer["out"], layer["in"]] or not all(type(size) is int for size in shape):
            raise StructureError(
                f"the sparse parameter {name[:100]!r} has the shape {repr(shape)[:100]}, which no layer has."
            )
        values, bits = found.pop(f"{name}.{_VALUES}", None), found.pop(f"{name}.{_BITS}", None)
        if values is None or bits is None:
            raise StructureError(f"the sparse parameter {name} is missing in the weights file.")
        count = shape[0] * shape[1]
        if bits.dtype != torch.uint8 or bits.shape != (-(-count // 8),):
            raise StructureError(f"the sparse parameter {name} has {tuple(bits.shape)} bytes for {count} weights.")
        there = torch.from_numpy(np.unpackbits(bits.numpy(), count=count)).bool()
        if values.dim() != 1 or not values.is_floating_point() or int(there.sum()) != len(values):
            raise StructureError(f"the sparse parameter {name} has {tuple(values.shape)} values for its bits.")
        full = torch.zeros(count, dtype=values.dtype)
        full[there] = values
        found[name] = full.reshape(shape)
    return found
