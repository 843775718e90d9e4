"""Layers of users' own classes that are told by what they compute.

A module without parts that multiplies its input by a weight of its own is a linear layer or a convolution, however
its class is called and its weight lies (transformers' `Conv1D` has it transposed). What it is, is tried on small
numbers: cutting and scaling the channels of a small copy must do what they do to a linear layer. So the kind
follows from the layer alone, also when a file is loaded. The proof tries it again on the model itself.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from .table import Kind, SideOfLayer

_FULL: dict[SideOfLayer, int] = {"inputs": 6, "outputs": 10}  # channels of the small copy
_KEPT: dict[SideOfLayer, list[int]] = {"inputs": [0, 2, 3, 5], "outputs": [0, 1, 3, 4, 6, 7, 9]}
_MOST = 256  # ways to read a layer that are tried
_KNOWN: dict[Any, Kind | None] = {}


def recognized(module: nn.Module) -> Kind | None:
    """The kind of a layer whose class nobody has described; None where it does not multiply by a weight alone.

    Args:
        module: any; nothing in it changes.
    """
    held: dict[str, Tensor] = {name: tensor for name, tensor in module._parameters.items() if tensor is not None}
    cls = type(module)
    if not held or cls.__module__.startswith("torch.") or any(map(nn.parameter.is_lazy, held.values())):
        return None
    if len([tensor for tensor in held.values() if tensor.dim() > 1]) not in (1, 2):
        return None
    key = (cls, tuple((n, tuple(t.shape), t.is_floating_point()) for n, t in held.items()), _plain(module))
    if key not in _KNOWN:
        if len(_KNOWN) > 4096:
            _KNOWN.clear()
        _KNOWN[key] = _tried(module, held)
    return _KNOWN[key]


def _plain(module: nn.Module) -> tuple[Any, ...]:
    """Attributes on which what the layer computes may depend, as far as they can be compared."""
    plain = (int, float, str, bool, tuple, type(None))
    return tuple(
        (n, v) for n, v in module.__dict__.items() if n != "training" and isinstance(v, plain) and _flat(v)
    )


def _flat(value: Any) -> bool:
    return not isinstance(value, tuple) or all(isinstance(part, (int, float, str, bool)) for part in value)


def _tried(module: nn.Module, held: dict[str, Tensor]) -> Kind | None:
    buffers = [b for b in module.buffers() if b is not None and b.numel() > 1]
    parts = [p for child in module.children() for p in (*child.parameters(), *child.buffers())]
    if buffers or parts or not all(t.is_floating_point() for t in held.values()) or not _takes_one(module):
        return None
    with _disable_current_modes(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for count, kind in enumerate(_readings(module, held)):
            if count >= _MOST:
                break
            for axis, shapes in _inputs(held, kind):
                found = replace(kind, axis=axis)
                answers = [_agrees(module, held, found, shape) for shape in shapes]
                if True in answers and False not in answers:
                    return found
    return None


def _takes_one(module: nn.Module) -> bool:
    """Whether forward can be called with one tensor."""
    try:
        given = list(inspect.signature(type(module).forward).parameters.values())[1:]
    except (TypeError, ValueError):
        return False
    return (
        len([p for p in given if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)])
        == 1
    )


def _readings(module: nn.Module, held: dict[str, Tensor]) -> Iterator[Kind]:
    """Every way to read the tensors and sizes of a layer, the likely ones first."""
    weights = [name for name, tensor in held.items() if tensor.dim() > 1]
    for pairs in itertools.product(*(_pairs(held[name].dim()) for name in weights)):
        widths = {(held[n].shape[i], held[n].shape[o]) for n, (i, o) in zip(weights, pairs, strict=True)}
        if len(widths) > 1:
            continue
        wide: dict[SideOfLayer, int] = dict(zip(("inputs", "outputs"), widths.pop(), strict=True))  # type: ignore[arg-type]
        if any(t.dim() < 2 and t.numel() not in (1, wide["outputs"]) for t in held.values()):
            continue
        inputs = {name: pair[0] for name, pair in zip(weights, pairs, strict=True)}
        outputs = {name: pair[1] for name, pair in zip(weights, pairs, strict=True)}
        outputs |= {n: 0 for n, t in held.items() if t.dim() == 1 and t.numel() == wide["outputs"]}
        names = [n for n, v in module.__dict__.items() if type(v) is int and n[0] != "_" and v in wide.values()]
        for sides in itertools.product(*(_sides(name, module.__dict__[name], wide) for name in names)):
            sizes: dict[str, SideOfLayer] = {
                name: side for name, side in zip(names, sides, strict=True) if side is not None
            }
            yield Kind("weighted", inputs, outputs, sizes, rule=type(module).__name__, found=True)


def _pairs(dims: int) -> list[tuple[int, int]]:
    """(dimension of the inputs, of the outputs) of a weight."""
    return list(dict.fromkeys([(1, 0), (0, 1), (dims - 2, dims - 1), (dims - 1, dims - 2)]))


def _sides(name: str, value: int, wide: dict[SideOfLayer, int]) -> list[SideOfLayer | None]:
    """Which of both widths an attribute may hold; where both are the same its name says which is likelier."""
    sides: list[SideOfLayer] = ["outputs", "inputs"]
    if re.search(r"(^|_)(c?in|nx|c1|inputs?|fan_in)(_|$)|^in", name):
        sides.reverse()
    return [*(side for side in sides if wide[side] == value), None]


def _inputs(held: dict[str, Tensor], kind: Kind) -> Iterator[tuple[int | None, list[list[int]]]]:
    """Shapes of inputs to try, by the dimension that holds the channels; -1 stands for their number."""
    first = held[next(iter(kind.inputs))]
    pair = (next(iter(kind.inputs.values())), kind.outputs[next(iter(kind.inputs))])
    kernel = [n for d, n in enumerate(first.shape) if d not in pair]
    if not kernel:
        yield None, [[2, 3, -1], [2, 3, 2, -1]]
        yield 1, [[2, -1, 5, 4], [2, -1, 5]]
        yield None, [[2, -1]]
    elif max(kernel) <= 31:
        places = [2 * n + 5 for n in kernel]
        yield None, [[2, -1, *places]]
        yield len(places) + 1, [[2, *places, -1]]


def _agrees(module: nn.Module, held: dict[str, Tensor], kind: Kind, shape: list[int]) -> bool | None:
    """Whether a layer does on small numbers what its kind says; None where it takes no such input."""
    draw = torch.Generator().manual_seed(0)
    at = shape.index(-1)
    wide = _FULL["inputs"]
    x = torch.randn([wide if n < 0 else n for n in shape], generator=draw, dtype=torch.float64, device="cpu")
    factor = 0.5 + torch.rand(wide, generator=draw, dtype=torch.float64, device="cpu")
    scaled = x * factor.reshape([-1 if d == at else 1 for d in range(x.dim())])
    lone = torch.zeros_like(x).index_copy_(at, torch.tensor(_KEPT["inputs"]), x[_at(at, _KEPT["inputs"])])
    tensors = {name: _small(tensor, name, kind, draw) for name, tensor in held.items()}
    folded = {
        n: t * _along(factor, kind.inputs[n], t.dim()) if n in kind.inputs else t for n, t in tensors.items()
    }
    less = dict(tensors)
    for side, table in (("inputs", kind.inputs), ("outputs", kind.outputs)):
        for name, dim in table.items():
            less[name] = less[name][_at(dim, _KEPT[side])]  # type: ignore[index]
    try:
        full = _with(module, tensors, kind, {side: _FULL[side] for side in _FULL})
        whole, of_scaled, of_lone = full(x.clone()), full(scaled), full(lone)
        of_folded = _with(module, folded, kind, {side: _FULL[side] for side in _FULL})(x.clone())
        of_less = _with(module, less, kind, {side: len(_KEPT[side]) for side in _KEPT})(
            x[_at(at, _KEPT["inputs"])]
        )
    except Exception:  # whatever a user's forward raises
        return None
    if not isinstance(whole, Tensor) or whole.dim() != x.dim() or whole.shape[at] != _FULL["outputs"]:
        return False
    same = _close(of_scaled, of_folded) and _close(of_lone[_at(at, _KEPT["outputs"])], of_less)
    return same and not _close(whole, of_scaled)


def _small(tensor: Tensor, name: str, kind: Kind, draw: torch.Generator) -> Tensor:
    shape = list(tensor.shape)
    for side, table in (("inputs", kind.inputs), ("outputs", kind.outputs)):
        if name in table:
            shape[table[name]] = _FULL[side]  # type: ignore[index]
    return torch.randn(shape, generator=draw, dtype=torch.float64, device="cpu")


def _at(dim: int, chosen: list[int]) -> tuple[Any, ...]:
    return (*(slice(None) for _ in range(dim)), torch.tensor(chosen))


def _along(factor: Tensor, dim: int, dims: int) -> Tensor:
    return factor.reshape([-1 if d == dim else 1 for d in range(dims)])


def _close(left: Any, right: Any) -> bool:
    both = isinstance(left, Tensor) and isinstance(right, Tensor) and left.shape == right.shape
    return both and torch.allclose(left, right, rtol=1e-9, atol=1e-9)


def _with(module: nn.Module, tensors: dict[str, Tensor], kind: Kind, widths: dict[SideOfLayer, int]) -> Any:
    """The forward of a small copy of a layer."""
    new = type(module).__new__(type(module))
    state = {name: copy.deepcopy(v) if isinstance(v, (list, dict, set)) and name[0] != "_" else v
             for name, v in module.__dict__.items() if "_hooks" not in name}  # fmt: skip
    new.__dict__.update(state)
    new.__dict__["_parameters"] = dict.fromkeys(module._parameters) | {
        name: nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()
    }
    new.__dict__["_buffers"] = {n: b if b is None else b.double().cpu() for n, b in module._buffers.items()}
    new.__dict__["_modules"] = {n: copy.deepcopy(child) for n, child in module._modules.items()}
    for hooks in (n for n in module.__dict__ if "_hooks" in n):
        new.__dict__[hooks] = type(module.__dict__[hooks])()
    for name, side in kind.sizes.items():
        new.__dict__[name] = widths[side]
    return new.eval().forward
