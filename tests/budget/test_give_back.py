"""Where the best neurons leave no room for a block more, some of them are given back; nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from budget.test_selector import by_group, drawn, network
from snnprune.budget import CostModel
from snnprune.budget import selector as module
from snnprune.proof.tracing import trace


def grouped() -> CostModel:
    """A stream of 16 channels, and a grouped convolution between two layers: 4 groups of 8 that go together."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 1)
            self.g, self.c = nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.Conv2d(32, 16, 1)
            self.head = nn.Linear(16, 10)

        def forward(self, x):
            x = F.relu(self.a(x))
            return self.head((x + self.c(F.relu(self.g(F.relu(self.b(x)))))).mean((2, 3)))

    network, x = Net().eval(), torch.zeros(2, 1, 8, 8)
    return CostModel(network, trace(network, x), x)


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("share", [0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
def test_a_threshold_that_leaves_no_room_gives_something_back(share, round_to):
    """All of the stream is worth more than the groups; it would stay whole, and a group does not fit beside it."""
    cost = grouped()
    sizes = {name: group.size for name, group in cost.groups.items()}
    assert sizes == {"a": 16, "b": 4}
    scores = torch.cat([torch.arange(16.0).flip(0) + 10, torch.arange(4.0).flip(0)])
    mask, fits = cost.selector("macs", floor=0.1, round_to=round_to)(scores, share)
    assert bool(fits)
    kept = by_group(cost, mask)
    shares = {
        (a, b): cost.share("macs", {"a": np.arange(16) < a, "b": np.arange(4) < b})
        for a in range(2, 17)
        for b in range(1, 5)
    }
    below = [value for value in shares.values() if value <= share + 1e-9]
    found = shares[int(kept["a"].sum()), int(kept["b"].sum())]
    assert found in below
    assert found >= max(below) - 0.04
    for own in kept.values():  # the best of each
        assert own[: own.sum()].all()


@pytest.mark.parametrize("missed", [0.015, 0.03, 0.045])
def test_a_target_that_is_nearly_met_costs_nobody_above_the_threshold(missed):
    cost = grouped()
    scores = torch.cat([torch.arange(16.0).flip(0) + 10, torch.arange(4.0).flip(0)])
    whole = {"a": np.arange(16) < 16, "b": np.arange(4) < 2}
    mask, fits = cost.selector("macs", floor=0.1, round_to=1)(scores, cost.share("macs", whole) + missed)
    assert bool(fits)
    assert all((by_group(cost, mask)[name] == own).all() for name, own in whole.items())


@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("round_to", [1, 8])
def test_selections_that_end_near_the_target_are_as_without(monkeypatch, metric, round_to):
    cost, plan = network("resnet20"), module._plan
    with monkeypatch.context() as patch:
        patch.setattr(module, "_plan", lambda *args: replace(plan(*args), back=[1.0]))
        without = network("resnet20").selector(metric, floor=0.1, round_to=round_to)
    select = cost.selector(metric, floor=0.1, round_to=round_to)
    assert round_to > 1 or metric == "params" or select._starts > 1
    for seed in range(8):
        flat, _ = drawn(cost, seed)
        for share in (0.25, 0.5, 0.8):
            before = without(flat, share)[0]
            assert cost.share(metric, by_group(cost, before)) >= share - 0.01
            assert select(flat, share)[0].equal(before)


@pytest.mark.parametrize("round_to", [1, 8, 16])
@pytest.mark.parametrize("share", [0.4, 0.5, 0.6, 0.7])
def test_what_was_given_back_is_filled_in_smaller_blocks_too(share, round_to):
    """Four groups that are dear, and 48 channels of which a block of 8 is too much to come near the target."""
    parts = (
        nn.Conv1d(3, 32, 5, padding=2),
        nn.Conv1d(32, 32, 5, padding=2, groups=4),
        nn.Conv1d(32, 48, 3, padding=1),
    )
    net, x = (
        nn.Sequential(*parts, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(48, 4)).eval(),
        torch.randn(2, 3, 20),
    )
    cost = CostModel(net, trace(net, x), x)
    assert [group.size for group in cost.groups.values()] == [4, 48]
    first, second = cost.groups
    chosen = cost.select("macs", share, {first: np.arange(4.0), second: np.arange(48.0)}, round_to=round_to)
    best = max(
        found
        for a in range(1, 5)
        for b in range(5, 49)
        if (found := cost.share("macs", {first: np.arange(4) < a, second: np.arange(48) < b})) <= share
    )
    assert best - 1.1 * module.SLACK <= chosen.cost <= share + 1e-12
