"""The loss: of the labels, of the teacher, or of the user's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

import snnprune
from learner.conftest import loaders, problem
from snnprune.learner import PruneConfig, TaskLoss


def test_distillation_alone_needs_no_labels(trained):
    x, _ = problem()
    data = [x[i : i + 16] for i in range(0, 96, 16)]
    result = snnprune.optimize(trained, data, data, PruneConfig(target={"params": 0.6}, epochs=6), loss_fn=None)
    assert result.report.compact.params < 0.6 * result.report.dense.params + 1
    agree = (result.model(x).argmax(1) == trained(x).argmax(1)).float().mean()
    assert float(agree) > 0.9


def test_a_loss_of_the_users_own(trained):
    train, val = loaders()
    calls = []

    def loss_fn(model, batch):
        calls.append(len(batch))
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)

    result = snnprune.optimize(trained, train, val, PruneConfig(target={"params": 0.5}, epochs=2), loss_fn=loss_fn)
    assert len(calls) == 12
    assert result.report.compact.accuracy is None


def test_teacher_pulls_towards_the_original(trained):
    x, y = problem()
    student = copy.deepcopy(trained)
    loss = TaskLoss(trained, distill=1.0, temperature=2.0)
    assert float(loss(student, (x, y)).detach()) == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        student.head.weight.mul_(0.5)
    assert float(loss(student, (x, y)).detach()) > 1e-3
