"""Operations that combine elements of the same place, and those that make constants."""

from __future__ import annotations

from typing import Any

from .ops import OperationCall, rule_of


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
