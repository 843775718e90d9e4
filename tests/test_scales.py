"""Scales on columns: products, folds and calls, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnprune.graph.records import Member, NeuronGroup
from snnprune.layers import IndexedLinear
from snnprune.proof import random_scales
from snnprune.surgery import ColumnMap, column_maps, fold_, scale_call, scale_input
from snnprune.switching.rule import count_groups


def consumer(module, neurons, channels=None):
    channels = range(len(neurons)) if channels is None else channels
    return Member(module, "consumer", tuple(channels), tuple(neurons))


def columns(*parts):
    return tuple((name, torch.tensor(places), torch.tensor(neurons)) for name, places, neurons in parts)


def test_scales_of_several_groups_multiply_where_they_meet():
    both = ColumnMap("m", 4, columns(("a", [0, 1, 2, 3], [0, 0, 1, 1]), ("b", [3, 1], [0, 1]), ("c", [0], [0])))
    a, b = torch.tensor([2.0, 3]), torch.tensor([5.0, 7])
    assert both({"a": a, "b": b}).tolist() == [2, 14, 3, 15]
    assert both({"b": b}).tolist() == [1, 7, 1, 5]
    assert both({"other": a}) is None
    assert both({"a": a, "b": b, "c": torch.tensor([11.0])}).tolist() == [22, 14, 3, 15]
    whole = ColumnMap("m", 2, columns(("a", [0, 1], [0, 1]), ("b", [0, 1], [1, 0])))
    assert whole({"a": a, "b": b}).tolist() == [14, 15]


def test_scales_of_every_input_of_a_batch_multiply_alike():
    both = ColumnMap("m", 3, columns(("a", [0, 1, 2], [0, 0, 1]), ("b", [2], [0])))
    a, b = torch.tensor([[2.0, 3], [4, 5]]), torch.tensor([[10.0], [100]])
    assert both({"a": a, "b": b}).tolist() == [[2, 2, 30], [4, 4, 500]]


def test_the_product_is_differentiable_in_every_factor():
    both = ColumnMap("m", 2, columns(("a", [0, 1], [0, 0]), ("b", [0, 1], [0, 1])))
    a, b = torch.tensor([2.0], requires_grad=True), torch.tensor([3.0, 0], requires_grad=True)
    both({"a": a, "b": b}).sum().backward()
    assert (a.grad.tolist(), b.grad.tolist()) == ([3], [2, 2])


@pytest.mark.parametrize(
    ("layer", "shape", "at"),
    [
        (nn.Linear(3, 2), (3,), 0),
        (nn.Linear(3, 2), (2, 4, 3), 2),
        (nn.Conv2d(3, 2, 1), (2, 3, 4, 5), 1),
        (nn.Conv2d(3, 2, 1), (3, 4, 5), 0),
        (nn.ConvTranspose1d(3, 2, 1), (2, 3, 4), 1),
    ],
)
def test_a_gate_scales_the_dimension_of_the_columns(layer, shape, at):
    x, factor = torch.rand(shape), torch.tensor([2.0, 0, 5])
    scaled = scale_input(layer, x, factor.double())
    assert scaled.dtype == x.dtype
    for c in range(3):
        assert torch.equal(scaled.select(at, c), factor[c] * x.select(at, c))


def test_every_input_has_scales_of_its_own_also_where_its_parts_are_entries_of_the_batch():
    factor = torch.tensor([[1.0, 2], [3, 4]])
    assert scale_input(nn.Linear(2, 1), torch.ones(2, 3, 2), factor)[:, 2].tolist() == [[1, 2], [3, 4]]
    parts = scale_input(nn.Linear(2, 1), torch.ones(4, 2), factor)
    assert parts.tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
    assert scale_input(nn.Conv2d(2, 1, 1), torch.ones(2, 2, 1, 1), factor).flatten(1).tolist() == [[1, 2], [3, 4]]
    assert scale_input(nn.Linear(2, 1), torch.ones(3, 2), factor).tolist() == [[2, 3]] * 3, "no batch: the mean"
    assert scale_input(nn.Conv2d(2, 1, 1), torch.ones(2, 1, 1), factor).flatten().tolist() == [2, 3]


def test_calls_are_scaled_however_the_input_is_passed():
    layer, x, factor = nn.Linear(2, 1), torch.ones(1, 2), torch.tensor([2.0, 3])
    args, kwargs = scale_call(layer, (x, "rest"), {"a": 1}, factor)
    assert (args[0].tolist(), args[1:], kwargs) == ([[2, 3]], ("rest",), {"a": 1})
    args, kwargs = scale_call(layer, (), {"flag": 1, "input": x}, factor)
    assert (args, kwargs["flag"], kwargs["input"].tolist()) == ((), 1, [[2, 3]])


def test_maps_know_prunable_groups_alone():
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    groups = [
        NeuronGroup("0", "channel", 3, (Member("0", "producer", (0, 1, 2), (0, 1, 2)), consumer("1", [2, 1, 0]))),
        NeuronGroup("k", "channel", 4, (consumer("0", range(4)),), reason="so"),
    ]
    maps = column_maps(net, groups)
    assert list(maps) == ["1"]
    assert (maps["1"].width, maps["1"]({"0": torch.arange(3.0)}).tolist()) == (3, [2, 1, 0])


@pytest.mark.parametrize(
    ("layer", "dim"),
    [(nn.Linear(3, 2), 1), (nn.Conv2d(3, 2, 2), 1), (nn.ConvTranspose2d(3, 2, 2), 0)],
)
def test_folding_scales_the_weights_of_the_columns(layer, dim):
    net = nn.Sequential(layer)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    groups = [NeuronGroup("g", "channel", 3, (consumer("0", [0, 1, 2]),))]
    assert fold_(net, groups, {"g": torch.tensor([2.0, 0, 3])}) is net
    for c, factor in enumerate((2, 0, 3)):
        assert torch.equal(layer.weight.select(dim, c), factor * weight.select(dim, c))
    assert torch.equal(layer.bias, bias)


def test_folding_follows_an_index():
    layer = IndexedLinear(2, 1, source_features=3, index=torch.tensor([2, 0]))
    layer.weight.data.fill_(1)
    groups = [NeuronGroup("g", "channel", 3, (consumer("0", [0, 1, 2]),))]
    fold_(nn.Sequential(layer), groups, {"g": torch.tensor([2.0, 3, 5])})
    assert layer.weight.tolist() == [[5, 2]]


def test_random_scales_have_their_share_of_zeros_and_never_nothing_else():
    groups = [
        NeuronGroup("a", "channel", 10, ()),
        NeuronGroup("b", "channel", 1, ()),
        NeuronGroup("k", "channel", 5, (), reason="so"),
    ]
    scales = random_scales(groups, torch.Generator().manual_seed(0))
    assert list(scales) == ["a", "b"]
    assert int((scales["a"] == 0).sum()) == 3
    alive = scales["a"][scales["a"] > 0]
    assert float(alive.min()) >= 0.5
    assert float(alive.max()) <= 1.5
    assert float(alive.max() - alive.min()) > 0.2
    assert float(scales["b"]) >= 0.5
    assert int((random_scales(groups, torch.Generator().manual_seed(0), zeros=1.0)["a"] > 0).sum()) == 1
    assert scales["a"].dtype == torch.float64


def test_counts_multiply_a_unit_with_its_channel():
    channel = NeuronGroup("c", "channel", 2, (consumer("fc", [0, 0, 1, 1]), consumer("other", [1, 0])))
    units = NeuronGroup("fc:in", "input", 3, (consumer("fc", range(3), [0, 1, 3]),))
    alone = NeuronGroup("x:in", "input", 2, (consumer("x", range(2)),))
    scales = {
        "c": torch.tensor([0.5, 0.0]),
        "fc:in": torch.tensor([2.0, 1.0, 3.0]),
        "x:in": torch.tensor([1.0, 0.999]),
    }
    found = {
        c.id: (c.size, c.kept, c.weakened, c.strengthened) for c in count_groups([channel, units, alone], scales)
    }
    assert found == {"c": (2, 1, 1, 0), "fc:in": (3, 2, 1, 1), "x:in": (2, 2, 1, 1)}
    two = NeuronGroup("d", "channel", 1, (consumer("fc", [0], [1]),))
    again = count_groups([channel, two, units], {**scales, "d": torch.tensor([0.0])})
    assert [c.kept for c in again if c.id == "fc:in"] == [1]
