"""How many passes it takes to find the groups at fault, and that no others are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune


def twelve(y):
    """A width in a function of its own, which cannot be made to take another number as a module's code can."""
    return y.reshape(len(y), 12, *y.shape[2:])


class Block(nn.Module):
    """A residual block of which a part fixes its width in the code, or divides by it, or does neither."""

    def __init__(self, width: int, fault: str) -> None:
        super().__init__()
        self.up, self.inner, self.down = (nn.Conv2d(*io, 1) for io in ((width, 8), (8, 12), (12, width)))
        self.fault = fault

    def forward(self, x):
        y = F.silu(self.inner(F.silu(self.up(x))))
        if self.fault == "fixed":
            y = twelve(y)
        if self.fault == "training" and self.training:
            y = twelve(y)
        if self.fault == "divided":
            y = y * y.shape[1] ** -0.5
        return x + self.down(y)


class Many(nn.Module):
    def __init__(self, faults: list[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.passes = 0
        self.stem, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)
        self.blocks = nn.ModuleList(Block(16, fault) for fault in faults)

    def forward(self, x):
        COUNT.append(1)
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


COUNT: list[int] = []
X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def search(faults: list[str]) -> tuple[set[str], int]:
    """The groups that are kept, and passes of the whole model."""
    COUNT.clear()
    groups = snnprune.trace(Many(faults), X)
    kept = {g.id for g in groups if not g.prunable} - {"head"}
    return kept, len(COUNT)


@pytest.mark.parametrize("fault", ["fixed", "divided", "training"])
def test_one_fault_among_many_takes_a_logarithm_of_passes(fault):
    faults = [""] * 31
    base = search(faults)[1]
    faults.insert(17, fault)
    kept, passes = search(faults)
    assert kept == {"blocks.17.inner"}
    # That it is there, each halving in two (a gated and a removed pass), that it is its own, and all once more.
    assert passes - base <= 3 * (2 + math.ceil(math.log2(2 * 32 + 1)) + 1) + 6


def test_many_faults_share_their_passes():
    """Twenty of forty blocks: a few passes for each, whatever the number of the other groups."""
    faults = ["fixed", ""] * 20
    base = search([""] * 40)[1]
    kept, passes = search(faults)
    assert kept == {f"blocks.{n}.inner" for n in range(0, 40, 2)}
    assert passes - base <= 6 * 20


def test_faults_of_all_kinds_are_found_together():
    faults = ["fixed", "", "divided", "", "training", "", "fixed", "divided"]
    kept, _ = search(faults)
    assert kept == {f"blocks.{n}.inner" for n, fault in enumerate(faults) if fault}


class Together(nn.Module):
    """Two groups of which each may go, but not both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 8), nn.Linear(6, 8)
        self.c, self.d, self.e = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        y, z = self.a(x).tanh(), self.b(x).tanh()
        both = max(0, 16 - y.shape[-1] - z.shape[-1]) * max(0, 8 - y.shape[-1]) * max(0, 8 - z.shape[-1])
        return self.e((self.c(y) + self.d(z)).tanh() * (1 + both))


def test_groups_that_are_exact_apart_and_not_together():
    groups = {g.id: g for g in snnprune.trace(Together(), torch.randn(4, 6), input_neurons=False)}
    assert {name for name in ("a", "b") if not groups[name].prunable} in ({"a"}, {"b"})
    assert "not together with other groups" in str(groups["b"].reason or groups["a"].reason)
    assert groups["c"].prunable
