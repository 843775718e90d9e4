"""What PyTorch's operations do to labels.

Operations that only move elements are run on the labels themselves. Elementwise operations unite the
labels that meet. What reads several elements at once (a sum, a norm, a product of activations) unites
the labels that it reads: they form one coarser neuron, such as a head of attention. An operation without
a rule keeps everything that it touches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from .labels import Classes, compress, core, varying


class Store(Protocol):
    """Labels of live tensors; what the rules need of the walk."""

    classes: Classes
    constraints: Constraints

    def get(self, tensor: Any) -> Tensor | None:
        """Labels of a tensor, or None when no neuron owns any of it."""
        ...

    def macs(self, count: float, labels: Tensor) -> None:
        """Price a product of activations whose result has these labels."""
        ...

    def name_of(self, tensor: Tensor) -> str:
        """Name of a parameter or buffer of the model, or an empty string."""
        ...

    def where(self) -> str:
        """The module that runs, in brackets, for messages."""
        ...


@dataclass
class Constraints:
    """Couplings that can only be judged once everything else is known.

    Attributes:
        grids: labels of one dimension that a view or split takes apart; what is kept must stay a
            product of the parts.
        operands: (labels, operand's labels or None, operand's shape, why): a parameter or constant
            that an elementwise operation combines with labelled elements.
    """

    grids: list[Tensor] = field(default_factory=list)
    operands: list[tuple[Tensor, Tensor | None, tuple[int, ...], str]] = field(default_factory=list)


Rule = Callable[[Store, Any, tuple[Any, ...], dict[str, Any], Any], Any]
_RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for name in names:
            _RULES[name] = function
        return function

    return register


def rule_for(func: Any) -> Rule | None:
    """The rule of an operation, by its name and tags."""
    name = func._schema.name.split("::")[-1].rstrip("_")
    found = _RULES.get(name)
    if found is None and torch.Tag.pointwise in func.tags:
        found = _elementwise
    return found


# -- elementwise ---------------------------------------------------------------------------------------


def combine(store: Store, shape: tuple[int, ...], operands: list[Any]) -> Tensor | None:
    """Labels of an elementwise result."""
    tensors = [t for t in operands if isinstance(t, Tensor)]
    labelled = [(t, labels) for t in tensors if (labels := store.get(t)) is not None]
    if not labelled:
        return None
    solid = [(t, labels) for t, labels in labelled if not store.classes.is_raw(labels)] or labelled[:1]
    chosen = {id(t) for t, _ in solid}
    solid.sort(key=lambda pair: -len(varying(pair[1])))
    result = compress(solid[0][1].expand(shape))
    for tensor, labels in solid[1:]:
        size = (1,) * (len(shape) - tensor.dim()) + tuple(tensor.shape)
        if not varying(labels) and varying(result) and all(size[d] == 1 for d in varying(result)):
            store.classes.pin(labels, "it is broadcast over other channels")
            continue
        other = compress(labels.expand(shape))
        store.classes.unite(core(result), core(other))
        if bool((core(result) == 0).any()):
            result = compress(torch.maximum(result, other))
    for tensor in tensors:
        if id(tensor) in chosen or tensor.numel() <= 1:
            continue
        size = (1,) * (len(shape) - tensor.dim()) + tuple(tensor.shape)
        if any(size[d] > 1 for d in varying(result)):
            labels = store.get(tensor)
            raw = None if labels is None else compress(labels.reshape(size).expand(shape))
            store.constraints.operands.append((result, raw, size, store_name(store, tensor)))
    return result


def store_name(store: Store, tensor: Tensor) -> str:
    """How to speak of a tensor that no layer made."""
    name = store.name_of(tensor)
    if name:
        return f"the parameter {name!r} outside a layer holds its channels"
    return "it meets channels whose number is a constant in the code"


@_rule("_to_copy", "hardswish", "clone", "copy_like", "fill", "bernoulli", "zero", "uniform", "normal", "contiguous",
       "empty_like", "zeros_like", "ones_like", "rand_like", "randn_like", "full_like", "lift_fresh", "detach",
       "alias", "prelu", "_prelu_kernel", "tril", "triu", "nan_to_num", "_softmax_backward", "log_sigmoid")
def _elementwise(store: Store, _func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    if not isinstance(out, Tensor):
        return None
    flat = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
    return combine(store, tuple(out.shape), flat)


@_rule("as_strided")
def _restride(store: Store, _func: Any, args: tuple[Any, ...], _kwargs: Any, out: Any) -> Any:
    """Another memory layout of the same elements; anything else cannot be followed."""
    labels = store.get(args[0])
    if labels is None or labels.shape == out.shape:
        return labels
    store.classes.pin(labels, "its memory is read with strides of the code's own")
    return None


@_rule("native_dropout")
def _dropout(store: Store, _func: Any, args: tuple[Any, ...], _kwargs: Any, _out: Any) -> Any:
    labels = store.get(args[0])
    return [labels, labels]


@_rule("copy")
def _copy(store: Store, _func: Any, args: tuple[Any, ...], _kwargs: Any, out: Any) -> Any:
    """Writing into a part of another tensor, whose size is then fixed."""
    target, source = store.get(args[0]), store.get(args[1])
    if source is None:
        return target
    if target is None:
        store.classes.pin(source, "it is written into a tensor of a fixed size")
        return None
    return combine(store, tuple(out.shape), [args[0], args[1]])


# -- moving elements -----------------------------------------------------------------------------------


def _moved(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on labels."""
    out = func(*args, **kwargs)
    return compress(out) if isinstance(out, Tensor) else [compress(o) for o in out]


