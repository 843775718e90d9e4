"""The whole way through optimize(): the budget, the seeds, and its own check."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_network

import snnprune
from learner.conftest import Net, loaders
from snnprune.learner import PruneConfig, SearchOptions


@pytest.mark.parametrize("scores", ["switcher", "switcher+offset", "free"])
@pytest.mark.parametrize("metric", ["macs", "params"])
def test_optimize_meets_the_budget_and_keeps_accuracy(trained, scores, metric):
    train, val = loaders()
    state = copy.deepcopy(trained.state_dict())
    config = PruneConfig(target={metric: 0.4}, epochs=10, search=SearchOptions(scores=scores))
    result = snnprune.optimize(trained, train, val, config, test=val)
    report = result.report
    kept = getattr(report.compact, metric) / getattr(report.dense, metric)
    assert kept <= 0.4
    assert kept > 0.36  # the smallest neuron is a few per cent of this toy
    assert report.compact.accuracy >= report.dense.accuracy - 0.05
    assert report.exactness["fold"] <= 1e-10
    assert report.exactness["remove"] <= 1e-10
    assert [g["id"] for g in report.groups] == ["conv", "hidden:in", "hidden"]
    assert all(torch.equal(state[k], v) for k, v in trained.state_dict().items()), "the caller's model is copied"
    assert isinstance(result.model, Net)
    assert not result.model.training


def test_seeds_reproduce_and_differ(trained):
    train, val = loaders()

    def run(seed):
        config = PruneConfig(target={"params": 0.5}, epochs=2, seed=seed)
        return snnprune.optimize(trained, train, val, config).model.state_dict()

    torch.manual_seed(1)
    one = run(0)
    torch.manual_seed(2)
    again, other = run(0), run(1)
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert any(one[k].shape != other[k].shape or not torch.equal(one[k], other[k]) for k in one)


def test_the_callers_random_state_is_left_alone(trained):
    train, val = loaders()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    snnprune.optimize(trained, train, val, PruneConfig(target={"params": 0.5}, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_gated_proof_notices_a_wrong_compaction(monkeypatch):
    """The run's own check can fail: break the folding and see."""
    from snnprune.errors import ExactnessError
    from snnprune.switching import proving as proof

    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.5})
        assert proof.prove_neurons(gated, x)["remove"] <= 1e-10
        monkeypatch.setattr(proof, "fold_", lambda m, groups, scales: m)
        with pytest.raises(ExactnessError, match="fold"):
            proof.prove_neurons(gated, x)
