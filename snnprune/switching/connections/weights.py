"""The weights of switched layers, and scales folded into them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def weight_of(model: nn.Module, name: str) -> Tensor:
    """The weight of a layer, (out, in)."""
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


@torch.no_grad()
def fold_connections_(model: nn.Module, scales: Mapping[str, Tensor]) -> nn.Module:
    """Multiply weights by the scales of their connections, in place; scale 0 leaves an exact zero."""
    for name, scale in scales.items():
        weight = weight_of(model, name)
        weight.copy_(torch.where(scale != 0, weight * scale.to(weight), 0.0))
    return model
