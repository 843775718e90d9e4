"""What the start makes of sensitivities and savings."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import snnprune
from snnprune.learner import TaskLoss
from snnprune.switching import measure_importance
from snnprune.switching.encoding import Evidence, Scorer

HARD = TaskLoss(None, distill=0.0, temperature=1.0).hard


def values_of(scorer: Scorer, model: nn.Module) -> dict[str, torch.Tensor]:
    return scorer.segments.split(scorer(model))


def evidence(**savings: float) -> Evidence:
    generator = torch.Generator().manual_seed(0)
    return Evidence({n: torch.rand(8, generator=generator) + 0.1 for n in savings}, savings)


def test_evidence_does_not_depend_on_the_unit_of_the_loss():
    one = evidence(a=0.1, b=0.01)
    other = Evidence({n: 1e4 * v for n, v in one.importance.items()}, {n: 0.5 * v for n, v in one.saving.items()})
    torch.testing.assert_close(one.shifts(["a", "b"]), other.shifts(["a", "b"]), atol=1e-5, rtol=0)
    for a, b in zip(one.within(["a", "b"]), other.within(["a", "b"]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_shifts_rise_with_sensitivity_and_fall_with_the_saving():
    base = evidence(a=0.1, b=0.1).shifts(["a", "b"])
    assert evidence(a=0.2, b=0.1).shifts(["a", "b"])[0] < base[0]
    louder = evidence(a=0.1, b=0.1)
    louder.importance["a"].mul_(10)
    assert louder.shifts(["a", "b"])[0] > base[0]


def test_dead_neurons_are_last_but_do_not_hide_the_rest():
    given = evidence(a=0.1, b=0.1)
    given.importance["a"][3] = 0.0
    dead, other = given.within(["a", "b"])
    assert dead.argmin() == 3
    assert dead.min() >= -3.0
    assert other.std() > 0.2


def test_a_neuron_that_nobody_needs_goes_first():
    """Equal norms, but one neuron's output is cancelled: weights cannot say so, the loss does."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    with torch.no_grad():
        for row in (model[0].weight, model[2].weight.t()):
            row /= row.norm(dim=1, keepdim=True)
        model[0].weight[5] = -model[0].weight[5].abs()  # never positive for inputs >= 0
        model[0].bias[5] = -1.0
    x, y = torch.rand(64, 6, dtype=torch.float64), torch.randint(3, (64,))
    groups = snnprune.trace(model, x, input_neurons=False)
    found = measure_importance(model, groups, [(x, y)], HARD)
    assert float(found["0"][5]) == 0.0
    known = Evidence(found, {"0": 0.1})
    with torch.no_grad():
        informed = values_of(Scorer(model, groups, scores="switcher", evidence=known), model)["0"]
        plain = values_of(Scorer(model, groups, scores="switcher"), model)["0"]
    assert int(informed.argmin()) == 5
    assert int(plain.argmin()) != 5


def test_dead_neurons_move_nobody_else():
    generator = torch.Generator().manual_seed(1)
    live = {"a": torch.rand(20, generator=generator) + 0.1, "b": torch.rand(10, generator=generator) + 0.1}
    savings = {"a": 0.01, "b": 0.02}
    whole = Evidence(live, savings)
    dead = Evidence({**live, "a": torch.cat([live["a"], torch.zeros(9)])}, savings)
    ids = ["a", "b"]
    assert torch.allclose(dead.shifts(ids), whole.shifts(ids))
    a, b = dead.within(ids)
    assert torch.allclose(a[:20], whole.within(ids)[0])
    assert torch.allclose(b, whole.within(ids)[1])
    assert (a[20:] == -3).all()


@pytest.mark.parametrize("factor", [1e-8, 1e8])  # of squared gradients: a loss 1e4 times smaller or larger
def test_the_unit_of_the_loss_does_not_matter_where_neurons_are_dead(factor):
    generator = torch.Generator().manual_seed(2)
    found = {"a": 1e-6 * torch.rand(20, generator=generator), "b": 1e-4 * torch.rand(10, generator=generator)}
    found["a"][:6] = 0
    savings = {"a": 0.01, "b": 0.02}
    one, other = Evidence(found, savings), Evidence({n: factor * v for n, v in found.items()}, savings)
    assert torch.allclose(one.shifts(["a", "b"]), other.shifts(["a", "b"]), atol=1e-5)
    for mine, theirs in zip(one.within(["a", "b"]), other.within(["a", "b"]), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_a_group_that_is_dead_as_a_whole_is_worth_the_least():
    found = {"a": torch.full((4,), 2.0), "b": torch.full((4,), 1.0), "c": torch.zeros(4)}
    evidence = Evidence(found, dict.fromkeys(found, 0.1))
    shifts = evidence.shifts(list(found))
    assert shifts[2] == shifts[1] < shifts[0]
    assert all((values == 0).all() for values in evidence.within(list(found))), "groups of equals"
    nothing = Evidence({"a": torch.zeros(4)}, {"a": 0.1})
    assert float(nothing.shifts(["a"])) == 0
    assert (nothing.within(["a"])[0] == 0).all()
