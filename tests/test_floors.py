"""Floors hold for every layer of a group, so that no cut that meets a budget empties one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import snnprune
from snnprune.budget.blocks import at_least, parts_of, whole_blocks
from snnprune.budget.ranking import Members, Ranking, Row
from snnprune.errors import CollapsedLayerError
from snnprune.graph import Member, NeuronGroup
from snnprune.proof import random_scales, randomize_norms_
from snnprune.surgery.scales import leave_alive_


class Branches(nn.Module):
    """Branches of 4 and 28 channels that meet a layer of 32: one group, of which a layer holds four neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.a, self.b, self.c = (nn.Conv2d(16, k, 3, padding=1) for k in (4, 28, 32))
        self.m, self.o = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 4, 1)
        self.n = nn.BatchNorm2d(32)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        y = self.n(torch.cat([self.a(x), self.b(x)], 1) + self.c(x))
        return self.o(torch.relu(y + self.m(torch.relu(y))))


@pytest.mark.parametrize(
    ("floor", "size", "least"), [(0.1, 25, 3), (0.1, 30, 3), (0.1, 31, 4), (0.0, 7, 1), (1, 7, 7)]
)
def test_a_floor_is_rounded_up(floor, size, least):
    assert at_least(floor, size) == least


@pytest.mark.parametrize("step", [1, 4, 8])
@pytest.mark.parametrize("seed", range(5))
def test_every_part_keeps_its_floor_out_of_reach(seed, step):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=32)
    scores[:4] -= 100  # the worst of all
    parts = [np.arange(4), np.arange(4, 32)]
    members = Members(32, whole_blocks(4, step, 32), parts)
    ranking = Ranking([members], [Row((step,), (True,))], floor=0.3, lead=1, device=torch.device("cpu"))
    levels = ranking(torch.from_numpy(scores)).levels[0, 1:-1].numpy()
    safe = levels == 0
    assert safe[:4].sum() >= 2
    assert safe[4:].sum() >= math.ceil(0.3 * 28)
    assert safe.sum() % step == 0
    assert set(np.flatnonzero(safe[:4])) <= set(np.argsort(-scores[:4])[: safe[:4].sum()])
    found, sizes = np.unique(levels[~safe], return_counts=True)
    assert sizes.tolist() == [step] * ((32 - int(safe.sum())) // step)  # whole blocks of one level each
    rank = np.argsort(np.argsort(-scores)) + 1
    assert found.tolist() == np.sort(rank[~safe])[::step].tolist()  # that of their best neuron


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("seed", range(6))
def test_a_met_budget_leaves_every_layer_something(seed, round_to):
    torch.manual_seed(seed)
    model, x = Branches().double().eval(), torch.randn(2, 3, 8, 8).double()
    randomize_norms_(model, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.a.weight.mul_(1e-3)
        model.a.bias.mul_(1e-3)
    with snnprune.attach(model, x, floor=0.25, round_to=round_to) as gated:
        gated.set_budget({"macs": 0.25})
        small = gated.compact()
        torch.testing.assert_close(gated.fold()(x), gated(x), rtol=0, atol=1e-12)
        torch.testing.assert_close(small(x), gated(x), rtol=0, atol=1e-12)
    assert small.a.out_channels >= 1
    assert small.b.out_channels >= 7
    assert small.c.out_channels == small.a.out_channels + small.b.out_channels


def test_whether_a_group_is_prunable_does_not_depend_on_chance():
    """Half of all channels off, with parts of two: some draw empties one, unless draws are mended."""

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.i = nn.Conv2d(3, 6, 1)
            self.parts = nn.ModuleList(nn.Conv2d(6, 2, 1) for _ in range(12))
            self.c, self.o = nn.Conv2d(6, 24, 1), nn.Conv2d(24, 4, 1)

        def forward(self, x):
            x = torch.relu(self.i(x))
            return self.o(torch.relu(torch.cat([p(x) for p in self.parts], 1) + self.c(x)))

    model, x = Halves(), torch.randn(2, 3, 4, 4)
    groups = snnprune.graph.find_groups(model, x)
    wide = next(g for g in groups if g.size == 24)
    assert len(parts_of(wide)) == 12
    emptied = 0
    for seed in range(40):
        scales = random_scales(groups, torch.Generator().manual_seed(seed), zeros=0.6)
        emptied += sum(not bool((scales[wide.id][torch.from_numpy(p)] > 0).any()) for p in parts_of(wide))
        assert float((scales[wide.id] == 0).double().mean()) > 0.3
    assert emptied == 0
    assert [g.reason for g in snnprune.trace(model, x) if g.id == wide.id] == [None]


def test_single_inputs_never_lose_the_last_channel_that_arrives():
    consumer = Member("f", "consumer", tuple(range(8)), tuple(i // 4 for i in range(8)))
    channels = NeuronGroup("c", "channel", 2, (Member("c", "producer", (0, 1), (0, 1)), consumer))
    units = NeuronGroup("f:in", "input", 8, (Member("f", "consumer", tuple(range(8)), tuple(range(8))),))
    scales = {"c": torch.tensor([0.0, 1.0]), "f:in": torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])}
    leave_alive_([channels, units], scales)
    assert scales["f:in"].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert scales["c"].tolist() == [0, 1]


def test_scales_by_hand_and_the_free_mode_are_told_of_an_emptied_layer():
    model, x = Branches(), torch.randn(2, 3, 8, 8)
    with snnprune.attach(model, x, switcher=None) as gated:
        group = next(g for g in gated.groups if g.size == 32)
        scales = torch.ones(32)
        scales[:4] = 0
        with pytest.raises(
            CollapsedLayerError, match=f"^a: the 4 neurons of {group.id} that it holds all have scale 0"
        ):
            gated.set_scales({group.id: scales})
        values = {g.id: torch.ones(g.size) for g in gated.groups if g.prunable}
        values[group.id] = scales - 0.5
        with pytest.raises(
            CollapsedLayerError, match=f"^{group.id}: the switcher turned off all 4 neurons of one"
        ):
            gated._kept_alone(gated.segments.join(values))
