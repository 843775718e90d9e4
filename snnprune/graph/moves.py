"""Operations that only move elements: they are run on the labels themselves."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .labels import compress, core, varying
from .ops import OperationCall, Store, operation, rule_of


def _moved(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on labels."""
    out = func(*args, **kwargs)
    return compress(out) if isinstance(out, Tensor) else [compress(o) for o in out]


@rule_of(
    "permute",
    "transpose",
    "t",
    "unsqueeze",
    "squeeze",
    "expand",
    "pixel_unshuffle",
    "flip",
    "repeat",
    "movedim",
    "diagonal",
    "expand_as",
    "adjoint",
    "swapaxes",
    "rot90",
)
def _move(call: OperationCall) -> Any:
    return call.moves(lambda labels: call.func(labels, *call.args[1:], **call.kwargs))


@rule_of("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten")
def _view(call: OperationCall) -> Any:
    store, args, out = call.store, call.args, call.out
    labels = store.get(args[0])
    if labels is None:
        return None
    if not isinstance(args[1], (list, tuple)):  # a view as another dtype
        return labels if labels.shape == out.shape else None
    result = compress(labels.reshape(out.shape))
    for inner, outer in _blocks(tuple(labels.shape), tuple(out.shape)):
        if len(outer) > 1 and any(d in varying(labels) for d in inner):
            order = [d for d in outer if d in varying(result)]
            if len(order) > 1:
                store.constraints.grids.append(
                    core(result).movedim(order, list(range(len(order)))).flatten(len(order))
                )
    return result


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Dimensions of a reshape that belong together: runs of equal product."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        inner, outer, a, b = [i], [j], old[i], new[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b and i < len(old):
                a, inner, i = a * old[i], [*inner, i], i + 1
            elif b < a and j < len(new):
                b, outer, j = b * new[j], [*outer, j], j + 1
            else:
                break
        found.append(([d for d in inner if old[d] > 1], [d for d in outer if new[d] > 1]))
    return found


@rule_of(
    "slice",
    "select",
    "unbind",
    "narrow",
    "index_select",
    "index",
    "gather",
    "roll",
    "split",
    "split_with_sizes",
    "chunk",
    "tensor_split",
    "unsafe_split",
    "unsafe_chunk",
    "masked_select",
    "take",
)
def _pick(call: OperationCall) -> Any:
    """Picking by position: along the dimension that is indexed, what is picked apart must stay alike."""
    store, func, args, kwargs, out = call.store, call.func, call.args, call.kwargs, call.out
    labels = store.get(args[0])
    name = operation(func)
    if name in ("index", "gather", "index_select", "masked_select", "take"):
        for part in tree_leaves((args[1:], kwargs)):
            if isinstance(part, Tensor) and (own := store.get(part)) is not None:
                store.classes.pin(own, "elements are picked by its values")
    if labels is None:
        return None
    if name == "index":
        dims = [d for d, index in enumerate(args[1]) if index is not None]
        if any(args[1][d].dtype == torch.bool and args[1][d].dim() > 1 for d in dims):
            dims = list(range(labels.dim()))
    elif name in ("masked_select", "take"):
        dims = list(range(labels.dim()))
    elif name == "roll":
        dims = list(args[2]) if len(args) > 2 and args[2] else list(range(labels.dim()))
    else:
        at = {"slice": 1, "select": 1, "unbind": 1, "narrow": 1, "index_select": 1, "gather": 1}.get(name, 2)
        dims = [kwargs.get("dim", args[at] if len(args) > at else 0) % labels.dim()]
    same = isinstance(out, Tensor) and out.shape == labels.shape
    if name == "slice" and (same or _followed(call, labels, dims[0])):
        return _moved(func, (labels, *args[1:]), kwargs)
    if "split" in name or "chunk" in name:
        return _split(store, func, labels, dims[0], args, kwargs, out)
    for dim in dims:
        labels = store.classes.along(labels, [dim], "its channels are picked by their position")
    return _moved(func, (labels, *args[1:]), kwargs)


def _followed(call: OperationCall, labels: Tensor, dim: int) -> bool:
    """Whether the bounds of a slice come from numbers of the network's own, which may follow."""
    start, stop = (*call.args[2:4], None, None)[:2]
    whole = labels.shape[dim]
    return call.store.slices(dim, start or 0, whole if stop is None or stop > whole else stop)


def _split(store: Store, func: Any, labels: Tensor, dim: int, args: Any, kwargs: Any, out: Any) -> Any:
    if dim in varying(labels) and len(out) > 1:
        parts = [compress(p) for p in labels.split([o.shape[dim] for o in out], dim)]
        if len({p.shape[dim] for p in parts}) == 1:  # equal parts must stay equal
            for part in parts[1:]:
                store.classes.unite(core(parts[0]), core(part))
        elif len(varying(labels)) > 1:  # such as queries, keys and values inside every head
            labels = store.classes.along(labels, [dim], "it is split into unequal parts")
        elif not store.splitting:
            store.classes.pin(labels, "it is split by a constant in the code")
    return _moved(func, (labels, *args[1:]), kwargs)