@_rule("permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "numpy_T", "flip", "repeat", "movedim",
       "diagonal", "expand_as", "adjoint", "swapaxes", "as_strided_like")
def _move(store: Store, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _out: Any) -> Any:
    labels = store.get(args[0])
    return None if labels is None else _moved(func, (labels, *args[1:]), kwargs)


@_rule("view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten")
def _view(store: Store, _func: Any, args: tuple[Any, ...], _kwargs: Any, out: Any) -> Any:
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
                store.constraints.grids.append(core(result).movedim(order, list(range(len(order)))).flatten(len(order)))
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


@_rule("slice", "select", "unbind", "narrow", "index_select", "index", "gather", "roll", "split", "split_with_sizes",
       "chunk", "tensor_split", "unsafe_split", "unsafe_chunk", "masked_select", "take")
def _pick(store: Store, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Picking by position: along the dimension that is indexed, what is picked apart must stay alike."""
    labels = store.get(args[0])
    name = func._schema.name.split("::")[-1]
    if name in ("index", "gather", "index_select", "masked_select", "take"):
        for part in torch.utils._pytree.tree_leaves((args[1:], kwargs)):
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
    if name == "slice" and same:
        return labels
    if "split" in name or "chunk" in name:
        return _split(store, func, labels, dims[0], args, kwargs, out)
    for dim in dims:
        labels = store.classes.along(labels, [dim], "its channels are picked by their position")
    return _moved(func, (labels, *args[1:]), kwargs)


def _split(store: Store, func: Any, labels: Tensor, dim: int, args: Any, kwargs: Any, out: Any) -> Any:
    if dim in varying(labels) and len(out) > 1:
        parts = [compress(p) for p in labels.split([o.shape[dim] for o in out], dim)]
        if len({p.shape[dim] for p in parts}) == 1:  # equal parts must stay equal
            for part in parts[1:]:
                store.classes.unite(core(parts[0]), core(part))
        else:
            store.classes.pin(labels, "it is split by a constant in the code")
    return _moved(func, (labels, *args[1:]), kwargs)


@_rule("cat", "concatenate", "stack", "hstack", "vstack")
def _cat(store: Store, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    tensors = list(args[0])
    stacked = func._schema.name.endswith("stack")
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0) % out.dim()
    if all(store.get(t) is None for t in tensors):
        return None
    found = [_labels_or_zeros(store, t) for t in tensors if t.dim() == out.dim() - stacked]
    # Everywhere but along `dim` the shapes must stay equal.
    sides = [lab if not stacked else lab.unsqueeze(dim) for lab in found]
    lines = [lab for lab in sides if any(d != dim for d in varying(lab))]
    flat = [store.classes.along(lab, [dim]).narrow(dim, 0, 1) if lab.shape[dim] > 1 else lab for lab in lines]
    for tensor, labels in zip(tensors, sides, strict=False):
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


@_rule("constant_pad_nd")
def _pad(store: Store, _func: Any, args: tuple[Any, ...], _kwargs: Any, out: Any) -> Any:
    labels = store.get(args[0])
    if labels is None:
        return None
    pad = list(args[1])
    for at in range(0, len(pad), 2):
        dim = labels.dim() - 1 - at // 2
        if not (pad[at] or pad[at + 1]):
            continue
        if dim in varying(labels):
            sides = [p for p in (pad[at], pad[at + 1])]
            if min(sides) < 0:
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


@_rule("pixel_shuffle")
def _pixel_shuffle(store: Store, _func: Any, args: tuple[Any, ...], _kwargs: Any, out: Any) -> Any:
    labels, factor = store.get(args[0]), args[1] ** 2
    if labels is None:
        return None
    labels = store.classes.along(labels, [-1, -2], "pixels are moved").narrow(-1, 0, 1).narrow(-2, 0, 1)
    blocks = labels.unflatten(-3, (-1, factor))
    blocks = store.classes.along(compress(blocks), [-3])
    return compress(blocks.select(-3, 0).expand(out.shape))


@_rule("glu")
def _glu(store: Store, _func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _out: Any) -> Any:
    labels = store.get(args[0])
    if labels is None:
        return None
    first, second = labels.chunk(2, kwargs.get("dim", args[1] if len(args) > 1 else -1))
    store.classes.unite(core(compress(first)), core(compress(second)))
    return compress(first)


# -- reading several elements ---------------------------------------------------------------------------


@_rule("mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "prod", "norm", "argmax",
       "argmin", "linalg_vector_norm", "logsumexp", "any", "all", "aminmax", "median", "count_nonzero")
def _reduce(store: Store, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    labels = store.get(args[0])
    if labels is None:
        return None
    names = [a.name for a in func._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if isinstance(given.get("other"), Tensor):  # the elementwise maximum
        return _elementwise(store, func, args, kwargs, out)
    dims = given.get("dim", given.get("axis"))
    if dims is None or dims == []:
        dims = range(labels.dim())
    dims = [dims] if isinstance(dims, int) else list(dims)
    name = func._schema.name.split("::")[-1]
    labels = _mix(store, labels, dims, f"{name} reads across its channels")
    keep = bool(given.get("keepdim", False))
    for dim in sorted((d % max(1, labels.dim()) for d in dims), reverse=True):
        labels = labels.narrow(dim, 0, 1) if keep else labels.select(dim, 0)
    return [labels] * len(out) if isinstance(out, (tuple, list)) else labels


def _mix(store: Store, labels: Tensor, dims: Any, why: str) -> Tensor:
    """Unite what is read together; neurons read together with what no neuron owns are kept."""
    return store.classes.along(labels, dims, f"{why}{store.where()}")


@_rule("_softmax", "_log_softmax", "cumsum", "cumprod", "sort", "softmax", "log_softmax", "_safe_softmax", "topk")
def _softmax(store: Store, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    labels = store.get(args[0])
    if labels is None:
        return None
    name = func._schema.name.split("::")[-1].strip("_").removeprefix("safe_")
    at = 2 if name == "topk" else 1
    dim = kwargs.get("dim", args[at] if len(args) > at else -1)
    labels = _mix(store, labels, [dim], f"{name} reads across its channels")
    outs = out if isinstance(out, (tuple, list)) else [out]
    found = [labels.narrow(dim, 0, 1).expand(o.shape) for o in outs]
    return found if isinstance(out, (tuple, list)) else found[0]


@_rule("native_layer_norm", "rms_norm", "_fused_rms_norm")
def _layer_norm(store: Store, _func: Any, args: tuple[Any, ...], _kwargs: Any, out: Any) -> Any:
    labels = store.get(args[0])
    if labels is None:
        return None
    labels = _mix(store, labels, range(-len(args[1]), 0), "layer norm reads across its channels")
    return [labels] + [None] * (len(out) - 1) if isinstance(out, (tuple, list)) else labels


@_rule("native_group_norm")
def _group_norm(store: Store, _func: Any, args: tuple[Any, ...], _kwargs: Any, out: Any) -> Any:
    labels = store.get(args[0])
    if labels is None:
        return None
    groups = args[7]
    labels = _mix(store, labels, range(2, labels.dim()), "group norm reads across positions")
    parts = compress(labels.unflatten(1, (groups, -1)))
    _mix(store, parts, [2], "group norm reads across its channels")
    result = combine(store, tuple(out[0].shape), [args[0]])
    return [result, None, None]


@_rule("max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d", "avg_pool1d", "max_pool2d",
       "adaptive_max_pool2d", "adaptive_max_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "max_pool1d",
       "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d",
       "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d", "upsample_linear1d",
       "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
       "replication_pad1d", "replication_pad2d", "replication_pad3d", "mkldnn_max_pool2d", "adaptive_avg_pool1d")
def _spatial(store: Store, func: Any, args: tuple[Any, ...], _kwargs: Any, out: Any) -> Any:
    """Pooling, resizing and padding of the last dimensions."""
    labels = store.get(args[0])
    if labels is None:
        return None
    name = func._schema.name
    count = next(n for n in (1, 2, 3) if f"{n}d" in name)
    labels = _mix(store, labels, range(-count, 0), "pooling or resizing reads across its channels")
    for dim in range(-count, 0):
        labels = labels.narrow(dim, 0, 1)
    outs = out if isinstance(out, (tuple, list)) else [out]
    found = [labels.expand(*labels.shape[:-count], *o.shape[-count:]) for o in outs]
    return found if isinstance(out, (tuple, list)) else found[0]


@_rule("grid_sampler", "grid_sampler_2d", "roi_align", "_roi_align")
def _sample(store: Store, _func: Any, args: tuple[Any, ...], _kwargs: Any, out: Any) -> Any:
    """Sampling at positions: channels stay what they are."""
    labels, where = store.get(args[0]), store.get(args[1])
    if where is not None:
        store.classes.pin(where, "positions are computed from it")
    if labels is None:
        return None
    labels = _mix(store, labels, [0, 2, 3], "sampling reads across its channels")
    return labels.narrow(0, 0, 1).narrow(2, 0, 1).narrow(3, 0, 1).expand(out.shape)


@_rule("bmm", "mm", "matmul", "baddbmm", "addmm", "dot", "mv")
def _product(store: Store, func: Any, args: tuple[Any, ...], _kwargs: Any, out: Any) -> Any:
    """A product of two activations: along the inner dimension everything is read together."""
    name = func._schema.name.split("::")[-1]
    left, right = args[1:3] if name in ("baddbmm", "addmm") else args[:2]
    a, b = store.get(left), store.get(right)
    if a is None and b is None:
        return combine(store, tuple(out.shape), [args[0]]) if name in ("baddbmm", "addmm") else None
    if out.dim() < 2:
        for labels in (a, b):
            if labels is not None:
                store.classes.pin(labels, f"a product of activations reads across its channels{store.where()}")
        return None
    why = f"a product of activations reads across its channels{store.where()}"
    shape = tuple(out.shape)
    result: Tensor | None = None
    for labels, inner, free in ((a, -1, -1), (b, -2, -2)):
        if labels is None:
            continue
        labels = store.classes.along(labels, [inner], why).narrow(inner, 0, 1)
        part = compress(labels.expand(*shape))
        if result is None:
            result = part
        else:
            store.classes.unite(core(result), core(part))
            result = part if len(varying(part)) > len(varying(result)) else result
    assert result is not None
    store.macs(math.prod(shape) * left.shape[-1], result)
    if name in ("baddbmm", "addmm"):
        return combine_labels(store, shape, result, args[0])
    return result


def combine_labels(store: Store, shape: tuple[int, ...], labels: Tensor, other: Tensor) -> Tensor:
    """Labels of an elementwise result of which one side is known by its labels alone."""
    theirs = store.get(other)
    if theirs is not None:
        theirs = compress(theirs.expand(shape))
        if store.classes.is_raw(theirs):
            size = (1,) * (len(shape) - other.dim()) + tuple(other.shape)
            store.constraints.operands.append((labels, theirs, size, store_name(store, other)))
        else:
            store.classes.unite(core(labels), core(theirs))
    return labels


@_rule("arange", "zeros", "ones", "empty", "full", "linspace", "eye", "scalar_tensor", "new_zeros", "new_ones",
       "new_empty", "new_full", "rand", "randn", "randint", "randperm", "meshgrid", "tensor", "empty_strided",
       "_local_scalar_dense", "item", "is_same_size", "equal", "sym_size", "size", "new_empty_strided", "isfinite",
       "resize", "is_pinned", "_assert_async", "_assert_tensor_metadata", "set", "full_like_const", "result_type")
def _nothing(_store: Store, _func: Any, _args: tuple[Any, ...], _kwargs: Any, _out: Any) -> Any:
    """Constants, and questions about tensors that a shape answers."""
    return None
