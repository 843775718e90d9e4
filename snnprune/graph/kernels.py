"""Convolutions and norms that the code computes by itself, with parameters or constants of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .labels import core, spread, varying
from .ops import OperationCall, Store, extent, fixed_by, rule_of


def line_of(store: Store, tensor: Tensor, dim: int, why: str) -> Tensor:
    """(n,) labels along one dimension of a tensor, of which the other dimensions tell no neurons apart.

    Args:
        store: labels of all tensors.
        tensor: any; zeros where no neuron owns its elements.
        dim: the dimension.
        why: what reads along the others.
    """
    labels = store.get(tensor)
    if labels is None:
        return torch.zeros(tensor.shape[dim], dtype=torch.long)
    labels = store.classes.along(labels, [d for d in range(labels.dim()) if d != dim], why)
    return labels[tuple(slice(None) if d == dim else 0 for d in range(labels.dim()))].clone()


def slices_follow(store: Store, line: Tensor, tensor: Any, dim: int = 0) -> None:
    """Let the slices of a parameter or constant go with the neurons that they meet.

    Args:
        store: labels of all tensors.
        line: (n,) labels of the neurons.
        tensor: has n slices along `dim`; what is none, or was drawn, asks for nothing.
        dim: the dimension.
    """
    if (
        not isinstance(tensor, Tensor)
        or tensor.dim() <= dim
        or len(line) != tensor.shape[dim]
        or store.drawn(tensor)
    ):
        return
    own, labels = line.reshape([-1 if d == dim else 1 for d in range(tensor.dim())]), store.get(tensor)
    if labels is not None and not store.classes.is_raw(labels):
        store.classes.unite(own, core(labels))
    elif labels is None or dim in varying(labels):  # one slice for all, repeated, fits any number of neurons
        store.constraints.operands.append((own, labels, extent(tensor, tensor.dim()), fixed_by(store, tensor)))


@rule_of("convolution", "_convolution", "convolution_overrideable")
def _convolution(call: OperationCall) -> Any:
    """A kernel of the code's own. Its outputs are neurons; grouped, they are what its inputs are."""
    store, args, out = call.store, call.args, call.out
    x, weight, bias, transposed, groups = args[0], args[1], args[2], bool(args[6]), int(args[8])
    where = store.where()
    why = f"a convolution in the code reads across its channels{where}"
    if groups == 1:
        rows = _rows(call, x, weight, 1 if transposed else 0)
    elif store.get(x) is None:
        rows = None
        _pin(store, weight, f"a convolution in the code{where} also reads what no neuron owns")
    else:
        columns = line_of(store, x, 1, why).reshape(groups, -1)
        inner = store.classes.along(columns, [1], f"grouped convolution{where}" if columns.shape[1] > 1 else "")[
            :, 0
        ]
        rows = inner.repeat_interleave(out.shape[1] // groups)
        slices_follow(store, inner.repeat_interleave(columns.shape[1]) if transposed else rows, weight)
    if rows is None:
        return None
    slices_follow(store, rows, bias)
    found = spread(rows, 1, out.shape)
    store.macs((x if transposed else out).numel() * weight[0].numel(), found)
    return found


@rule_of("torchvision::deform_conv2d")
def _deformable(call: OperationCall) -> Any:
    """A deformable kernel of the code's own; what its offsets and its mask are made of stays."""
    store, args, out = call.store, call.args, call.out
    x, weight, offset, mask, bias, groups = *args[:5], int(args[11])
    for tensor in (offset, mask):
        _pin(store, tensor, f"positions are computed from it{store.where()}")
    if groups > 1:
        return call.keep("no rule for grouped deformable convolutions")
    rows = _rows(call, x, weight, 0)
    if rows is None:
        return None
    slices_follow(store, rows, bias)
    found = spread(rows, 1, out.shape)
    store.macs(out.numel() * weight[0].numel(), found)
    return found


def _rows(call: OperationCall, x: Tensor, weight: Tensor, dim: int) -> Tensor | None:
    """Labels of the outputs of a kernel that reads all channels, (out,); None where it makes no neurons."""
    store = call.store
    if (
        not store.name_of(weight)
        and (own := store.get(weight)) is not None
        and not store.classes.of_parameters(own)
    ):
        return call.keep("a kernel is computed from activations")
    named = f" with the parameter {name!r}" if (name := store.name_of(weight)) else ""
    _pin(store, x, f"a convolution in the code{named} reads it, where no gate can sit{store.where()}")
    return store.rows_of(weight, dim)


def _pin(store: Store, tensor: Any, why: str) -> None:
    if (labels := store.get(tensor)) is not None:
        store.classes.pin(labels, why)


@rule_of(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_with_update",
    "_batch_norm_no_update",
    "cudnn_batch_norm",
    "miopen_batch_norm",
)
def _batch_norm(call: OperationCall) -> Any:
    """Batch norm with parameters and statistics of the code's own, and what instance norm makes of it."""
    store, x = call.store, call.args[0]
    if store.get(x) is None:
        return None
    line = line_of(store, x, 1, f"batch norm reads across its channels{store.where()}")
    for tensor in call.args[1:5]:
        slices_follow(store, line, tensor)
    return [spread(line, 1, x.shape)] + [None] * (len(call.out) - 1)
