"""The learning rate's curve, and batch norm that is frozen."""

from __future__ import annotations

import pytest

import snnprune
from learner.conftest import loaders
from snnprune.learner import PruneConfig
from snnprune.learner.optim import cosine


def test_cosine_rises_and_falls():
    curve = [cosine(s, 100, 0.05) for s in range(100)]
    assert curve[0] == pytest.approx(0.2)
    assert max(curve) == 1.0
    assert curve[5:] == sorted(curve[5:], reverse=True)
    assert curve[-1] < 1e-3


def test_frozen_batch_norm_keeps_its_statistics(trained):
    train, val = loaders()
    config = PruneConfig(target={"params": 0.5}, epochs=2, freeze_norm=True)
    result = snnprune.optimize(trained, train, val, config)
    ours = result.model.norm.running_mean
    theirs = trained.norm.running_mean
    assert all(bool((theirs == v).any()) for v in ours)
