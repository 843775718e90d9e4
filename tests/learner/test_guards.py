"""What learning refuses: options, targets, labels, and numbers that are none."""

from __future__ import annotations

import copy

import pytest
import torch

import snnprune
from learner.conftest import loaders, problem
from snnprune.errors import ConfigError, DataError, DivergedError, ModelFileError, TargetError
from snnprune.learner import PruneConfig


def test_nan_in_the_loss_ends_the_run(trained):
    train, val = loaders()
    bad = [(x.clone().fill_(float("nan")) if i == 3 else x, y) for i, (x, y) in enumerate(train)]
    with pytest.raises(DivergedError, match="loss became nan"):
        snnprune.optimize(trained, bad, val, PruneConfig(target={"params": 0.5}, epochs=2))


def test_nan_in_the_weights_is_refused(trained):
    model = copy.deepcopy(trained)
    with torch.no_grad():
        model.conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ModelFileError, match=r"conv\.weight"):
        snnprune.optimize(model, loaders()[0])


def test_a_target_below_the_floors_fails_before_training(trained):
    seen = []
    with pytest.raises(TargetError, match="floor"):
        snnprune.optimize(
            trained, loaders()[0], None, PruneConfig(target={"params": 0.001}), callbacks=[seen.append]
        )
    assert {e.stage for e in seen} <= {"trace"}


def test_labels_out_of_range_are_refused(trained):
    x, y = problem()
    with pytest.raises(DataError, match="labels up to 12"):
        snnprune.optimize(trained, [(x[:8], y[:8] + 10 * (y[:8] == 2))] * 2, None, PruneConfig(epochs=1))


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"epochs": float("nan")},
        {"lr": -1.0},
        {"search": {"share": 0.0}},
        {"search": {"share": 1.5}},
        {"search": {"alternate": 0}},
        {"search": {"alternate": "batch"}},
        {"search": {"hold": 0}},
        {"search": {"hold": 4, "alternate": 1}},
        {"search": {"scores": "magic"}},
        {"search": {"gradient": "none"}},
        {"floor": -0.1},
        {"round_to": 0},
        {"target": {"macs": 2}},
        {"optimizer": "lion"},
    ],
)
def test_bad_options_name_themselves(options):
    with pytest.raises(ConfigError, match=next(iter(options)).split("_")[0]):
        PruneConfig(**options)
