"""Shared by the tests of users' models: a small network, its data, and a pruning that must be exact."""

from __future__ import annotations

import torch
from torch import nn

import snnprune
from snnprune.proof import random_scales, relative_difference

X = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 5, (16,), generator=torch.Generator().manual_seed(1))
CONFIG = snnprune.PruneConfig(target={"macs": 0.5}, epochs=4, search=snnprune.SearchOptions(share=0.5))


def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def exact(model: nn.Module, x: torch.Tensor, example: torch.Tensor | None = None) -> set[str]:
    """Prune with random scales, compare, and return the prunable groups."""
    model, x = model.double().eval(), x.double()
    groups = snnprune.trace(model, x[:2] if example is None else example.double())
    with snnprune.attach(model, x[:2], switcher=None) as gated:
        gated.groups = groups
        scales = random_scales(groups, torch.Generator().manual_seed(0))
    with snnprune.switching.switch_neurons(model, groups, x[:2], snnprune.switching.Options(scores=None)) as gated:
        gated.set_scales(scales)
        assert relative_difference(gated(x), gated.compact()(x)) <= 1e-10
    return {g.id for g in groups if g.prunable}
