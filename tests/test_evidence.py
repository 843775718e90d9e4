"""What the start makes of sensitivities and savings."""

from __future__ import annotations

import torch
from torch import nn

import snnprune
from snnprune.encoding import Evidence, Scorer
from snnprune.gates import measure_sensitivity
from snnprune.learner import TaskLoss

HARD = TaskLoss(None, distill=0.0, temperature=1.0).hard


def evidence(**savings: float) -> Evidence:
    generator = torch.Generator().manual_seed(0)
    return Evidence({n: torch.rand(8, generator=generator) + 0.1 for n in savings}, savings)


def test_evidence_does_not_depend_on_the_unit_of_the_loss():
    one = evidence(a=0.1, b=0.01)
    other = Evidence({n: 1e4 * v for n, v in one.sensitivity.items()}, {n: 0.5 * v for n, v in one.saving.items()})
    torch.testing.assert_close(one.levels(["a", "b"]), other.levels(["a", "b"]), atol=1e-5, rtol=0)
    for a, b in zip(one.within(["a", "b"]), other.within(["a", "b"]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_levels_rise_with_sensitivity_and_fall_with_the_saving():
    base = evidence(a=0.1, b=0.1).levels(["a", "b"])
    assert evidence(a=0.2, b=0.1).levels(["a", "b"])[0] < base[0]
    louder = evidence(a=0.1, b=0.1)
    louder.sensitivity["a"].mul_(10)
    assert louder.levels(["a", "b"])[0] > base[0]


def test_dead_neurons_are_last_but_do_not_hide_the_rest():
    given = evidence(a=0.1, b=0.1)
    given.sensitivity["a"][3] = 0.0
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
    found = measure_sensitivity(model, groups, [(x, y)], HARD)
    assert float(found["0"][5]) == 0.0
    known = Evidence(found, {"0": 0.1})
    with torch.no_grad():
        informed = Scorer(model, groups, scores="switcher", evidence=known)(model)["0"]
        plain = Scorer(model, groups, scores="switcher")(model)["0"]
    assert int(informed.argmin()) == 5
    assert int(plain.argmin()) != 5
