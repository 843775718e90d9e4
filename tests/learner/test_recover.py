"""A step of the recovery."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from snnprune.learner import PruneConfig
from snnprune.learner.loss import TaskLoss
from snnprune.learner.recovering import RecoverStage


@pytest.mark.parametrize(("steepness", "length"), [(100.0, 0.02), (1e-3, 1e-3 * math.sqrt(12 + 3))])
def test_a_step_is_as_long_as_the_gradient_but_no_longer_than_its_limit(steepness, length):
    """Plain SGD at rate 1 moves by the gradient: ones for three biases, and for weights that read ones."""
    config = PruneConfig.paper(lr=1.0, recovery={"clip": 0.02, "warmup": 0.0}, weight_decay=0.0)
    model = nn.Linear(4, 3)
    before = [p.detach().clone() for p in model.parameters()]
    loss = TaskLoss(None, distill=0.0, temperature=1.0, loss_fn=lambda m, batch: steepness * m(batch).sum())
    stage = RecoverStage(model, loss, config, total=10, val=None, extra={}, sparse=())
    value, norm = stage.train_step(torch.ones(1, 4)).tolist()
    assert value == pytest.approx(steepness * float(sum(p.sum() for p in before)), rel=1e-5)
    assert norm == pytest.approx(steepness * math.sqrt(12 + 3), rel=1e-5)
    moved = sum(float((a - b.detach()).square().sum()) for a, b in zip(before, model.parameters(), strict=True))
    assert math.sqrt(moved) == pytest.approx(length, rel=1e-3)
