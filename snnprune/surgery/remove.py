"""Remove: cut the neurons of scale 0 out of every layer that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import layers
from ..errors import CollapsedLayerError
from ..graph import NeuronGroup
from ..layers import attention
from ..layers.code import set_sizes_
from ..layers.numbers import set_number_
from ..ties import tie_again_, ties_of
from .resize import select_, select_slices_
from .scales import Scales, check_scales


@dataclass(slots=True)
class LayerMasks:
    """What stays of one layer, as boolean masks.

    Attributes:
        outputs: over the output channels (for a per-channel layer, over its channels).
        inputs: over the width of the tensor that the layer receives.
        selected: over the same width: which of the features that arrive the layer reads.
    """

    outputs: Tensor | None = None
    inputs: Tensor | None = None
    selected: Tensor | None = None


def layer_masks(model: nn.Module, groups: Sequence[NeuronGroup], kept: dict[str, Tensor]) -> dict[str, LayerMasks]:
    """Which channels of which layer stay, for boolean masks per group.

    Args:
        model: the network.
        groups: its groups; those that are not in `kept` stay whole.
        kept: group id -> (size,) boolean.
    """
    masks: dict[str, LayerMasks] = {}
    for group in groups:
        if group.id not in kept:
            continue
        for member in group.members:
            if member.role not in ("producer", "consumer", "between"):
                continue
            entry = masks.setdefault(member.module, LayerMasks())
            module = model.get_submodule(member.module)
            field = "outputs"
            if member.role == "consumer":
                field = "selected" if group.kind == "input" else "inputs"
            mask = getattr(entry, field)
            if mask is None:
                mask = torch.ones(_width(module, member.role), dtype=torch.bool)
                setattr(entry, field, mask)
            mask[torch.tensor(member.channels)] &= kept[group.id].cpu()[torch.tensor(member.neurons)]
    return masks


def _width(module: nn.Module, role: str) -> int:
    return layers.in_width(module) if role == "consumer" else layers.out_width(module)


def remove_(model: nn.Module, groups: Sequence[NeuronGroup], scales: Scales) -> nn.Module:
    """Cut every neuron of scale 0 out of the model, in place. Fold first.

    Single inputs of a fully connected layer are removed by an index selection in front of it
    (`IndexedLinear`); everything else stays of the user's own classes. Parameters are replaced by new
    objects, so optimisers must be made anew.

    Returns:
        The same model.

    Raises:
        ConfigError: the scales do not fit the groups.
        CollapsedLayerError: a layer would be left without inputs or outputs.
    """
    check_scales(groups, scales)
    kept = {name: scale.detach() > 0 for name, scale in scales.items()}
    ties = ties_of(model)
    for group in groups:
        mask = kept.get(group.id)
        if mask is not None and not bool(mask.all()):
            for member in group.heads:
                set_heads_(model.get_submodule(member.module), int(mask.sum()))
    for name, masks in layer_masks(model, groups, kept).items():
        module = model.get_submodule(name)
        outputs = None if masks.outputs is None else masks.outputs.nonzero().flatten()
        inputs, index, source = _inputs(module, masks)
        if any(part is not None and not len(part) for part in (outputs, inputs)):
            raise CollapsedLayerError(
                f"{name}: no neuron would be left. Ask for a larger target or a higher floor per layer."
            )
        select_(model, name, inputs=inputs, outputs=outputs, index=index, source=source)
    for (name, dim), mask in slice_masks(model, groups, kept).items():
        select_slices_(model, name, dim, mask.nonzero().flatten())
    for (name, role, place), number in numbers_left(groups, kept).items():
        module = model.get_submodule(name)
        if role == "size":
            set_number_(module, place, number)
        else:
            call, _, position = place.rpartition("#")
            set_sizes_(module, {call: {int(position): number}})
    tie_again_(model, ties)
    attention.unnest_(model)
    forget_(model)
    return model


def forget_(model: nn.Module) -> None:
    """Let modules drop what they computed from their parameters for evaluation, in place."""
    modes = {module: module.training for module in model.modules()}
    model.train()
    for module, mode in modes.items():
        module.training = mode


def numbers_left(groups: Sequence[NeuronGroup], kept: dict[str, Tensor]) -> dict[tuple[str, str, str], int]:
    """What the network's own numbers come to: (module, role, place) -> number, where neurons go."""
    masks: dict[tuple[str, str, str], tuple[int, Tensor]] = {}
    for group in groups:
        mask = kept.get(group.id)
        if mask is None or bool(mask.all()):
            continue
        for member in group.members:
            if member.role in ("size", "call"):
                key = (member.module, member.role, member.place)
                whole = torch.ones(max(0, member.width), dtype=torch.bool)
                _, left = masks.setdefault(key, (member.width, whole))
                left[torch.tensor(member.channels, dtype=torch.long)] &= mask.cpu()[
                    torch.tensor(member.neurons, dtype=torch.long)
                ]
    return {key: int(left.sum()) if width >= 0 else -1 for key, (width, left) in masks.items()}


def slice_masks(
    model: nn.Module, groups: Sequence[NeuronGroup], kept: dict[str, Tensor]
) -> dict[tuple[str, int], Tensor]:
    """Which slices of which parameters outside layers stay: (name, dimension) -> boolean."""
    masks: dict[tuple[str, int], Tensor] = {}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for group in groups:
        for member in group.members:
            if member.role != "parameter" or group.id not in kept:
                continue
            key = (member.module, member.dim)
            if key not in masks:
                masks[key] = torch.ones(tensors[member.module].shape[member.dim], dtype=torch.bool)
            masks[key][torch.tensor(member.channels)] &= kept[group.id].cpu()[torch.tensor(member.neurons)]
    return {key: mask for key, mask in masks.items() if not bool(mask.all())}


def set_heads_(module: nn.Module, heads: int) -> None:
    """Let an attention module have fewer heads, before its layers shrink: open it, set its attributes."""
    attention.open_([module])
    attention.set_head_count(module, heads)


def _inputs(module: nn.Module, masks: LayerMasks) -> tuple[Tensor | None, Tensor | None, int]:
    """(weight columns that stay, index selection or None, width of the tensor that will arrive)."""
    if masks.inputs is None and masks.selected is None:
        width = layers.in_width(module) if isinstance(module, nn.Linear) else 0
        index = module.index if isinstance(module, layers.IndexedLinear) else None
        return None, index, width
    width = layers.in_width(module)
    arrives = torch.ones(width, dtype=torch.bool) if masks.inputs is None else masks.inputs
    reads = arrives if masks.selected is None else arrives & masks.selected
    old = torch.arange(width)
    if isinstance(module, layers.IndexedLinear):
        old = module.index.cpu()
    columns = reads[old].nonzero().flatten()
    place = torch.cumsum(arrives.long(), 0) - 1
    index, source = place[old[columns]], int(arrives.sum())
    if len(index) == source and bool((index == torch.arange(source)).all()):
        return columns, None, source
    return columns, index, source
