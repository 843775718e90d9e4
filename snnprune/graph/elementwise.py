"""Operations that combine elements of the same place, and those that make constants."""

from __future__ import annotations

from typing import Any

import torch

from .ops import OperationCall, combine, rule_of


@rule_of(
    "_to_copy",
    "hardswish",
    "clone",
    "fill",
    "bernoulli",
    "zero",
    "uniform",
    "normal",
    "exponential",
    "cauchy",
    "geometric",
    "log_normal",
    "random",
    "contiguous",
    "empty_like",
    "zeros_like",
    "ones_like",
    "rand_like",
    "randn_like",
    "randint_like",
    "full_like",
    "lift_fresh",
    "detach",
    "alias",
    "prelu",
    "rrelu_with_noise",
    "_prelu_kernel",
    "tril",
    "triu",
    "nan_to_num",
    "_softmax_backward",
    "log_sigmoid",
)
def elementwise(call: OperationCall) -> Any:
    """Labels that meet are united."""
    return call.elementwise()


@rule_of("as_strided")
def _restride(call: OperationCall) -> Any:
    """Another memory layout of the same elements; anything else cannot be followed."""
    store, args, out = call.store, call.args, call.out
    labels = store.get(args[0])
    if labels is None or labels.shape == out.shape:
        return labels
    store.classes.pin(labels, "its memory is read with strides of the code's own")
    return None


@rule_of("native_dropout")
def _dropout(call: OperationCall) -> Any:
    return [call.labels(), call.labels()]


@rule_of("copy")
def _copy(call: OperationCall) -> Any:
    """Writing into a part of another tensor, whose size is then fixed."""
    store, args, out = call.store, call.args, call.out
    target, source = store.get(args[0]), store.get(args[1])
    if source is None:
        return target
    if target is None:
        store.classes.pin(source, "it is written into a tensor of a fixed size")
        return None
    return combine(store, tuple(out.shape), [args[0], args[1]])


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
    "arange",
    "zeros",
    "ones",
    "empty",
    "full",
    "linspace",
    "eye",
    "scalar_tensor",
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
    "rand",
    "randn",
    "randint",
    "randperm",
    "meshgrid",
    "tensor",
    "empty_strided",
    "_local_scalar_dense",
    "_is_all_true",
    "_is_any_true",
    "item",
    "is_same_size",
    "equal",
    "sym_size",
    "size",
    "new_empty_strided",
    "isfinite",
    "resize",
    "is_pinned",
    "_assert_async",
    "_assert_tensor_metadata",
    "set",
    "result_type",
)
def _nothing(_call: OperationCall) -> Any:
    """Constants, and questions about tensors that a shape answers."""
    return None
