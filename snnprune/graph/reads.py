"""Operations that read several elements at once: what they read together becomes one coarser neuron."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from .labels import compress, core, varying
from .ops import OperationCall, combine, combine_labels, extent, fixed_by, operation, read_together, rule_of


@rule_of(
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "var_mean",
    "std_mean",
    "prod",
    "norm",
    "argmax",
    "argmin",
    "linalg_vector_norm",
    "logsumexp",
    "any",
    "all",
    "aminmax",
    "median",
    "count_nonzero",
    "kthvalue",
    "mode",
    "nanmedian",
    "nansum",
)
def _reduce(call: OperationCall) -> Any:
    store, func, args, kwargs, out = call.store, call.func, call.args, call.kwargs, call.out
    labels = store.get(args[0])
    if labels is None:
        return None
    names = [a.name for a in func._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if isinstance(given.get("other"), Tensor):  # the elementwise maximum
        return call.elementwise()
    dims = given.get("dim", given.get("axis"))
    if dims is None or dims == []:
        dims = range(labels.dim())
    dims = [dims] if isinstance(dims, int) else list(dims)
    name = operation(func)
    labels = read_together(store, labels, dims, f"{name} reads across its channels")
    keep = bool(given.get("keepdim", False))
    for dim in sorted((d % max(1, labels.dim()) for d in dims), reverse=True):
        labels = labels.narrow(dim, 0, 1) if keep else labels.select(dim, 0)
    return [labels] * len(out) if isinstance(out, (tuple, list)) else labels


@rule_of(
    "_softmax",
    "_log_softmax",
    "cummax",
    "cummin",
    "cumsum",
    "cumprod",
    "sort",
    "softmax",
    "log_softmax",
    "logcumsumexp",
    "_safe_softmax",
    "topk",
)
def _softmax(call: OperationCall) -> Any:
    store, func, args, kwargs, out = call.store, call.func, call.args, call.kwargs, call.out
    labels = store.get(args[0])
    if labels is None:
        return None
    name = operation(func).strip("_").removeprefix("safe_")
    at = 2 if name == "topk" else 1
    dim = kwargs.get("dim", args[at] if len(args) > at else -1)
    labels = read_together(store, labels, [dim], f"{name} reads across its channels")
    outs = out if isinstance(out, (tuple, list)) else [out]
    found = [labels.narrow(dim, 0, 1).expand(o.shape) for o in outs]
    return found if isinstance(out, (tuple, list)) else found[0]


@rule_of("native_layer_norm", "rms_norm", "_fused_rms_norm")
def _layer_norm(call: OperationCall) -> Any:
    store, args, out = call.store, call.args, call.out
    labels = store.get(args[0])
    if labels is None:
        return None
    labels = read_together(store, labels, range(-len(args[1]), 0), "layer norm reads across its channels")
    return [labels] + [None] * (len(out) - 1) if isinstance(out, (tuple, list)) else labels


@rule_of("native_group_norm")
def _group_norm(call: OperationCall) -> Any:
    store, args, out = call.store, call.args, call.out
    labels = store.get(args[0])
    if labels is None:
        return None
    groups = args[6]
    labels = read_together(store, labels, range(2, labels.dim()), "group norm reads across positions")
    parts = compress(labels.unflatten(1, (groups, -1)))
    read_together(store, parts, [2], "group norm reads across its channels")
    result = combine(store, tuple(out[0].shape), [args[0]])
    return [result, None, None]


@rule_of(
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "avg_pool2d",
    "avg_pool3d",
    "avg_pool1d",
    "max_pool2d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "max_pool1d",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact2d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_trilinear3d",
    "upsample_linear1d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
    "mkldnn_max_pool2d",
    "adaptive_avg_pool1d",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
)
def _spatial(call: OperationCall) -> Any:
    """Pooling, resizing and padding of the last dimensions."""
    labels = call.labels()
    return None if labels is None else _over_space(call, labels)


@rule_of("max_unpool2d", "max_unpool3d")
def _unpool(call: OperationCall) -> Any:
    """Pooling undone: a channel's values go where the pooling of the same channel found the largest."""
    x, places = call.args[:2]
    labels = combine(call.store, tuple(x.shape), [x, places])
    return None if labels is None else _over_space(call, labels)


def _over_space(call: OperationCall, labels: Tensor) -> Any:
    """Labels of results in which the last dimensions have another size."""
    store, out, name = call.store, call.out, call.func._schema.name
    count = next(n for n in (1, 2, 3) if f"{n}d" in name)
    labels = read_together(store, labels, range(-count, 0), "pooling or resizing reads across its channels")
    for dim in range(-count, 0):
        labels = labels.narrow(dim, 0, 1)
    outs = out if isinstance(out, (tuple, list)) else [out]
    found = [labels.expand(*labels.shape[:-count], *o.shape[-count:]) for o in outs]
    return found if isinstance(out, (tuple, list)) else found[0]


@rule_of("_fft_r2c", "_fft_c2r", "_fft_c2c")
def _fourier(call: OperationCall) -> Any:
    """Fourier transforms mix what they run along; the last such dimension may change its size."""
    labels, dims = call.labels(), list(call.args[1])
    if labels is None:
        return None
    labels = read_together(call.store, labels, dims, "a Fourier transform reads across its channels")
    for dim in dims:
        labels = labels.narrow(dim, 0, 1)
    return labels.expand(call.out.shape)


@rule_of("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "torchvision::roi_align", "torchvision::roi_pool")
def _sample(call: OperationCall) -> Any:
    """Sampling at positions: channels stay what they are."""
    store, args, out = call.store, call.args, call.out
    labels, where = store.get(args[0]), store.get(args[1])
    if where is not None:
        store.classes.pin(where, "positions are computed from it")
    if labels is None:
        return None
    dims = [0, *range(2, labels.dim())]
    labels = read_together(store, labels, dims, "sampling reads across its channels")
    for dim in dims:
        labels = labels.narrow(dim, 0, 1)
    outs = out if isinstance(out, (tuple, list)) else [out]
    found = [labels.expand(o.shape) for o in outs]
    return found if isinstance(out, (tuple, list)) else found[0]


@rule_of("bmm", "mm", "matmul", "baddbmm", "addmm", "dot", "mv")
def _product(call: OperationCall) -> Any:
    """A product of two activations: along the inner dimension everything is read together."""
    store, func, args, out = call.store, call.func, call.args, call.out
    name = operation(func)
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
    parts: list[tuple[Tensor, Tensor, int]] = []
    for tensor, labels, inner in ((left, a, -1), (right, b, -2)):
        if labels is not None:
            labels = store.classes.along(labels, [inner], why).narrow(inner, 0, 1)
            parts.append((compress(labels.expand(*shape)), tensor, inner))
    parts.sort(key=lambda part: (store.classes.is_raw(part[0]), -len(varying(part[0]))))
    result = parts[0][0]
    for part, tensor, inner in parts[1:]:
        size = list(extent(tensor, len(shape)))
        size[inner] = 1
        if not varying(part) and varying(result) and all(size[d] == 1 for d in varying(result)):
            store.classes.pin(part, why)  # attention of one head: each channel of the values is read by itself
        elif store.classes.is_raw(part):  # a parameter: it need not fit unless it has a place for every neuron
            store.constraints.operands.append((result, part, tuple(size), fixed_by(store, tensor)))
        else:
            store.classes.unite(core(result), core(part))
    store.macs(math.prod(shape) * left.shape[-1], result)
    if name in ("baddbmm", "addmm"):
        return combine_labels(store, shape, result, args[0])
    return result
