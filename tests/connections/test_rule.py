"""Which connections stay, whose neurons die, and what scales they get: by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from snnprune.errors import CollapsedLayerError, TargetError
from snnprune.graph.records import Member, NeuronGroup
from snnprune.layers import IndexedLinear
from snnprune.switching.connections import (
    ConnectionModel,
    ConnectionScorer,
    connections_for,
    fold_connections_,
    measure_connections,
)
from snnprune.switching.connections.rule import Neurons, keep_connections


def kept(values, count, floor):
    return {name: mask.int().tolist() for name, mask in keep_connections(values, count, floor=floor).items()}


def test_the_best_of_all_layers_stay_in_their_places():
    values = {"a": torch.tensor([[5.0, 1, 3], [2, 9, 0]]), "b": torch.tensor([[4.0, 8]])}
    assert kept(values, 3, 0.0) == {"a": [[1, 0, 0], [0, 1, 0]], "b": [[0, 1]]}
    assert kept(values, 5, 0.0) == {"a": [[1, 0, 1], [0, 1, 0]], "b": [[1, 1]]}
    assert kept(values, 8, 0.0) == {"a": [[1, 1, 1], [1, 1, 1]], "b": [[1, 1]]}


def test_every_layer_keeps_its_floor_relative_to_an_even_share():
    """Of 6 out of 12, half of an even share of 8 is 2; floors of one come first where only they fit."""
    values = {"a": torch.arange(8.0)[None], "b": 100 + torch.arange(4.0)[None]}
    assert kept(values, 6, 0.5) == {"a": [[0] * 6 + [1, 1]], "b": [[1] * 4]}
    assert kept(values, 6, 0.25) == {"a": [[0] * 6 + [1, 1]], "b": [[1] * 4]}, "one of its own, one by threshold"
    assert kept(values, 3, 0.0) == {"a": [[0] * 7 + [1]], "b": [[0, 0, 1, 1]]}
    assert kept(values, 6, 1.0)["a"] == [[0] * 6 + [1, 1]], "two are spared for the floors of one"


def test_what_is_no_connection_never_stays():
    values = {"a": torch.tensor([[-torch.inf, 1.0], [-torch.inf, -2.0]]), "b": torch.tensor([[-torch.inf, 7.0]])}
    assert kept(values, 2, 0.0) == {"a": [[0, 1], [0, 0]], "b": [[0, 1]]}
    assert kept(values, 5, 0.9) == {"a": [[0, 1], [0, 1]], "b": [[0, 1]]}


def test_so_many_connections_fit():
    assert connections_for(0.25, dense=1000, connections=900, layers=3) == 150
    assert connections_for(1.0, dense=1000, connections=900, layers=3) == 900
    assert connections_for(0.103, dense=1000, connections=900, layers=3) == 3
    with pytest.raises(TargetError, match=r"100 of 1000 .* Ask for params=0\.103 or more"):
        connections_for(0.1029, dense=1000, connections=900, layers=3)


def member(module, role, channels, neurons=None):
    channels = tuple(channels)
    return Member(module, role, channels, channels if neurons is None else tuple(neurons))


def hidden(*more, group="h"):
    """Three units between `a` and `b`."""
    return NeuronGroup(
        group, "channel", 3, (member("a", "producer", range(3)), member("b", "consumer", range(3)), *more)
    )


def full(**shapes):
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


def net(**layers):
    model = nn.Module()
    for name, layer in layers.items():
        setattr(model, name, layer)
    return model


def test_a_neuron_dies_when_nothing_reads_it_or_it_reads_nothing():
    model = net(a=nn.Linear(2, 3), b=nn.Linear(3, 2))
    neurons = Neurons(model, [hidden()], ["a", "b"])
    masks = full(a=(3, 2), b=(2, 3))
    masks["a"][0] = False  # reads nothing
    masks["b"][:, 2] = False  # nothing reads it
    closed, alive = neurons.close(masks)
    assert alive["h"].tolist() == [False, True, False]
    assert closed["a"].tolist() == [[False, False], [True, True], [False, False]]
    assert closed["b"].tolist() == [[False, True, False]] * 2
    masks["b"][:, 1] = False
    with pytest.raises(CollapsedLayerError, match="h: none of its 3 neurons"):
        neurons.close(masks)


def test_death_spreads_through_layers_both_ways():
    model = net(a=nn.Linear(2, 3), b=nn.Linear(3, 3), c=nn.Linear(3, 2))
    second = NeuronGroup("g", "channel", 3, (member("b", "producer", range(3)), member("c", "consumer", range(3))))
    neurons = Neurons(model, [hidden(), second], ["a", "b", "c"])
    masks = full(a=(3, 2), b=(3, 3), c=(2, 3))
    masks["b"] = torch.eye(3, dtype=torch.bool)
    masks["c"][:, 0] = False  # so unit 0 of g dies, and unit 0 of h, which only it reads
    masks["a"][2] = False  # so unit 2 of h dies, and unit 2 of g, which reads it alone
    closed, alive = neurons.close(masks)
    assert {name: a.tolist() for name, a in alive.items()} == {n: [False, True, False] for n in "gh"}
    for name, count in (("a", 2), ("b", 1), ("c", 2)):
        assert int(closed[name].sum()) == count, name


def test_a_constant_that_other_layers_make_is_no_death():
    """What a convolution makes is never without inputs here; and one live feeder of a sum is enough."""
    model = net(a=nn.Linear(2, 3), b=nn.Linear(3, 2), conv=nn.Conv2d(1, 3, 1), d=nn.Linear(2, 3))
    masks = full(a=(3, 2), b=(2, 3), d=(3, 2))
    masks["a"][0] = False
    mixed = Neurons(model, [hidden(member("conv", "producer", range(3)))], ["a", "b"])
    assert mixed.close(masks)[1]["h"].all()
    both = Neurons(model, [hidden(member("d", "producer", range(3)))], ["a", "b", "d"])
    assert both.close(masks)[1]["h"].all()
    masks["d"][0] = False
    assert both.close(masks)[1]["h"].tolist() == [False, True, True]


def test_groups_that_others_read_or_that_hold_more_than_layers_are_left_alone():
    model = net(a=nn.Linear(2, 3), b=nn.Linear(3, 2), conv=nn.Conv2d(3, 1, 1))
    groups = [
        hidden(member("conv", "consumer", range(3)), group="conv reads"),
        hidden(member("table", "parameter", range(3)), group="parameter"),
        hidden(member("att", "heads", range(3)), group="heads"),
        NeuronGroup("nobody reads", "channel", 3, (member("a", "producer", range(3)),)),
        NeuronGroup("kept", "channel", 3, hidden().members, reason="so"),
    ]
    assert Neurons(model, groups, ["a", "b"]).groups == []


def test_columns_of_an_indexed_layer_are_those_that_it_reads():
    """It reads features 3 and 1; feature 2 is read by nobody, so its unit is dead from the start."""
    layer = IndexedLinear(2, 2, source_features=4, index=torch.tensor([3, 1]))
    model = net(a=nn.Linear(2, 3), b=layer)
    group = NeuronGroup(
        "h", "channel", 3, (member("a", "producer", range(3)), member("b", "consumer", (1, 2, 3), (0, 1, 2)))
    )
    neurons = Neurons(model, [group], ["a", "b"])
    closed, alive = neurons.close(full(a=(3, 2), b=(2, 2)))
    assert alive["h"].tolist() == [True, False, True]
    masks = full(a=(3, 2), b=(2, 2))
    masks["a"][2] = False  # unit 2 is feature 3, which is column 0
    closed, alive = neurons.close(masks)
    assert alive["h"].tolist() == [True, False, False]
    assert closed["b"].tolist() == [[False, True]] * 2


def test_folding_leaves_exact_zeros_also_of_weights_that_are_not_finite():
    model = net(a=nn.Linear(2, 2))
    model.a.weight.data = torch.tensor([[2.0, torch.inf], [3.0, -5.0]])
    fold_connections_(model, {"a": torch.tensor([[0.5, 0.0], [0.0, 2.0]])})
    assert model.a.weight.tolist() == [[1, 0], [0, -10]]


@pytest.mark.parametrize("start", ["post-training", "fresh"])
def test_scales_are_values_over_the_mean_of_those_that_stay_with_the_gradient_of_all(start):
    model = nn.Sequential(nn.Linear(3, 2))
    gated = ConnectionModel(model, [], ["0"], scorer=ConnectionScorer(model, ["0"], start=start))
    u = torch.tensor([[2.0, 4.0, -1.0], [1.0, 3.0, -8.0]], requires_grad=True)
    mask = torch.tensor([[True, True, True], [False, False, False]])
    gated._values = u.flatten  # type: ignore[method-assign]
    gated._kept_alone = lambda _values: mask.flatten()  # type: ignore[method-assign]
    scales = gated._by_layer(gated._at_work(grad=True))["0"]
    mean, least = ((2 + 4 + 0.01) / 3, 0.01) if start == "post-training" else (1.0, 0.0)
    torch.testing.assert_close(scales, torch.tensor([[2 / mean, 4 / mean, least], [0, 0, 0]]))
    (scales * torch.arange(6.0).reshape(2, 3)).sum().backward()
    torch.testing.assert_close(u.grad, torch.arange(6.0).reshape(2, 3) / mean)


def test_the_dense_size_counts_no_weights_that_are_zero_already():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].weight.data[0, :2] = 0
    gated = ConnectionModel(model, [], ["0"], scorer=ConnectionScorer(model, ["0"]))
    assert (gated.dense, gated.connections) == (3 * 4 + 4 + 4 * 2 + 2 - 2, 10)
    gated.set_budget({"params": 0.75})  # 18 of 24, of which 14 are no connections
    assert [(c.id, c.size, c.kept) for c in gated.counts()] == [("0.weight", 12, 4)]
    assert not gated.connection_scales()["0"][0, :2].any()


def test_sensitivity_is_the_mean_square_of_each_inputs_gradient_by_each_scale():
    """Loss of input x: (w . x)^2, so by the scale of weight i: 2 (w . x) w_i x_i; an index is followed."""
    layer = IndexedLinear(2, 1, bias=False, source_features=3, index=torch.tensor([2, 0]))
    layer.weight.data = torch.tensor([[2.0, -1.0]])
    x = torch.tensor([[1.0, 9, 3], [2, 9, -1], [0, 9, 4]])
    found = measure_connections(
        nn.Sequential(layer), ["0"], [x[:2], x[2:]], lambda model, batch: model(batch).square().mean()
    )["0"]
    gradients = []
    for a, _, b in x.tolist():
        out = 2 * b - a
        gradients.append([2 * out * 2 * b, 2 * out * -1 * a])
    torch.testing.assert_close(found, torch.tensor(gradients).square().mean(0, keepdim=True))


def test_a_layer_that_holds_a_part_of_a_group_never_loses_all_of_it():
    parts = (
        Member("a", "producer", (0, 1), (0, 1)),
        Member("b", "producer", (0, 1), (2, 3)),
        Member("o", "consumer", (0, 1, 2, 3), (0, 1, 2, 3)),
    )
    model = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(3, 2), "o": nn.Linear(4, 2)})
    neurons = Neurons(model, [NeuronGroup("a", "channel", 4, parts)], ["a", "b", "o"])
    masks = {name: torch.ones(model[name].weight.shape, dtype=torch.bool) for name in model}
    masks["o"][:, 1:3] = False
    assert neurons.close(masks)[1]["a"].tolist() == [True, False, False, True]
    masks["o"][:, 3] = False
    with pytest.raises(CollapsedLayerError, match=r"^b: none of its 2 neurons has connections left"):
        neurons.close(masks)
