"""What a run's options make of its gates."""

from __future__ import annotations

import pytest
import torch
from conftest import make_network

from snnprune import PruneConfig, trace
from snnprune.learner import TaskLoss
from snnprune.pipeline.attaching import gate_neurons


def gates(**options):
    _, model, x = make_network("mlp")
    config = PruneConfig.paper(**options)
    loss = TaskLoss(None, distill=0.0, temperature=1.0)
    return gate_neurons(model, trace(model, x), x, config, loss, None)


@pytest.mark.parametrize(("mean", "std"), [(-0.5, 1.0), (0.1, 2**0.5), (1.0, 0.3)])
def test_a_fresh_start_has_the_mean_and_the_spread_that_were_asked_for(mean, std):
    with gates(fresh_mean=mean, fresh_std=std) as gated, torch.no_grad():
        for values in gated.scorer(gated.model).values():
            assert float(values.mean()) == pytest.approx(mean, abs=1e-3)
            assert float(values.std(correction=0)) == pytest.approx(std, rel=1e-3)


def test_seed_scores_floor_and_rounding_reach_the_gates():
    with gates(seed=1) as one, gates(seed=2) as other, torch.no_grad():
        assert not torch.equal(one.scorer(one.model)["features.0"], other.scorer(other.model)["features.0"])
        assert not one.scorer.learns_offsets
    with gates(scores="switcher+offset", floor=0.3, round_to=4) as gated:
        assert gated.scorer.learns_offsets
        assert (gated.floor, gated.round_to) == (0.3, 4)
