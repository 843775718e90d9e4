"""The plan of a run: it says what the run then does, and leaves no trace."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_network, same_state
from torch import nn

import snnprune
from snnprune.analysis import plan
from snnprune.errors import TargetError
from snnprune.learner import PruneConfig
from snnprune.learner.recovering import RecoverStage


@pytest.fixture(scope="module")
def data():
    return snnprune.load_data("digits", batch_size=64)


@pytest.fixture
def model():
    return make_network("digits_cnn")[1].float()


def test_a_plan_has_the_steps_of_the_run_and_a_cut_that_meets_the_target(model, data):
    train, val, _ = data
    config = PruneConfig(target={"params": 0.3}, epochs=2)
    before, random = copy.deepcopy(model), torch.get_rng_state()
    found = plan(model, train, val, config)
    assert same_state(model, before)
    assert torch.equal(random, torch.get_rng_state())
    result = snnprune.optimize(model, train, val, config)
    assert found.steps == result.report.steps
    assert found.trials == 1
    assert 0.29 <= found.start["params"] <= 0.3
    assert {g["id"]: g["size"] for g in result.report.groups} == {n: s for n, (s, _) in found.widths.items()}
    assert set(found.least) == {"macs", "params"}
    with pytest.raises(TargetError):
        plan(model, train, val, PruneConfig(target={"params": 0.9 * found.least["params"]}))
    assert found.seconds["in all"] == pytest.approx(sum(v for k, v in found.seconds.items() if k != "in all"))
    each = found.step_seconds
    assert found.seconds["recover"] == pytest.approx(each["recover"] * found.steps["recover"])
    assert found.seconds["search"] == pytest.approx(each["search"] * found.steps["search"])


def test_memory_grows_with_the_batch_and_holds_weights_teacher_and_momentum(model, data):
    _, val, _ = data
    found = [
        plan(model, snnprune.load_data("digits", batch_size=n)[0], val, PruneConfig(epochs=1)).memory
        for n in (32, 128)
    ]
    weights = sum(p.nbytes for p in model.parameters())
    assert found[0] > 4 * weights  # the network, its teacher, gradients and momentum
    features = 4 * (24 * 64 + 48 * 64)  # of one image, in the two convolutions
    assert found[1] - found[0] > 96 * features
    assert found[1] < 40 * 2**20


def test_plans_of_trials_and_of_connections(model, data):
    train, val, _ = data
    drop = plan(model, train, val, PruneConfig(target={"drop": 0.01}, epochs=1, trials=3))
    assert (drop.trials, drop.at, len(drop.notes)) == (3, {"macs": 0.5}, 3)
    assert drop.seconds["recover"] == pytest.approx(3 * drop.step_seconds["recover"] * drop.steps["recover"])
    quick = plan(model, train, None, PruneConfig(target={"latency": 0.7}, epochs=1))
    assert quick.at == {"macs": 0.7}
    assert quick.seconds["validation"] == 0
    sparse = plan(model, train, val, PruneConfig(target={"params": 0.3}, granularity="connection", epochs=1))
    assert set(sparse.least) == {"params"}
    assert set(sparse.widths) == {"hidden.0.weight", "classifier.weight"}
    free = plan(model, train, val, PruneConfig(target=None, epochs=1))
    assert free.at is None


def test_memory_format_and_compiler(model, data, monkeypatch):
    train, val, _ = data
    formats = []
    step = RecoverStage.train_step

    def watched(self, batch):
        weights = [m.weight for m in self.model.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[1] > 1]
        formats.append(all(w.is_contiguous(memory_format=torch.channels_last) for w in weights))
        return step(self, batch)

    monkeypatch.setattr(RecoverStage, "train_step", watched)
    monkeypatch.setattr(torch, "compile", lambda _model: pytest.fail("a look at a run compiles nothing"))
    found = plan(model, train, val, PruneConfig(epochs=1, channels_last=True, compile=True))
    assert formats
    assert all(formats)
    assert any("--compile" in note for note in found.notes)
