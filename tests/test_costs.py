"""Costs and the threshold, by hand arithmetic on a network of three layers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from snnprune.budget import CostModel
from snnprune.budget.costs import Columns, LayerCost, layer_costs
from snnprune.errors import TargetError
from snnprune.graph.records import Member, NeuronGroup
from snnprune.layers import IndexedLinear
from snnprune.macs import price


def columns(width, *parts, index=None):
    found = tuple((name, np.asarray(channels), np.asarray(neurons)) for name, channels, neurons in parts)
    return Columns(width, found, None if index is None else np.asarray(index))


def member(module, role, neurons, channels=None, dim=0):
    channels = range(len(neurons)) if channels is None else channels
    return Member(module, role, tuple(channels), tuple(neurons), dim)


def test_a_column_stays_when_all_its_neurons_stay():
    both = columns(4, ("a", [0, 1, 2], [2, 1, 0]), ("b", [2, 3], [0, 1]))
    kept = {"a": np.array([True, False, True]), "b": np.array([False, True])}
    assert both.count(kept) == 2  # columns 0 and 3
    assert both.count({"b": kept["b"]}) == 3
    assert both.count({}) == 4
    chosen = columns(4, ("a", [0, 1, 2], [2, 1, 0]), index=[3, 1, 0])
    assert (chosen.count(kept), chosen.read) == (2, 3)
    first = {"a": 10, "b": 20}
    assert both.gates(first).tolist() == [[-1, 12], [-1, 11], [10, 20], [-1, 21]]
    assert chosen.gates(first).tolist() == [[-1], [11], [12]]


def test_a_neuron_that_gates_a_column_twice_gates_it_once():
    both = columns(2, ("a", [0, 1], [0, 1]), ("a", [0], [0]), ("b", [0], [0]))
    assert both.gates({"a": 0, "b": 5}).tolist() == [[-1, 0, 5], [-1, -1, 1]]


def test_the_cost_of_a_layer_is_a_product_of_counts():
    layer = LayerCost("a", columns(4), columns(5), macs=9.0, params=7.0, params_out=2.0)
    assert layer.cost("macs", 3, 4) == 9 * 3 * 4
    assert layer.cost("params", 3, 4) == 7 * 3 * 4 + 2 * 4


def priced(model, groups, x):
    return layer_costs(model, groups, x, price(model, x))


def coefficients(module, x, *groups):
    return {layer.name: layer for layer in priced(nn.Sequential(module), groups, x)}["0"]


@pytest.mark.parametrize(
    ("module", "x", "macs", "params", "bias"),
    [
        (nn.Conv2d(3, 4, (3, 2)), (2, 3, 5, 6), 6 * 3 * 5, 6, 1),
        (nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), (2, 3, 8, 8), 9 * 16, 9, 0),
        (nn.ConvTranspose2d(3, 4, 3, stride=2), (2, 3, 5, 6), 9 * 5 * 6, 9, 1),
        (nn.Linear(3, 4), (2, 7, 3), 7, 1, 1),
        (nn.Linear(3, 4, bias=False), (2, 3), 1, 1, 0),
    ],
)
def test_coefficients_are_per_pair_of_channels_for_one_input(module, x, macs, params, bias):
    found = coefficients(module, torch.randn(x))
    assert (found.macs, found.params, found.params_out) == (macs, params, bias)
    assert (found.inputs.width, found.outputs.width) == (3, 4)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_grouped_convolutions_cost_by_their_outputs_alone(kind):
    x = torch.randn(3, 8, 5, 5)
    found = coefficients(kind(8, 12, 3, groups=4), x)
    # every output has the 2 inputs of its group; a plain one pays per output place, a transposed one per input
    places = 9 if kind is nn.Conv2d else 25
    assert found.inputs is None
    assert found.macs * 12 == pytest.approx(9 * 2 * 12 * places if kind is nn.Conv2d else 9 * 3 * 8 * places)
    assert found.params_out == (2 * 9 + 1 if kind is nn.Conv2d else pytest.approx(8 * 3 * 9 / 12 + 1))


def test_norms_slices_products_and_idle_layers():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.bare = nn.BatchNorm1d(6), nn.BatchNorm1d(6, affine=False)
            self.idle = nn.Linear(2, 3)
            self.table = nn.Parameter(torch.zeros(5, 6))
            self.register_buffer("places", torch.zeros(6))

        def forward(self, x):
            return self.bare(self.norm(x))

    parts = (member("table", "parameter", range(6), dim=1), member("places", "parameter", range(6)))
    group = NeuronGroup("g", "channel", 6, (member("norm", "between", range(6)), *parts), macs=11.0)
    kept = NeuronGroup("k", "channel", 6, (member("bare", "between", range(6)),), reason="so", macs=7.0)
    found = {layer.name: layer for layer in priced(Net(), [group, kept], torch.randn(4, 6))}
    assert (found["norm"].params_out, found["bare"].params_out) == (2, 0)
    assert (found["table"].params_out, found["table"].outputs.width) == (5, 6)
    assert found["g products"].cost("macs", 1, 4) == 44
    assert found["g products"].cost("params", 1, 4) == 0
    assert "places" not in found
    assert "k products" not in found
    assert not found["bare"].outputs.parts, "of a group that is kept"
    assert (found["idle"].macs, found["idle"].params, found["idle"].params_out) == (0, 1, 1)


def test_an_index_decides_which_neurons_a_linear_layer_sees():
    layer = IndexedLinear(2, 3, source_features=5, index=torch.tensor([4, 1]))
    group = NeuronGroup("g", "channel", 5, (member("0", "consumer", [4, 3, 2, 1, 0]),))
    found = coefficients(layer, torch.randn(2, 5), group)
    assert found.inputs.gates({"g": 0}).tolist() == [[0], [3]]


def chain(widths=(4, 10, 20, 3)):
    """Linear layers without bias, and their hidden groups; MACs are params."""
    net = nn.Sequential(*[nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)])
    groups = [
        NeuronGroup(
            str(i), "channel", w, (member(str(i), "producer", range(w)), member(str(i + 1), "consumer", range(w)))
        )
        for i, w in enumerate(widths[1:-1])
    ]
    return net, groups, CostModel(net, groups, torch.randn(2, widths[0]))


def masks(**counts):
    sizes = {"0": 10, "1": 20}
    return {name.strip("_"): np.arange(sizes[name.strip("_")]) < n for name, n in counts.items()}


def test_cost_and_shares():
    _, _, cost = chain()
    dense = 4 * 10 + 10 * 20 + 20 * 3
    assert cost.dense == {"macs": dense, "params": dense}
    assert cost.cost("macs", {}) == dense
    assert cost.cost("params", masks(_0=3, _1=5)) == 4 * 3 + 3 * 5 + 5 * 3
    assert cost.share("macs", masks(_1=5)) == (4 * 10 + 10 * 5 + 5 * 3) / dense
    assert cost.prunable_share("macs") == 1
    # half of the ten neurons go: 5 x (4 + 20)
    assert cost.saving_per_neuron("macs", "0") == pytest.approx((4 + 20) / dense)
    assert cost.saving_per_neuron("macs", "1") == pytest.approx((10 + 3) / dense)


def test_what_no_group_touches_is_no_prunable_share():
    net = nn.Sequential(nn.Linear(4, 10), nn.Linear(10, 6), nn.Linear(6, 5))
    group = NeuronGroup(
        "0", "channel", 10, (member("0", "producer", range(10)), member("1", "consumer", range(10)))
    )
    cost = CostModel(net, [group], torch.randn(2, 4))
    assert cost.prunable_share("macs") == pytest.approx((40 + 60) / (40 + 60 + 30))
    assert cost.cost("params", {"0": np.arange(10) < 4}) == 4 * 4 + 4 + 4 * 6 + 6 + 35
    # with one neuron of ten: (4 + 6 + 30) / 130
    with pytest.raises(TargetError, match=r"0\.308 of the dense macs remain.* removed from 23% of them"):
        cost.select("macs", 0.2, {"0": np.arange(10.0)})


def test_a_single_neuron_of_a_group_has_its_whole_saving():
    net = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 4, bias=False))
    group = NeuronGroup("0", "channel", 1, (member("0", "producer", [0]), member("1", "consumer", [0])))
    assert CostModel(net, [group], torch.randn(2, 4)).saving_per_neuron("macs", "0") == 1.0


@pytest.mark.parametrize(
    ("floor", "kept"), [(0.1, (1, 2)), (0.11, (2, 3)), (0.3, (3, 6)), (0.0, (1, 1)), (1, (10, 20))]
)
def test_floors_are_rounded_up_and_every_group_keeps_one(floor, kept):
    _, _, cost = chain()
    scores = {"0": np.arange(10.0), "1": np.arange(20.0)}
    a, b = kept
    least = (4 * a + a * b + 3 * b) / 300
    assert cost.floor_share("macs", scores, floor=floor) == pytest.approx(least, abs=1e-12)
    if least < 1:
        with pytest.raises(TargetError, match=f"{least:.3f} of the dense macs remain"):
            cost.select("macs", least - 1e-4, scores, floor=floor)
    chosen = cost.select("macs", least, scores, floor=floor)
    assert {n: np.flatnonzero(m).tolist() for n, m in chosen.kept.items()} == {
        "0": list(range(10 - a, 10)),
        "1": list(range(20 - b, 20)),
    }
    assert chosen.cost == pytest.approx(least)


def test_one_threshold_for_all_groups_keeps_the_best():
    """Group 0 has scores 0..9, group 1 has 5..24: above 8.5 stay 1 and 16."""
    _, _, cost = chain()
    scores = {"0": np.arange(10.0), "1": np.arange(5.0, 25)}
    share = (4 * 1 + 1 * 16 + 16 * 3) / 300
    chosen = cost.select("macs", share, scores, floor=0.0)
    assert chosen.threshold == 8
    assert {n: int(m.sum()) for n, m in chosen.kept.items()} == {"0": 1, "1": 16}
    assert chosen.kept["0"].tolist() == [False] * 9 + [True]
    assert chosen.kept["1"].tolist() == [False] * 4 + [True] * 16
    assert chosen.cost == pytest.approx(share)


def test_rounding_ties_neurons_by_rank_and_lifts_the_floor_to_a_multiple():
    net, groups, _ = chain((4, 32, 64, 3))
    cost = CostModel(net, groups, torch.randn(2, 4))
    scores = {"0": 100 - np.arange(32.0), "1": 100 - np.arange(64.0)[::-1] / 2}
    dense = 4 * 32 + 32 * 64 + 64 * 3
    # 3.2 and 6.4 neurons are the floors; blocks of eight score 100, 92, 84, ... and 100, 96, 92, ...
    assert cost.floor_share("macs", scores, round_to=8) == pytest.approx((4 * 8 + 8 * 8 + 8 * 3) / dense)
    share = (4 * 16 + 16 * 32 + 32 * 3) / dense
    chosen = cost.select("macs", share, scores, round_to=8)
    assert chosen.threshold == 84
    assert chosen.cost == pytest.approx(share)
    assert np.flatnonzero(chosen.kept["0"]).tolist() == list(range(16))
    assert np.flatnonzero(chosen.kept["1"]).tolist() == list(range(32, 64))


def test_of_single_inputs_one_stays_that_belongs_to_a_channel_which_stays():
    """The best unit belongs to a channel that goes; without its neighbour the layer would read nothing."""
    net = nn.Sequential(nn.Linear(30, 4), nn.Linear(4, 50), nn.Linear(50, 6)).double()
    channel = NeuronGroup(
        "0", "channel", 4, (member("0", "producer", range(4)), member("1", "consumer", range(4)))
    )
    units = NeuronGroup("1:in", "input", 4, (member("1", "consumer", range(4)),))
    cost = CostModel(net, [channel, units], torch.randn(2, 30).double())
    scores = {"0": np.array([9.0, 1, 2, 3]), "1:in": np.array([0.0, 9, 9, 9])}
    least = cost.floor_share("params", scores, floor=0.0)
    chosen = cost.select("params", least, scores, floor=0.0)
    assert chosen.kept["0"].tolist() == [True, False, False, False]
    assert chosen.kept["1:in"][0], "the unit of the channel that stays"
    assert list(chosen.kept) == ["0", "1:in"]
