"""Layers that the example does not reach: other inputs reach them in the compact model."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune.errors import UnsupportedModelError
from snnprune.proof import gated_by, random_scales, relative_difference
from snnprune.surgery import fold_, remove_


class Expert(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.down(F.silu(self.norm(self.up(x))))


class Routed(nn.Module):
    """Every input goes to one expert; the example goes to a single one, and others to all."""

    def __init__(self, hidden=(12, 12, 12), named=False):
        super().__init__()
        torch.manual_seed(0)
        experts = [Expert(16, n) for n in hidden]
        self.stem, self.head = nn.Linear(8, 16), nn.Linear(16, 4)
        self.experts = (
            nn.ModuleDict({f"e{i}": e for i, e in enumerate(experts)}) if named else nn.ModuleList(experts)
        )

    def route(self, x):
        return int(x.mean() > 0) + int(x.mean() > 1)

    def forward(self, x):
        number = self.route(x)
        y = torch.tanh(self.stem(x))
        expert = self.experts[number] if isinstance(self.experts, nn.ModuleList) else self.experts[f"e{number}"]
        return self.head(y + expert(y))


def data(seed=0):
    return torch.randn(6, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compact(model, example, groups=None):
    """The gated and the removed model, neurons of every group gone."""
    model = model.double().eval()
    groups = groups or snnprune.trace(model, example)
    scales = random_scales(groups, torch.Generator().manual_seed(0))
    import copy

    return groups, scales, remove_(fold_(copy.deepcopy(model), groups, scales), groups, scales)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("hidden", [(12, 12, 12), (12, 10, 14)])
def test_experts_that_are_not_chosen_are_cut_like_those_that_are(hidden, named, caplog):
    model = Routed(hidden, named).double().eval()
    with caplog.at_level(logging.WARNING):
        groups, scales, small = compact(model, data() - 2)
    assert "did not run" not in caplog.text
    names = ["e0", "e1", "e2"] if named else ["0", "1", "2"]
    sizes = {g.id: g.size for g in groups if g.prunable and g.kind == "channel"}
    assert sizes == {"stem": 16, **{f"experts.{name}.up": n for name, n in zip(names, hidden, strict=True)}}
    for shift in (-2, 0.5, 2):
        x = data(1) - data(1).mean() + shift
        with gated_by(model, groups, scales):
            assert relative_difference(model(x), small(x)) < 1e-10
        assert relative_difference(model(x), small(x)) > 1e-3


class Branch(nn.Module):
    """Another branch of another class for inputs of another kind."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.mid, self.head = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 4)
        self.rare, self.dead = nn.Sequential(nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 12)), nn.Linear(12, 12)

    def forward(self, x):
        y = torch.tanh(self.stem(x))
        return self.head(torch.tanh(self.rare(y) if float(x.mean()) > 0 else self.mid(y)))


def test_what_a_branch_may_read_that_is_not_taken_stays(caplog):
    model = Branch()
    with caplog.at_level(logging.WARNING):
        groups, _, small = compact(model, data() - 2)
    reasons = {g.id: g.reason for g in groups}
    assert reasons["stem"] == "rare.0 may read it, which the example does not reach"
    assert reasons["mid"] is None, "no code reads it by `dead`, which is as wide"
    assert "did not run" in caplog.text
    assert small(data() - 2).shape == (6, 4)


def test_lists_whose_modules_do_not_fit_into_each_others_place(caplog):
    class Stages(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages, self.head = nn.ModuleList([nn.Linear(8, 16), nn.Linear(16, 16)]), nn.Linear(16, 4)

        def forward(self, x):
            y = torch.tanh(self.stages[0](x))
            return self.head(self.stages[1](y) if float(x.mean()) > 0 else y)

    with pytest.raises(UnsupportedModelError, match=r"stages\.1 may read it, which the example does not reach"):
        snnprune.trace(Stages(), data().float() - 2, input_neurons=False)
