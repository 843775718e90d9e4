"""Fold: multiply scales into the weights of the layers that read the scaled neurons."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import layers
from ..graph import NeuronGroup
from .scales import Scales, check_scales, column_maps


@torch.no_grad()
def fold_(model: nn.Module, groups: Sequence[NeuronGroup], scales: Scales) -> nn.Module:
    """Multiply every consumer's input columns by their scales, in place.

    `(x * g) W = x (g W)`, so the result computes what the gated model computes, whatever the
    activations are (arXiv 2110.05954, section 3.3.1, read from right to left).

    Args:
        model: the network, without gates.
        groups: its groups.
        scales: group id -> (size,) values >= 0; groups that are missing keep scale 1.

    Returns:
        The same model.

    Raises:
        ConfigError: the scales do not fit the groups.
        CollapsedLayerError: a group's scales are all 0.
    """
    check_scales(groups, scales)
    done: set[int] = set()
    for name, columns in column_maps(model, groups).items():
        factor = columns(scales)
        if factor is None:
            continue
        module = model.get_submodule(name)
        kind = layers.kind_of(module)
        assert kind is not None, name
        if isinstance(module, layers.IndexedLinear):
            factor = factor[module.index]
        for own, dim in kind.inputs.items():
            weight = getattr(module, own, None)
            if not isinstance(weight, Tensor):  # a recurrent layer that reads in one direction alone
                continue
            if id(weight) in done:  # shared with a layer that reads the same neurons
                continue
            done.add(id(weight))
            shape = [1] * weight.dim()
            shape[dim] = -1
            weight.mul_(factor.to(weight).reshape(shape))
    return model
