"""Sensitivity of the loss to each neuron's scale, and what the start makes of it."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import pytest
import torch
from conftest import randomized, same_state
from torch import nn
from torch.nn import functional as F
from torchvision.models import SwinTransformer

import snnprune
from snnprune.batches import inputs_in
from snnprune.budget import CostModel
from snnprune.errors import ConfigError, DivergedError
from snnprune.learner import TaskLoss
from snnprune.switching import Options, measure_importance, switch_neurons
from snnprune.switching.encoding import Evidence

HARD = TaskLoss(None, distill=0.0, temperature=1.0).hard


class Net(nn.Module):
    """Residual add, depthwise convolution, flattened maps, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 6, 1))
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.hidden, self.drop, self.head = nn.Linear(6 * 16, 7), nn.Dropout(0.5), nn.Linear(7, 4)

    def forward(self, x):
        x = self.stem(x)
        x = F.max_pool2d(torch.relu(self.deep(x + self.inner(x))), 2).flatten(1)
        return self.head(self.drop(torch.relu(self.hidden(x))))


def swin() -> nn.Module:
    return SwinTransformer([4, 4], 12, [1, 1], [2, 2], [4, 4], num_classes=4)


NETS = {"net": (Net, 8), "swin": (swin, 32)}


def batch(side: int, count: int = 5):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, side, side, dtype=torch.float64, generator=generator)
    return x, torch.randint(4, (count,), generator=generator)


@pytest.mark.parametrize("name", sorted(NETS))
def test_it_is_the_mean_square_of_each_inputs_gradient(name):
    """Against central differences of the gated model's loss, input by input."""
    make, side = NETS[name]
    model, (x, y) = randomized(make), batch(side)
    groups = snnprune.trace(model, x)
    found = measure_importance(model, groups, [(x, y)], HARD)
    step = 1e-5
    with switch_neurons(model, groups, x, Options(scores=None)) as gated:
        for group in (g for g in groups if g.prunable):
            for neuron in (0, group.size - 1):
                losses = []
                for sign in (-1, 1):
                    scale = torch.ones(group.size, dtype=torch.float64)
                    scale[neuron] += sign * step
                    gated.set_scales({group.id: scale})
                    with torch.no_grad():
                        losses.append(F.cross_entropy(gated(x), y, reduction="none"))
                expected = ((losses[1] - losses[0]) / (2 * step)).square().mean()
                assert float(found[group.id][neuron]) == pytest.approx(float(expected), rel=1e-4, abs=1e-12), (
                    group.id
                )


def test_it_does_not_depend_on_how_inputs_are_batched():
    model, (x, y) = randomized(Net), batch(8, 6)
    groups = snnprune.trace(model, x)
    whole = measure_importance(model, groups, [(x, y)], HARD)
    parts = measure_importance(model, groups, [(x[:2], y[:2]), (x[2:], y[2:])], HARD)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name])


def test_batches_of_any_form_will_do():
    """Where the inputs cannot be told apart, the gradient of the whole batch is squared."""
    model, (x, y) = randomized(Net), batch(8)
    groups = snnprune.trace(model, x)

    class Sample:
        images, labels = x, y

    def loss(network, sample):
        return F.cross_entropy(network(sample.images), sample.labels)

    found = measure_importance(model, groups, [Sample()], loss)
    leaves = {g.id: torch.ones(g.size, dtype=torch.float64, requires_grad=True) for g in groups if g.prunable}
    with switch_neurons(model, groups, x, Options(scores=None)) as gated:
        gated.set_scales(leaves)
        gated._current.differentiable = lambda: gated.segments.join(leaves)  # type: ignore[method-assign]
        (expected,) = torch.autograd.grad(loss(gated.model, Sample()), [leaves["hidden"]])
    torch.testing.assert_close(found["hidden"], expected.square().float())
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(measure_importance(compiled._orig_mod, groups, [Sample()], loss)["hidden"], found["hidden"])


def test_nothing_in_the_model_changes():
    model, (x, y) = randomized(Net), batch(8)
    model.hidden.eval(), model.stem.train()
    before, modes = copy.deepcopy(model), [m.training for m in model.modules()]
    measure_importance(model, snnprune.trace(model, x), [(x, y)], HARD)
    assert same_state(before, model)
    assert modes == [m.training for m in model.modules()]
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_without_labels_they_are_drawn_from_the_outputs():
    model, (x, _) = randomized(Net), batch(8)
    groups = snnprune.trace(model, x)
    torch.manual_seed(0)
    first = measure_importance(model, groups, [x], HARD)
    assert all(float(v.sum()) > 0 for v in first.values())
    torch.manual_seed(0)
    again = measure_importance(model, groups, [x], HARD)
    assert all(torch.equal(first[n], again[n]) for n in first)


def test_a_loss_that_is_not_finite_is_an_error():
    model, (x, y) = randomized(Net), batch(8)
    with pytest.raises(DivergedError, match="loss became nan"):
        measure_importance(model, snnprune.trace(model, x), [(x * math.nan, y)], HARD)


