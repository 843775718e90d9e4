"""The task's loss and who learns, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from snnprune.learner import TaskLoss
from snnprune.switching.learners import Learners

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 3.0]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 1.0, 0.0], [-2.0, 0.0, 2.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])
BATCH = (torch.zeros(2, 1), LABELS)


class Says(nn.Module):
    """Returns what it was given to say."""

    def __init__(self, output) -> None:
        super().__init__()
        self.output, self.scale = output, nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, _x):
        return self.output * self.scale if isinstance(self.output, torch.Tensor) else self.output


def soft(row, t=1.0):
    powers = [math.exp(v / t) for v in row]
    return [p / sum(powers) for p in powers]


def hard(logits, labels=LABELS):
    rows = zip(logits.tolist(), labels.tolist(), strict=True)
    return sum(-math.log(soft(row)[label]) for row, label in rows) / len(labels)


def divergence(teacher, student, t):
    """KL(teacher || student) at temperature t, the mean over inputs."""
    total = 0.0
    for p, q in zip(teacher.tolist(), student.tolist(), strict=True):
        total += sum(a * math.log(a / b) for a, b in zip(soft(p, t), soft(q, t), strict=True))
    return total / len(teacher)


def loss(output, batch=BATCH, *, distill=0.0, temperature=1.0, teacher=TEACHER):
    task = TaskLoss(Says(teacher), distill=distill, temperature=temperature)
    return task(Says(output), batch)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("distill", [0.25, 1.0])
def test_the_teacher_counts_by_its_weight_times_the_squared_temperature(distill, temperature):
    far = temperature**2 * divergence(TEACHER, LOGITS, temperature)
    expected = (1 - distill) * hard(LOGITS) + distill * far
    assert float(loss(LOGITS, distill=distill, temperature=temperature).detach()) == pytest.approx(
        expected, rel=1e-12
    )


def test_without_labels_the_teacher_counts_alone_and_without_a_teacher_the_labels():
    far = 9 * divergence(TEACHER, LOGITS, 3.0)
    assert float(loss(LOGITS, torch.zeros(2, 1), distill=0.25, temperature=3.0).detach()) == pytest.approx(far)
    assert float(loss(LOGITS).detach()) == pytest.approx(hard(LOGITS))


@pytest.mark.parametrize("distill", [0.0, 0.5])
def test_auxiliary_classifiers_count_three_tenths_each(distill):
    extra = LOGITS.flip(1)
    main = float(loss(LOGITS, distill=distill, temperature=2.0).detach())
    aside = float(loss(extra, distill=distill, temperature=2.0).detach())
    output = {"logits": LOGITS, "aux1": extra, "aux2": extra.clone()}
    assert float(loss(output, distill=distill, temperature=2.0)) == pytest.approx(main + 0.3 * 2 * aside)
    task = TaskLoss(Says(TEACHER), distill=distill, temperature=2.0)
    found = float(task.hard(Says(output), BATCH))
    assert found == pytest.approx(hard(LOGITS) + 0.3 * 2 * hard(extra)), "without the teacher"


def test_only_the_student_gets_a_gradient():
    teacher, student = Says(TEACHER), Says(LOGITS)
    TaskLoss(teacher, distill=0.5, temperature=2.0)(student, BATCH).backward()
    assert teacher.scale.grad is None
    assert float(student.scale.grad) != 0


def test_a_loss_of_the_users_own_replaces_all():
    task = TaskLoss(Says(TEACHER), distill=0.5, temperature=2.0, loss_fn=lambda model, batch: model(batch).sum())
    assert task.teacher is None
    for call in (task, task.hard):
        assert float(call(Says(LOGITS), torch.zeros(2, 1)).detach()) == pytest.approx(float(LOGITS.sum()))


def network():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    net[0].weight.requires_grad_(False)
    return net


@pytest.mark.parametrize(
    ("phase", "net", "scorer"),
    [
        ("switcher", [False] * 4, True),
        ("network", [False, True, True, True], False),
        ("both", [False, True, True, True], True),
    ],
)
def test_a_phase_freezes_the_other_side_and_never_wakes_what_the_caller_froze(phase, net, scorer):
    model, own = network(), nn.Parameter(torch.ones(1))
    learners = Learners(model)
    learners.set(phase, "through", [own])
    assert [p.requires_grad for p in model.parameters()] == net
    assert own.requires_grad == scorer
    assert [id(p) for p in learners.network()] == [id(p) for p in list(model.parameters())[1:]]
    learners.put_back()
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    clone = network().requires_grad_(False)
    clone[1].weight.grad = torch.ones(1, 3)
    assert learners.put_on(clone) is clone
    assert [p.requires_grad for p in clone.parameters()] == [False, True, True, True]
    assert clone[1].weight.grad is None


def test_held_is_a_phase_of_the_network_alone():
    learners = Learners(network())
    assert not learners.held
    assert not learners.changes("both", "through")
    assert learners.changes("network", "through")
    assert learners.changes("both", "held")
    for phase, gradient, held in (
        ("network", "held", True),
        ("network", "through", False),
        ("both", "held", False),
    ):
        learners.set(phase, gradient, [])
        assert learners.held == held
