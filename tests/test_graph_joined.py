"""Tensors joined along another dimension than that of their channels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import snnprune
from snnprune.graph import find_groups

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Joined(nn.Module):
    """Two convolutions side by side, joined along another dimension than their channels."""

    def __init__(self, how, fixed: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 3, padding=1)
        self.last, self.how, self.fixed = nn.Conv2d(6, 4, 3, padding=1), how, fixed

    def forward(self, x):
        second = torch.ones(len(x), 6, 8, 8) if self.fixed else self.b(x)
        return self.last(self.how([self.a(x), second]))


@pytest.mark.parametrize(
    "how",
    [
        lambda parts: torch.cat(parts, 0),
        lambda parts: torch.cat(parts, 2),
        lambda parts: torch.cat(parts, -1),
        lambda parts: torch.stack(parts).sum(0),
        lambda parts: torch.vstack(parts),
    ],
)
def test_joined_side_by_side_channels_live_and_die_together(how):
    (group,) = [g for g in snnprune.trace(Joined(how), X) if g.producers[0].module != "last"]
    assert group.prunable, group.reason
    assert group.size == 6
    assert {m.module for m in group.producers} == {"a", "b"}
    found = [g for g in find_groups(Joined(how, fixed=True), X) if g.producers[0].module == "a"]
    assert all("joined to a tensor of a fixed size" in str(g.reason) for g in found)
    assert found


class Watched(nn.Module):
    """What is joined is only looked at; each part goes its own way, yet the parts must stay equally wide."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)
        self.c, self.d = nn.Conv2d(6, 4, 3), nn.Conv2d(6, 4, 3)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        self.seen = torch.cat([a, b], 2).detach()
        return self.c(a) + self.d(b)


def test_joining_alone_binds_the_parts():
    found = [g for g in find_groups(Watched(), X) if {m.module for m in g.producers} & {"a", "b"}]
    assert [{m.module for m in g.producers} for g in found] == [{"a", "b"}]
