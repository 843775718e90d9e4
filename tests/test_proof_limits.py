"""How small a mistake the proof sees, and that only what has no weight at all is removed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import snnprune
from snnprune.budget import CostModel
from snnprune.errors import ExactnessError
from snnprune.graph import find_groups
from snnprune.proof import Difference, relative_difference
from snnprune.surgery import fold_, remove_
from snnprune.switching import GatedModel
from snnprune.switching.proving import prove_neurons

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Scaled(nn.Module):
    """Reads its own width in Python, which no label sees: each channel that goes changes the output a little."""

    def __init__(self, per_channel: float) -> None:
        super().__init__()
        self.a, self.b, self.f = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 8, 3), nn.Linear(8, 5)
        self.per_channel = per_channel

    def forward(self, x):
        x = self.a(x).relu()
        x = x * (1 + self.per_channel * x.shape[1])
        return self.f(self.b(x).relu().mean((2, 3)))


def scaled(per_channel: float) -> Scaled:
    torch.manual_seed(0)
    return Scaled(per_channel).eval()


@pytest.mark.parametrize(("per_channel", "exact"), [(0.0, True), (1e-8, False), (1e-6, False)])
def test_a_difference_of_a_hundred_millionth_is_a_mistake(per_channel, exact):
    groups = {g.id: g for g in snnprune.trace(scaled(per_channel), X)}
    assert groups["a"].prunable == exact
    assert exact or "removal changes the output" in str(groups["a"].reason)
    assert groups["b"].prunable


def test_so_it_is_at_the_end_of_a_run():
    model = scaled(1e-8)
    groups = find_groups(model, X)
    with GatedModel(model, groups, cost=CostModel(model, groups, X)) as gated:
        gated.set_scales({"a": torch.tensor([0.0] * 4 + [1.0] * 8), "b": torch.ones(8)})
        with pytest.raises(ExactnessError, match="the remove step changed the model's outputs by"):
            prove_neurons(gated, X)


def test_what_rounding_alone_explains_is_allowed_and_no_more():
    found = [Difference(r, f).exact for r, f in [(1e-10, 0.0), (1.1e-10, 0.0), (9e-9, 1e-9), (1.1e-8, 1e-9)]]
    assert found == [True, False, True, False]


class Strict(Scaled):
    """Fixes its width in the code, in training alone."""

    def forward(self, x):
        x = self.a(x).relu()
        if self.training and x.shape[1] != 12:
            raise ValueError("12 channels are wanted")
        return self.f(self.b(x).relu().mean((2, 3)))


def test_a_group_without_which_the_model_no_longer_trains_is_kept():
    """In evaluation mode removal is exact; the recovery would fail in its first step."""
    torch.manual_seed(0)
    groups = {g.id: g for g in snnprune.trace(Strict(0.0).eval(), X)}
    assert not groups["a"].prunable
    assert "the model fails without its neurons" in str(groups["a"].reason)
    assert groups["b"].prunable


def test_neurons_of_little_weight_are_folded_and_stay():
    model = scaled(0.0).double()
    groups = [g for g in find_groups(model, X.double()) if g.id == "a"]
    scales = {"a": torch.ones(12, dtype=torch.float64)}
    scales["a"][[1, 4, 5]] = torch.tensor([0.01, 1e-6, 1e-12], dtype=torch.float64)
    scales["a"][[2, 7]] = 0.0
    folded = fold_(copy.deepcopy(model), groups, scales)
    removed = remove_(copy.deepcopy(folded), groups, scales)
    kept = [i for i in range(12) if i not in (2, 7)]
    assert torch.equal(removed.a.weight, model.a.weight[kept])
    assert torch.equal(removed.b.weight, (model.b.weight * scales["a"][:, None, None])[:, kept])
    assert relative_difference(folded(X.double()), removed(X.double())) < 1e-13
