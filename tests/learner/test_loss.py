"""The loss: of the labels, of the teacher, or of the user's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import snnprune
from learner.conftest import loaders, problem
from snnprune.learner import PruneConfig, SearchOptions, TaskLoss


def test_distillation_alone_needs_no_labels(trained):
    x, _ = problem()
    data = [x[i : i + 16] for i in range(0, 96, 16)]
    result = snnprune.optimize(trained, data, data, PruneConfig(target={"params": 0.6}, epochs=6), loss_fn=None)
    assert result.report.compact.params < 0.6 * result.report.dense.params + 1
    agree = (result.model(x).argmax(1) == trained(x).argmax(1)).float().mean()
    assert float(agree) > 0.9


@pytest.mark.parametrize("granularity", ["neuron", "connection"])
def test_a_loss_of_the_users_own_may_call_parts_of_the_model(trained, granularity):
    def by_parts(model, batch):
        x = F.max_pool2d(F.relu(model.norm(model.conv(batch[0]))), 2)
        return F.cross_entropy(model.head(model.drop(F.relu(model.hidden(x.flatten(1))))), batch[1])

    def as_a_whole(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    results = []
    for loss_fn in (as_a_whole, by_parts):
        torch.manual_seed(0)
        train, val = loaders()
        config = PruneConfig(
            target={"params": 0.5}, granularity=granularity, epochs=3, search=SearchOptions(share=0.5)
        )
        results.append(snnprune.optimize(trained, train, val, config, loss_fn=loss_fn))
    whole, parts = (result.model.state_dict() for result in results)
    assert results[0].report.steps == results[1].report.steps
    for name in whole:  # the gates scale inputs here and weights there, so that the last bits may differ
        assert whole[name].shape == parts[name].shape
        assert torch.allclose(whole[name], parts[name], atol=1e-4), name


@pytest.mark.parametrize("granularity", ["neuron", "connection"])
def test_checkpointed_parts_learn_the_same(trained, granularity):
    def plain(model, batch):
        x = F.max_pool2d(F.relu(model.norm(model.conv(batch[0]))), 2)
        return F.cross_entropy(model.head(F.relu(model.hidden(x.flatten(1)))), batch[1])

    def checkpointed(model, batch):
        x = F.max_pool2d(F.relu(model.norm(model.conv(batch[0]))), 2)
        x = checkpoint(lambda x: F.relu(model.hidden(x.flatten(1))), x, use_reentrant=False)
        return F.cross_entropy(model.head(x), batch[1])

    results = []
    for loss_fn in (plain, checkpointed):
        torch.manual_seed(0)
        train, val = loaders()
        config = PruneConfig(
            target={"params": 0.5}, granularity=granularity, epochs=3, search=SearchOptions(share=0.5)
        )
        results.append(snnprune.optimize(trained, train, val, config, loss_fn=loss_fn))
    first, second = (result.model.state_dict() for result in results)
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_batches_of_three_parts_need_a_loss_and_an_example():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.head = nn.Linear(6, 32), nn.Linear(6, 32), nn.Linear(64, 3)

        def forward(self, left, right):
            return self.head(torch.cat([F.relu(self.left(left)), F.relu(self.right(right))], 1))

    batches = [(torch.randn(8, 6), torch.randn(8, 6), torch.arange(8) % 3) for _ in range(6)]
    for granularity in ("neuron", "connection"):
        result = snnprune.optimize(
            Pair(),
            batches,
            None,
            PruneConfig(target={"params": 0.5}, epochs=2, granularity=granularity),
            example_inputs=batches[0][:2],
            loss_fn=lambda model, batch: F.cross_entropy(model(batch[0], batch[1]), batch[2]),
        )
        assert result.report.steps["probe"] > 0
        count = sum(int(p.count_nonzero()) for p in result.model.parameters())
        assert count <= 0.5 * sum(p.numel() for p in Pair().parameters()) + 70  # biases need not be kept at 0


def test_a_loss_of_the_users_own(trained):
    train, val = loaders()
    calls = []

    def loss_fn(model, batch):
        calls.append(torch.is_grad_enabled())
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)

    result = snnprune.optimize(trained, train, val, PruneConfig(target={"params": 0.5}, epochs=2), loss_fn=loss_fn)
    assert calls.count(True) == 12
    assert calls.count(False) == 1 + 3 + 1, "the dense model, three ends of epochs, and the compact model"
    report = result.report
    assert (report.metric.name, report.metric.higher_is_better) == ("loss", False)
    assert report.compact.accuracy is None
    for figures, model in ((report.dense, trained), (report.compact, result.model)):
        with torch.no_grad():
            model.eval()
            sums = [len(y) * float(F.cross_entropy(model(x), y, label_smoothing=0.1)) for x, y in val]
        assert figures.value == figures.loss == pytest.approx(sum(sums) / sum(len(y) for _, y in val), rel=1e-6)


def test_teacher_pulls_towards_the_original(trained):
    x, y = problem()
    student = copy.deepcopy(trained)
    loss = TaskLoss(trained, distill=1.0, temperature=2.0)
    assert float(loss(student, (x, y)).detach()) == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        student.head.weight.mul_(0.5)
    assert float(loss(student, (x, y)).detach()) > 1e-3


def test_half_precision_reaches_the_networks_and_nothing_else(trained):
    x, y = problem()
    seen = []
    copies = copy.deepcopy(trained), copy.deepcopy(trained)
    with torch.no_grad():
        copies[0].head.weight.mul_(0.05)
    for network in copies:
        network.head.register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    losses = {
        precision: TaskLoss(copies[1], distill=0.5, temperature=2.0, precision=precision)(copies[0], (x, y))
        for precision in ("float32", "bfloat16")
    }
    assert seen == [torch.float32] * 2 + [torch.bfloat16] * 2
    assert losses["bfloat16"].dtype == torch.float32
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"].item() == pytest.approx(losses["float32"].item(), rel=0.02)


def test_learning_in_half_precision_is_proved_and_measured_in_full(trained):
    train, val = loaders()
    config = PruneConfig(target={"params": 0.5}, epochs=6, precision="bfloat16")
    result = snnprune.optimize(trained, train, val, config)
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}
    assert max(result.report.exactness[k] for k in ("fold", "remove")) <= 1e-10
    assert result.report.compact.accuracy >= result.report.dense.accuracy - 0.05
    full = snnprune.optimize(trained, train, val, PruneConfig(target={"params": 0.5}, epochs=6))
    assert any(
        a.shape != b.shape or not torch.equal(a, b)
        for a, b in zip(result.model.parameters(), full.model.parameters(), strict=True)
    )


def output(logits: torch.Tensor, extra: torch.Tensor | None = None):
    """A model whose output does not depend on its input, with or without an auxiliary classifier."""
    return lambda _images: logits if extra is None else {"logits": logits, "extra": extra}


class Fixed(nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, _images):
        return self.logits


def draws(*shape: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(student, teacher, probabilities, distill, t) -> torch.Tensor:
    """The loss as the literature writes it, sum by sum."""
    total = torch.tensor(0.0, dtype=torch.float64)
    for s, u, y in zip(student, teacher, probabilities, strict=True):
        p, q = (u / t).exp() / (u / t).exp().sum(), (s / t).exp() / (s / t).exp().sum()
        divergence = (p * (p / q).log()).sum()  # of the teacher from the student, not the other way round
        entropy = -(y * (s.exp() / s.exp().sum()).log()).sum()
        total = total + (1 - distill) * entropy + distill * t**2 * divergence
    return total / len(student)


@pytest.mark.parametrize("t", [1.0, 4.0])
@pytest.mark.parametrize("distill", [0.3, 1.0])
@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_is_the_formula(distill, t, soft):
    student, teacher = draws(5, 4, seed=1).requires_grad_(), draws(5, 4, seed=2)
    labels = torch.tensor([0, 3, 1, 1, 2])
    rows = draws(5, 4, seed=4).softmax(1) if soft else F.one_hot(labels, 4).double()
    loss = TaskLoss(Fixed(teacher), distill=distill, temperature=t)
    images = torch.zeros(5, 1)
    found = loss(output(student), (images, rows if soft else labels))
    expected = by_hand(student, teacher, rows, distill, t)
    assert torch.allclose(found, expected, rtol=1e-12, atol=0)
    if distill == 1.0:
        assert torch.allclose(loss(output(student), images), expected, rtol=1e-12, atol=0)  # without labels
        (gradient,) = torch.autograd.grad(found, student)
        pull = t * ((student / t).softmax(1) - (teacher / t).softmax(1)) / 5
        assert torch.allclose(gradient, pull, rtol=1e-9, atol=1e-12)


def test_auxiliary_outputs_count_three_tenths_each():
    student, extra, teacher = (draws(5, 4, seed=seed) for seed in (1, 2, 3))
    labels = torch.tensor([0, 3, 1, 1, 2])
    batch = torch.zeros(5, 1), labels
    loss = TaskLoss(Fixed(teacher), distill=0.5, temperature=2.0)
    expected = loss(output(student), batch) + 0.3 * loss(output(extra), batch)
    assert torch.allclose(loss(output(student, extra), batch), expected, rtol=1e-12, atol=0)
    soft = draws(5, 4, seed=4).softmax(1)
    for target, plain in ((labels, labels), (labels[:, None].int(), labels), (soft, soft)):
        hard = F.cross_entropy(student, plain) + 0.3 * F.cross_entropy(extra, plain)
        for found in (
            loss.hard(output(student, extra), (batch[0], target)),
            TaskLoss(None, distill=0.0, temperature=1.0)(output(student, extra), (batch[0], target)),
        ):
            assert torch.allclose(found, hard, rtol=1e-12, atol=0)
