"""A gated model under a budget of time, and what is checked of it afterwards."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import snnprune
from budget.timed import stairs
from snnprune.budget import Budget, CostModel
from snnprune.errors import ExactnessError, TargetError
from snnprune.pipeline.delivered import check_delivered, check_predicted
from snnprune.proof import trace
from snnprune.switching import Options, switch_neurons
from snnprune.switching.encoding import Evidence


@pytest.fixture
def made():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 3))
    x = torch.randn(4, 12)
    groups = trace(net, x, input_neurons=False)
    cost = CostModel(net, groups, x)
    return net, x, groups, cost


def test_the_threshold_meets_a_time_and_moves_with_it(made):
    net, x, groups, cost = made
    cost.add_times(stairs(cost, 16, base=100.0))
    options = Options(budget=Budget("latency", 0.6), round_to=8)
    with switch_neurons(net, groups, cost, options) as gated:
        for progress in (0.25, 0.5, 1.0):
            gated.set_budget({"latency": 0.6}, progress=progress)
            allowed = 1 - 0.4 * progress
            spent, dense = gated.predicted()["latency"]
            assert dense == cost.dense["latency"]
            assert spent <= allowed * dense * (1 + 1e-9)
        assert gated.predicted().keys() == {"macs", "params", "latency"}
        small = gated.compact()
        assert {small[0].out_features % 16, small[2].out_features % 16} == {0}
        assert small[2].out_features < 96
        torch.testing.assert_close(small(x), gated(x))
        state = copy.deepcopy(gated.state_dict())
        assert state["budget"] == {"metric": "latency", "share": 0.6}
        gated.set_budget({"macs": 0.9})
        gated.load_state_dict(state)
        assert gated.budget == Budget("latency", 0.6)
        predicted = gated.predicted()
    check_predicted(predicted, net, small, x)
    check_predicted({**predicted, "latency": (1.0, dense)}, net, small, x)  # only a clock can tell
    with pytest.raises(ExactnessError, match="params, where 1 were predicted"):
        check_predicted({**predicted, "params": (1.0, predicted["params"][1])}, net, small, x)
    check_delivered({"latency": 0.1}, net, net, x)


def test_a_budget_of_time_needs_times(made):
    net, x, groups, cost = made
    with pytest.raises(TargetError, match="the latency of this model is not known"):
        switch_neurons(net, groups, cost, Options(budget=Budget("latency", 0.5)))
    with snnprune.attach(net, x) as gated:
        with pytest.raises(TargetError, match="the latency of this model is not known"):
            gated.set_budget({"latency": 0.5})
        assert gated.budget is None
        assert gated.predicted().keys() == {"macs", "params"}
    with pytest.raises(snnprune.errors.ConfigError, match="use one of macs, params"):
        snnprune.attach(net, x, metric="latency")


def test_thrift_goes_by_the_time_that_goes_with_a_neuron(made):
    """The first group holds most of the MACs' saving for a neuron, the second one most of the time's."""
    _, _, _, cost = made
    parts = stairs(cost, 1)
    for own in parts:  # the last layer, which reads the second group alone, takes most of the time
        object.__setattr__(own, "table", own.table * (50.0 if own.name == "4" else 1.0))
    cost.add_times(parts)
    first, second = cost.groups
    importance = {name: torch.ones(g.size) for name, g in cost.groups.items()}
    by = {m: Evidence.weigh(importance, cost, m) for m in ("macs", "latency")}
    assert by["macs"].saving[first] > by["macs"].saving[second]
    assert by["latency"].saving[first] < by["latency"].saving[second]
    for name, group in cost.groups.items():
        half = {name: np.arange(group.size) < group.size // 2}
        want = (1 - cost.share("latency", half)) / (group.size // 2)
        assert by["latency"].saving[name] == pytest.approx(want, rel=1e-6)
    assert by["latency"].shifts([first, second])[0] > by["latency"].shifts([first, second])[1]
