"""Scales: what they must look like, and what they mean for the columns of a consumer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import layers
from ..errors import CollapsedLayerError, ConfigError
from ..graph import NeuronGroup

Scales = Mapping[str, Tensor]


def check_scales(groups: Sequence[NeuronGroup], scales: Scales) -> None:
    """Refuse scales that cannot be folded.

    Raises:
        ConfigError: an unknown or kept group, a wrong length, a negative or a non-finite scale.
        CollapsedLayerError: all scales of a group are 0, or of the part that one layer holds.
    """
    known = {group.id: group for group in groups}
    if not isinstance(scales, Mapping) or not all(isinstance(scale, Tensor) for scale in scales.values()):
        raise ConfigError("scales must be a mapping from the names of groups to tensors, one number per neuron.")
    for name, scale in scales.items():
        group = known.get(name)
        if group is None:
            raise ConfigError(f"scales name the group {name!r}, which the model does not have.")
        if not group.prunable:
            raise ConfigError(f"group {name} must be kept ({group.reason}), but scales are given for it.")
        if tuple(scale.shape) != (group.size,):
            raise ConfigError(
                f"scales of {name} have shape {tuple(scale.shape)}; the group has {group.size} neurons."
            )
        if not bool(torch.isfinite(scale).all()) or bool((scale < 0).any()):
            raise ConfigError(f"scales of {name} must be finite and >= 0.")
        if not bool((scale > 0).any()):
            raise CollapsedLayerError(
                f"{name}: all {group.size} neurons have scale 0, so removing them would cut the network. "
                "Ask for a larger target or a higher floor per layer."
            )
        for member in group.partial:
            if not bool((scale[torch.tensor(member.neurons, device=scale.device)] > 0).any()):
                raise CollapsedLayerError(
                    f"{member.module}: the {len(set(member.neurons))} neurons of {name} that it holds all have "
                    "scale 0, so removing them would cut the network. Leave it one at least."
                )


def leave_alive_(groups: Iterable[NeuronGroup], scales: Mapping[str, Tensor]) -> None:
    """Give scale 1 to as few neurons as it takes for no layer to lose all its inputs or outputs, in place.

    So that scales drawn at random never empty a layer, and what they prove does not depend on chance.
    """
    mine = [group for group in groups if group.id in scales]
    for group in mine:
        for part in (tuple(range(group.size)), *(member.neurons for member in group.partial)):
            if not bool((scales[group.id][list(part)] > 0).any()):
                scales[group.id][part[0]] = 1.0
    arrives: dict[str, dict[int, bool]] = {}  # what the channels of a consumer let through
    for group in mine:
        if group.kind == "channel":
            on = (scales[group.id] > 0).tolist()
            for member in group.consumers:
                columns = arrives.setdefault(member.module, {})
                for column, neuron in zip(member.channels, member.neurons, strict=True):
                    columns[column] = columns.get(column, True) and on[neuron]
    for group in mine:
        for member in group.consumers if group.kind == "input" else ():
            through = arrives.get(member.module, {})
            open_ = [n for c, n in zip(member.channels, member.neurons, strict=True) if through.get(c, True)]
            if open_ and not bool((scales[group.id][open_] > 0).any()):
                scales[group.id][open_[0]] = 1.0


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """How the groups' scales meet the input columns of one consumer.

    Attributes:
        module: name of the consumer.
        width: columns of its input.
        parts: for every group that gates it (group id, columns, neurons), index tensors of equal length.
    """

    module: str
    width: int
    parts: tuple[tuple[str, Tensor, Tensor], ...]

    def __call__(self, scales: Scales) -> Tensor | None:
        """The product of all scales per column, (..., width); None when no group has scales.

        Differentiable in the scales. Where two groups meet (a channel and its flattened units), their
        scales multiply.
        """
        total: Tensor | None = None
        for group, columns, neurons in self.parts:
            scale = scales.get(group)
            if scale is None:
                continue
            if len(columns) == self.width == scale.shape[-1] and torch.equal(columns, neurons):
                part = scale
            else:
                columns, neurons = columns.to(scale.device), neurons.to(scale.device)
                ones = scale.new_ones(*scale.shape[:-1], self.width)
                part = ones.index_copy(-1, columns, scale.index_select(-1, neurons))
            total = part if total is None else total * part
        return total


def scale_input(module: nn.Module, x: Tensor, factor: Tensor) -> Tensor:
    """A consumer's input with its columns scaled: what a gate does.

    Args:
        module: the consumer.
        x: its input, with or without a batch dimension.
        factor: (columns,), or (inputs, columns) where every input of the batch has scales of its own.
    """
    feature_dims = x.dim() - layers.channel_dim(module, x)  # that of the channels, and those of positions
    if factor.dim() == 2:
        factor = _per_input(factor, x, feature_dims=feature_dims)
    if feature_dims > 1:
        factor = factor.reshape(*factor.shape, *[1] * (feature_dims - 1))
    return x * factor.to(x.dtype)


def _per_input(factor: Tensor, x: Tensor, *, feature_dims: int) -> Tensor:
    """Scales per input, shaped to meet x: (batch, 1, ..., columns).

    Where a layer sees several parts of every input as entries of its batch (windows, heads), the parts
    of an input follow each other. Where the first dimension is no batch, inputs share their mean.
    """
    parts, rest = divmod(x.shape[0], len(factor))
    if rest or x.dim() <= feature_dims:
        return factor.mean(0)
    factor = factor.repeat_interleave(parts, 0) if parts > 1 else factor
    return factor.reshape(len(factor), *[1] * (x.dim() - feature_dims - 1), -1)


def scale_call(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], factor: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a consumer's call with its input scaled, however it was passed."""
    if args:
        return (scale_input(module, args[0], factor.to(args[0].device)), *args[1:]), kwargs
    name, x = next((k, v) for k, v in kwargs.items() if isinstance(v, Tensor))
    return args, {**kwargs, name: scale_input(module, x, factor.to(x.device))}


def column_maps(model: nn.Module, groups: Iterable[NeuronGroup]) -> dict[str, ColumnMap]:
    """A `ColumnMap` for every layer that consumes a prunable group."""
    parts: dict[str, list[tuple[str, Tensor, Tensor]]] = {}
    for group in groups:
        if not group.prunable:
            continue
        for member in group.consumers:
            pair = (group.id, torch.tensor(member.channels), torch.tensor(member.neurons))
            parts.setdefault(member.module, []).append(pair)
    return {
        name: ColumnMap(name, layers.in_width(model.get_submodule(name)), tuple(found))
        for name, found in parts.items()
    }
