"""A small network into which tests of the proof put their traps."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import snnprune

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def by_id(model: nn.Module, x=X) -> dict[str, snnprune.NeuronGroup]:
    return {g.id: g for g in snnprune.trace(model.eval(), x)}


class Body(nn.Module):
    """Two layers between which, and after which, a subclass puts its trap."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)

    def middle(self, x):
        return x

    def end(self, x):
        return x

    def forward(self, x):
        return self.end(self.c(F.relu(self.b(self.middle(F.relu(self.a(x)))))))
