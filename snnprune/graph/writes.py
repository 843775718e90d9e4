"""Operations that write into another tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .labels import compress, core, varying
from .ops import OperationCall, Store, combine, extent, fixed_by, operation, rule_of


@rule_of("copy")
def _copy(call: OperationCall) -> Any:
    """Writing into a part of another tensor.

    One that the code has just filled with a number belongs to whom its first content does. Where its size is a
    number in the code too the removed model fails, and the proof keeps the group.
    """
    store, args, out = call.store, call.args, call.out
    target, source = store.get(args[0]), store.get(args[1])
    if source is None:
        return target
    if target is not None:
        return combine(store, tuple(out.shape), [args[0], args[1]])
    source = compress(source.expand(out.shape))
    blank = store.blank(args[0])
    whole = blank is not None and len(blank.shape) == out.dim()
    if blank is None or not whole or any(blank.shape[d] != out.shape[d] for d in varying(source)):
        store.classes.pin(source, "it is written into a tensor of a fixed size")
        return None
    for dim in range(out.dim()):
        if dim not in varying(source):
            source = source.narrow(dim, 0, 1)
    blank.labels = source.expand(blank.shape)
    return source.expand(out.shape)


@rule_of("index_put")
def _write_masked(call: OperationCall) -> Any:
    """`x[mask] = number` is elementwise (newer versions of PyTorch make a masked fill of it)."""
    store, args, out = call.store, call.args, call.out
    x, indices, value = args[:3]
    mask = indices[0] if len(indices) == 1 else None
    if mask is not None and mask.dtype == torch.bool and mask.shape == x.shape and value.numel() == 1:
        return combine(store, tuple(out.shape), [x, mask, value])
    for tensor in (x, value, *indices):
        if (labels := store.get(tensor)) is not None:
            store.classes.pin(labels, f"it is written into places of a tensor, or these places are{store.where()}")
    return store.get(x)


@rule_of(
    "index_add",
    "index_copy",
    "index_fill",
    "index_reduce",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "slice_scatter",
    "select_scatter",
)
def _scatter(call: OperationCall) -> Any:
    """Writing at places along one dimension, which then tells no neurons apart; the others meet as they are."""
    store, func, out = call.store, call.func, call.out
    given = {**dict(zip((a.name for a in func._schema.arguments), call.args, strict=False)), **call.kwargs}
    x, source, places = given["self"], given.get("source", given.get("src")), given.get("index")
    dim = int(given.get("dim", 0)) % max(1, out.dim())
    if isinstance(places, Tensor) and (labels := store.get(places)) is not None:
        store.classes.pin(labels, f"{operation(func)} writes to places that are computed from it{store.where()}")
    if operation(func).rstrip("_") == "select_scatter" and isinstance(source, Tensor):
        line = _line(store, source, None)
        line = None if line is None else line.unsqueeze(dim)
    else:
        line = _line(store, source, dim)
    lines: list[tuple[Any, Tensor]] = [
        (t, found) for t, found in ((x, _line(store, x, dim)), (source, line)) if found is not None
    ]
    if not lines:
        return None
    result = lines[0][1]
    for tensor, other in lines[1:]:
        if store.classes.is_raw(other):
            size = list(extent(tensor, out.dim()))
            size[dim] = 1
            store.constraints.operands.append((result, other, tuple(size), fixed_by(store, tensor)))
        else:
            store.classes.unite(core(result), core(other))
    if store.get(x) is None and store.blank(x) is None and x.numel() > 1:
        size = list(extent(x, out.dim()))
        size[dim] = 1
        store.constraints.operands.append((result, None, tuple(size), fixed_by(store, x)))
    return _fitted(result, out, dim)


def _line(store: Store, tensor: Any, dim: int | None) -> Tensor | None:
    """Labels of a tensor that do not tell places along a dimension apart, of length 1 there."""
    labels = store.get(tensor)
    if labels is None or dim is None:
        return labels
    return store.classes.along(labels, [dim], "it is written to places along its channels").narrow(dim, 0, 1)


def _fitted(line: Tensor, out: Tensor, dim: int) -> Tensor:
    """The labels of the result: a scattered source may be larger than what its places reach."""
    for d in range(out.dim()):
        if d != dim and line.shape[d] not in (1, out.shape[d]) and d not in varying(line):
            line = line.narrow(d, 0, 1)
    return line.expand(out.shape)