@rule_of("cat", "concatenate", "stack", "hstack", "vstack")
def _cat(call: OperationCall) -> Any:
    """Joining. What is empty adds nothing, and asks for nothing: a cache of keys and values begins that way.

    Where its size is a number in the code the removed model fails, and the proof keeps the group.
    """
    store, func, args, kwargs, out = call.store, call.func, call.args, call.kwargs, call.out
    tensors = [t for t in args[0] if t.numel()]
    stacked = func._schema.name.endswith("stack")
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0) % out.dim()
    if all(store.get(t) is None for t in tensors):
        return None
    found = [_labels_or_zeros(store, t) for t in tensors]
    # Everywhere but along `dim` the shapes must stay equal.
    sides = [lab if not stacked else lab.unsqueeze(dim) for lab in found]
    lines = [lab for lab in sides if any(d != dim for d in varying(lab))]
    flat = [store.classes.along(lab, [dim]).narrow(dim, 0, 1) if lab.shape[dim] > 1 else lab for lab in lines]
    for tensor, labels in zip(tensors, sides, strict=True):
        for line in flat[:1]:
            if store.get(tensor) is None and any(labels.shape[d] > 1 for d in varying(line) if d != dim):
                store.classes.pin(line, "it is joined to a tensor of a fixed size")
    for line in flat[1:]:
        store.classes.unite(core(flat[0]), core(line))
    joined = torch.cat(sides, dim)
    return compress(joined)


def _labels_or_zeros(store: Store, tensor: Tensor) -> Tensor:
    labels = store.get(tensor)
    return torch.zeros((), dtype=torch.long).expand(tensor.shape) if labels is None else labels


@rule_of("constant_pad_nd")
def _pad(call: OperationCall) -> Any:
    store, args, out = call.store, call.args, call.out
    labels = store.get(args[0])
    if labels is None:
        return None
    pad = list(args[1])
    for at in range(0, len(pad), 2):
        dim = labels.dim() - 1 - at // 2
        if not (pad[at] or pad[at + 1]):
            continue
        if dim in varying(labels):
            if min(pad[at], pad[at + 1]) < 0:
                store.classes.along(labels, [dim], "its channels are picked by their position")
            shape = [list(labels.shape), list(labels.shape)]
            shape[0][dim], shape[1][dim] = max(0, pad[at]), max(0, pad[at + 1])
            zeros = [torch.zeros((), dtype=torch.long).expand(s) for s in shape]
            labels = compress(torch.cat([zeros[0], labels, zeros[1]], dim))
        else:
            size = list(labels.shape)
            size[dim] += pad[at] + pad[at + 1]
            labels = labels.narrow(dim, 0, 1).expand(size)
    return labels if labels.shape == out.shape else None


@rule_of("pixel_shuffle")
def _pixel_shuffle(call: OperationCall) -> Any:
    store, args, out = call.store, call.args, call.out
    labels, factor = store.get(args[0]), args[1] ** 2
    if labels is None:
        return None
    labels = store.classes.along(labels, [-1, -2], "pixels are moved").narrow(-1, 0, 1).narrow(-2, 0, 1)
    blocks = labels.unflatten(-3, (-1, factor))
    blocks = store.classes.along(compress(blocks), [-3])
    return compress(blocks.select(-3, 0).expand(out.shape))


@rule_of("channel_shuffle", "native_channel_shuffle")
def _shuffle(call: OperationCall) -> Any:
    """Channels of the same place in every group live and die together, so that the groups stay equal."""
    labels, groups = call.labels(), call.args[1]
    if labels is None:
        return None
    parts = call.store.classes.along(compress(labels.unflatten(1, (groups, -1))), [1])
    return compress(parts.transpose(1, 2).flatten(1, 2))


@rule_of("unfold")
def _windows(call: OperationCall) -> Any:
    """Sliding windows along one dimension: a view in which elements stand several times."""
    labels, dim = call.labels(), call.kwargs.get("dimension", call.args[1])
    if labels is None:
        return None
    labels = call.store.classes.along(labels, [dim], "its channels are picked by their position")
    return _moved(call.func, (labels, *call.args[1:]), call.kwargs)


@rule_of("im2col")
def _columns(call: OperationCall) -> Any:
    """Sliding windows of an image as columns: channels, each with all places of a window."""
    labels = call.labels()
    if labels is None:
        return None
    line = call.store.classes.along(labels, [-1, -2], "windows read across its channels")[..., 0, 0]
    return compress(line.repeat_interleave(math.prod(call.args[1]), -1).unsqueeze(-1).expand(call.out.shape))


@rule_of("col2im")
def _from_columns(call: OperationCall) -> Any:
    """Windows summed into an image: all places of a window that are one channel's."""
    labels = call.labels()
    if labels is None:
        return None
    line = call.store.classes.along(labels, [-1], "windows read across its channels")[..., 0]
    places = compress(line.unflatten(-1, (-1, math.prod(call.args[2]))))
    line = call.store.classes.along(places, [-1], "places of a window are added up")[..., 0]
    return compress(line[..., None, None].expand(call.out.shape))


@rule_of("glu")
def _glu(call: OperationCall) -> Any:
    args, kwargs, labels = call.args, call.kwargs, call.labels()
    if labels is None:
        return None
    first, second = labels.chunk(2, kwargs.get("dim", args[1] if len(args) > 1 else -1))
    call.store.classes.unite(core(compress(first)), core(compress(second)))
    return compress(first)
