"""What a pickle may call, and with which arguments: what rebuilds tensors and plain values, nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .allowed import may_be_set
from .nodes import Global, Node, Refused
from .stand_ins import DTYPE, PATHS, SCALARS
from .tally import Tally

_BYTES = {
    **dict.fromkeys(("Byte", "Char", "Bool"), 1),
    **dict.fromkeys(("Half", "BFloat16", "Short"), 2),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Double", "Long", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
STORAGES = {**{f"torch.{k}Storage": v for k, v in _BYTES.items()}, "torch.storage.UntypedStorage": 1}
_CONSTANTS = ("float", "double", "half", "bfloat", "int", "uint", "long", "short", "bool", "complex", "strided")
_DIMS, _TEXT, _FLAGS = 64, 64, 8  # of a shape; characters of a device's name; entries of a tensor's metadata


class OldModel(Exception):
    """A whole model in the format of PyTorch before 1.6, which comes with the source of its classes."""


def is_constant(name: str) -> bool:
    """Element types and layouts, which pickles name as globals of torch."""
    return name.startswith("torch.") and name.count(".") == 1 and name[6:].startswith(_CONSTANTS)


def storage(tally: Tally, entry: Any) -> Node:
    """The storage that a pickle refers to; the file must have it."""
    parts = entry.items if isinstance(entry, Node) else []
    if parts and parts[0] == "module":
        raise OldModel
    if len(parts) not in (5, 6) or parts[0] != "storage" or not isinstance(parts[1], Global):
        raise Refused("a tensor's storage is malformed")
    item, key, count = STORAGES.get(parts[1].name), parts[2], parts[4]
    if item is None or type(count) is not int or count < 0 or type(key) is not str:
        raise Refused("a tensor's storage is malformed")
    tally.storage(key, count * item, item)
    return Node("storage", size=count * item, item=item)


def _tensor(*, typed: bool) -> Callable[[Tally, list[Any]], Node]:
    """What rebuilds a tensor, in the version whose arguments have an element type, or in those without."""

    def make(tally: Tally, arguments: list[Any]) -> Node:
        stored, offset, shape, strides = arguments[:4]
        if not _is(stored, "storage"):
            raise Refused("a tensor has no storage")
        sizes, steps = _counts(shape), _counts(strides)
        if type(offset) is not int or offset < 0 or len(sizes) != len(steps):
            raise Refused("the shape of a tensor is malformed")
        _, hooks, *rest = (*arguments[4:], None, None)  # first whether it requires a gradient
        item = _item(rest.pop(0)) if typed else stored.item
        if not _is_empty(hooks) or not all(_is_empty(flags, _FLAGS) for flags in rest):
            raise Refused("a tensor has hooks or unusual metadata")
        count = math.prod(sizes)
        last = offset + sum((n - 1) * step for n, step in zip(sizes, steps, strict=True)) + 1 if count else 0
        if max(count, last) * item > stored.size:
            raise Refused(f"a tensor of the shape {tuple(sizes)} is larger than what is stored of it")
        tally.tensor(count * item)
        made = Node("tensor")
        made.data = count * item
        return made

    return make


def _counts(value: Any) -> list[int]:
    items: list[Any] = value.items if _is(value, "tuple") else [None]
    if len(items) > _DIMS or not all(type(i) is int and 0 <= i < 2**62 for i in items):
        raise Refused("the shape of a tensor is malformed")
    return items


def _item(dtype: Any) -> int:
    found = getattr(torch, dtype.name.rpartition(".")[2], None) if isinstance(dtype, Global) else None
    if not isinstance(found, torch.dtype):
        raise Refused("the type of a tensor is malformed")
    return found.itemsize


def _is(value: Any, *kinds: str) -> bool:
    return isinstance(value, Node) and value.kind in kinds


def _is_empty(table: Any, most: int = 0) -> bool:
    return table is None or (_is(table, "ordered", "dict") and table.size <= most)


def _parameter(arguments: list[Any]) -> bool:
    if len(arguments) not in (3, 4) or not _is(arguments[0], "tensor") or not _is_empty(arguments[2]):
        return False
    state = arguments[3] if len(arguments) == 4 else None
    return state is None or (_is(state, "dict") and all(may_be_set(key, nn.Parameter) for key in state.keys))


def _words(arguments: list[Any]) -> bool:
    return 1 <= len(arguments) <= 2 and all(
        (type(a) is str and len(a) <= _TEXT) or (type(a) is int and abs(a) < 2**31) for a in arguments
    )


def _made(kind: str, fits: Callable[[list[Any]], bool]) -> Callable[[Tally, list[Any]], Node]:
    def make(tally: Tally, arguments: list[Any]) -> Node:
        if not fits(arguments):
            raise Refused(f"it makes a {kind} of something unusual")
        made = Node(kind, arguments)
        tally.spend(made.weight)  # what is copied, every time
        tally.hash(sum(a.odd for a in arguments if isinstance(a, Node)))
        return made

    return make


CALLS: dict[str, Callable[[Tally, list[Any]], Node]] = {
    "torch._utils._rebuild_tensor": _tensor(typed=False),
    "torch._utils._rebuild_tensor_v2": _tensor(typed=False),
    "torch._utils._rebuild_tensor_v3": _tensor(typed=True),
    **dict.fromkeys(
        ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"),
        _made("parameter", _parameter),
    ),
    "collections.OrderedDict": _made("ordered", lambda a: not a),
    "collections.Counter": _made("counter", lambda a: len(a) == 1 and _is(a[0], "dict")),
    "builtins.set": _made("set", lambda a: len(a) == 1 and _is(a[0], "list") and a[0].plain),
    "builtins.complex": _made("complex", lambda a: len(a) == 2 and all(type(i) is float for i in a)),
    "torch.Size": _made("size", lambda a: len(a) == 1 and len(_counts(a[0])) <= _DIMS),
    "torch.device": _made("device", _words),
    "torch.serialization._get_layout": _made("layout", _words),
    DTYPE: _made("dtype", lambda a: len(a) == 3 and _words(a[:1]) and all(type(i) is bool for i in a[1:])),
    **dict.fromkeys(SCALARS, _made("scalar", lambda a: len(a) == 2 and _is(a[0], "dtype") and _is(a[1], "bytes"))),
    **dict.fromkeys(PATHS, _made("path", lambda a: all(type(i) is str for i in a))),
    "_codecs.encode": _made("bytes", lambda a: len(a) == 2 and isinstance(a[0], str) and a[1] == "latin1"),
}