def test_attach_takes_batches_for_the_start():
    model, (x, y) = randomized(Net), batch(8)
    with pytest.raises(ConfigError, match="loss"):
        snnprune.attach(model, x, batches=[(x, y)])
    with snnprune.attach(model, x, batches=[(x, y)], loss=HARD, metric="params") as gated:
        assert float(gated.scorer.shifts.abs().sum()) > 0
        gated.set_budget({"params": 0.6})
        informed = gated.scales
    with snnprune.attach(model, x) as gated:
        assert float(gated.scorer.shifts.abs().sum()) == 0
        gated.set_budget({"params": 0.6})
        assert any(not torch.equal(gated.scales[n] > 0, s > 0) for n, s in informed.items())


def test_a_group_that_no_gradient_reaches_counts_as_average(caplog):
    """As under reentrant checkpointing: a sensitivity of 0 would say that nobody needs its neurons."""

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            with torch.no_grad():
                x = torch.relu(self.b(torch.relu(self.a(x))))
            return self.d(torch.relu(self.c(x)))

    x, y = torch.randn(8, 6, dtype=torch.float64), torch.randint(4, (8,))
    model = randomized(Cut)
    groups = snnprune.trace(model, x, input_neurons=False)
    with caplog.at_level("WARNING"):
        found = measure_importance(model, groups, [(x, y)], HARD)
    assert set(found) == {"b", "c"}  # the gate of b sits at the input of c, outside the cut
    assert "such as a" in caplog.text
    known = Evidence.weigh(found, CostModel(model, groups, x), "params", thrift=0.0)
    shifts = known.shifts(["a", "b", "c"])
    assert float(shifts[0]) == pytest.approx(float(shifts.mean()), abs=1e-3)
    assert not bool(known.within(["a", "b", "c"])[0].any())


@pytest.mark.parametrize(
    ("made", "count"),
    [
        ([torch.zeros(5, 3, 8, 8), torch.zeros(5)], 5),
        ([torch.zeros(3, 8, 8)] * 4, 4),
        ([(torch.zeros(3, 8, 8), {"boxes": torch.zeros(2, 4)})] * 4, 4),
        ([{"image": torch.zeros(3, 8, 8)}] * 4, 4),
        (([torch.zeros(3, 8, 8)] * 2, [{}] * 2), 2),
        ({"x": torch.zeros(6, 3)}, 6),
        (object(), 1),
    ],
)
def test_inputs_of_a_batch_are_counted(made, count):
    assert inputs_in(made) == count


def test_the_users_model_and_batches_are_as_they_were():
    """Also buffers of norms that are not PyTorch's; a named tuple stays one."""

    class Tracking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(6, dtype=torch.float64))

        def forward(self, x):
            if self.training:
                self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
                self.register_buffer("last", x.detach().mean(0))
            return x - self.mean

    class Batch(NamedTuple):
        images: torch.Tensor
        labels: torch.Tensor

    model = nn.Sequential(nn.Linear(6, 6), Tracking(), nn.ReLU(), nn.Linear(6, 4)).double()
    before = copy.deepcopy(model)
    sample = Batch(torch.randn(8, 6, dtype=torch.float64), torch.randint(4, (8,)))

    def loss(network, given):
        return F.cross_entropy(network(given.images), given.labels)

    groups = snnprune.trace(model, sample.images)
    buffer = model[1].mean
    measure_importance(model, groups, [sample], loss)
    assert same_state(before, model)
    assert model[1].mean is buffer
    assert not hasattr(model[1], "last")
    assert measure_importance(model, groups, [sample], lambda m, b: loss(m, b).detach()) == {}

    def apart(network, given):
        return F.cross_entropy(network(given.images), given.labels, reduction="none")

    with pytest.raises(ConfigError, match="shape"):
        snnprune.attach(model, sample.images, batches=[sample], loss=apart)


@pytest.mark.parametrize(
    "options",
    [{"loss": HARD}, {"metric": "flops"}, {"start": "fresh", "batches": [], "loss": HARD},
     {"switcher": None, "batches": [], "loss": HARD}],
)  # fmt: skip
def test_attach_refuses_what_would_have_no_effect(options):
    with pytest.raises(ConfigError):
        snnprune.attach(randomized(Net), batch(8)[0], **options)


@pytest.mark.parametrize(("epochs", "probe"), [(3, 0), (8, 1), (40, 1)])
def test_the_look_leaves_the_recovery_its_steps(epochs, probe):
    """One batch an epoch: no batch is looked at twice, and at most a quarter of the rest is spent."""
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    config = snnprune.PruneConfig(target={"params": 0.7}, epochs=epochs)
    steps = snnprune.optimize(model, [(x, y)], [(x, y)], config).report.steps
    assert steps["probe"] == probe
    assert sum(steps.values()) == epochs
    assert steps["recover"] > 0


@pytest.mark.parametrize("change", [{"probe": 0}, {"trust": 3.0}, {"thrift": 3.0}])
def test_optimize_starts_from_what_it_saw(change):
    """Nothing is learned in one step of search, so what is kept is the start's order."""
    model = randomized(Net).float()
    loader = [tuple(t.float() if t.is_floating_point() else t for t in batch(8, 16))] * 8
    kept = []
    for options in ({}, change):
        config = snnprune.PruneConfig(
            target={"params": 0.4}, epochs=2, search=snnprune.SearchOptions(share=1e-9, **options)
        )
        kept.append(snnprune.optimize(model, loader, loader[:1], config).report.groups)
    assert kept[0] != kept[1]
