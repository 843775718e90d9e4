"""Resize one layer in place, whatever its type. Surgery and loading share it."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from .. import layers
from ..errors import StructureError
from ..ties import replace_module_
from .kept import hand_over_, note_


@torch.no_grad()
def select_slices_(model: nn.Module, name: str, dim: int, keep: Tensor) -> None:
    """Keep only some slices of a parameter or buffer that belongs to no resizable layer, in place.

    Args:
        model: the network that holds it.
        name: dotted name of the tensor.
        dim: dimension over which the slices run.
        keep: slices that stay.
    """
    owner, _, own = name.rpartition(".")
    _take(model.get_submodule(owner), own, dim, keep)


@torch.no_grad()
def select_(
    model: nn.Module,
    name: str,
    *,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
    index: Tensor | None = None,
    source: int = 0,
) -> None:
    """Keep only some input and output channels of the layer `name`, in place.

    Args:
        model: the network that holds the layer.
        name: dotted name of the layer.
        inputs: weight columns that stay; None keeps all.
        outputs: output channels that stay; None keeps all.
        index: for linear layers, which of the `source` features that arrive are read; None reads all.
        source: for linear layers, the number of features that arrive.

    Raises:
        StructureError: the layer is of a type that cannot be resized.
    """
    module = model.get_submodule(name)
    kind = layers.kind_of(module)
    if kind is None or kind.form == "mixing":
        raise StructureError(
            f"{name}: layers of type {type(module).__name__} cannot be resized. For a class of your own register "
            "a rule (snnprune.register_layer)."
        )
    if layers.is_grouped(module):
        if outputs is not None:
            _select_conv_groups(module, outputs)
        return
    if outputs is not None and isinstance(module, nn.GroupNorm):
        _set_norm_groups(module, len(outputs))
    _note_sides(module, inputs, outputs)
    for side, keep in ((kind.outputs, outputs), (kind.inputs, inputs)):
        if keep is not None:
            for own, dim in side.items():
                _take(module, own, dim, keep)
    for own, counted in kind.sizes.items():
        keep = inputs if counted == "inputs" else outputs
        if keep is not None and hasattr(module, own):
            setattr(module, own, len(keep))
    if isinstance(module, nn.RNNBase):
        module.flatten_parameters()  # cuDNN wants all of them in one piece of memory
    if isinstance(module, nn.Linear):
        _set_index(model, name, module, index, source)


def _note_sides(module: nn.Module, inputs: Tensor | None, outputs: Tensor | None) -> None:
    """Note which channels of a layer stay, before its sizes change."""
    if outputs is not None:
        note_(module, "outputs", outputs, layers.out_width(module))
    if inputs is not None and (layers.is_weighted(module) or layers.is_reading(module)):
        note_(module, "inputs", inputs, module.in_features if _is_linear(module) else layers.in_width(module))


def _is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    return isinstance(module, nn.Linear)


def _take(module: nn.Module, name: str, dim: int, keep: Tensor) -> None:
    """Replace a parameter or buffer by some of its slices, with the same flags."""
    old = getattr(module, name, None)
    if not isinstance(old, Tensor):
        return
    note_(module, f"{name}.{dim}", keep, old.shape[dim])
    new = old.detach().index_select(dim, keep.to(old.device))  # always a copy, also of all slices
    if old.dim() == 4 and old.is_contiguous(memory_format=torch.channels_last):
        new = new.contiguous(memory_format=torch.channels_last)
    if isinstance(old, nn.Parameter):
        setattr(module, name, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        module._buffers[name] = new


def _select_conv_groups(module: Any, outputs: Tensor) -> None:
    """Keep whole groups of a grouped convolution, given by their output channels."""
    each = module.out_channels // module.groups
    kept = outputs[::each] // each
    if not torch.equal(outputs.cpu(), (kept[:, None] * each + torch.arange(each).to(kept)).flatten().cpu()):
        raise StructureError(f"a convolution of {module.groups} groups can only lose whole groups.")
    inner = module.in_channels // module.groups
    rows = outputs
    inputs = (kept[:, None] * inner + torch.arange(inner).to(kept)).flatten()
    _note_sides(module, inputs, outputs)
    if layers.input_dim(module) == 0:  # transposed: the first dimension of the weight holds the inputs
        rows = inputs
    _take(module, "weight", 0, rows)
    _take(module, "bias", 0, outputs)
    module.groups = len(kept)
    module.in_channels, module.out_channels = len(kept) * inner, len(kept) * each


def _set_norm_groups(module: nn.GroupNorm, left: int) -> None:
    each = module.num_channels // module.num_groups
    if left % each:
        raise StructureError(f"a group norm of {module.num_groups} groups can only lose whole groups.")
    module.num_groups = left // each


def _set_index(model: nn.Module, name: str, module: nn.Linear, index: Tensor | None, source: int) -> None:
    """Give the linear layer an index selection, change it, or take it away."""
    indexed = isinstance(module, layers.IndexedLinear)
    if index is None and not indexed:
        return
    if index is not None and indexed:
        module.index = index.to(module.weight.device).clone()
        module.source_features = source
        return
    kwargs = {"device": "meta", "dtype": module.weight.dtype}
    new: nn.Linear
    if index is None:
        new = nn.Linear(module.in_features, module.out_features, module.bias is not None, **kwargs)
    else:
        with torch.device("meta"):
            new = layers.IndexedLinear(
                module.in_features,
                module.out_features,
                module.bias is not None,
                source_features=source,
            )
        new.index = index.to(module.weight.device).clone()
    new.weight, new.bias = module.weight, module.bias
    new.train(module.training)
    hand_over_(module, new)
    replace_module_(model, name, new)
