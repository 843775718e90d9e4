"""How far two models are apart, by hand, and what is compared."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from snnprune.graph.records import Member, NeuronGroup
from snnprune.proof import Difference, gated_by, randomize_norms_, relative_difference, removal_difference
from snnprune.proof.difference import layers_to_watch


@pytest.mark.parametrize(
    ("a", "b", "gap"),
    [
        ([1.0, 3.0], [1.0, 3.0], 0.0),
        # the spread is the deviation, sqrt(2), which is less than the root mean square of what differs, 3
        ([1.0, 3.0], [1.0, 3.5], 0.5 / math.sqrt(2)),
        # here what differs is less than the deviation: a constant of -1e9 must not hide it
        ([1.0, -1e9], [1.5, -1e9], 0.5),
        ([2.0, 2.0], [2.0, 2.5], 0.25),
        ([5.0], [4.0], 0.2),
        ([0.0, 0.0], [0.0, 1.0], math.inf),
        ([1.0, math.inf], [1.0, math.inf], 0.0),
        ([1.0, math.inf], [1.0, 1.0], math.inf),
        ([1.0, 1.0], [1.0, math.nan], math.inf),
    ],
)
def test_differences_are_relative_to_the_spread_of_the_first(a, b, gap):
    assert relative_difference(torch.tensor(a), torch.tensor(b)) == pytest.approx(gap)


def test_the_worst_of_all_outputs_counts_and_shapes_must_agree():
    a = {"x": torch.tensor([1.0, 3.0]), "y": torch.tensor([2.0, 2.0]), "n": torch.tensor([1, 2])}
    b = {"x": torch.tensor([1.0, 3.0]), "y": torch.tensor([2.0, 3.0]), "n": torch.tensor([1, 5])}
    assert relative_difference(a, b) == pytest.approx(0.5)
    b["x"] = torch.tensor([9.0, 3.0])
    assert relative_difference(a, b) == pytest.approx(8 / 1.0)
    assert relative_difference(torch.ones(2), torch.ones(3)) == math.inf
    assert relative_difference(torch.tensor([1 + 1j, 3]), torch.tensor([1 + 1j, 3 + 1j])) > 0.5
    with pytest.raises(ValueError, match="zip"):
        relative_difference([torch.ones(2)], [torch.ones(2), torch.ones(2)])


def test_exact_is_a_tenth_of_a_billionth_or_ten_times_what_rounding_does():
    assert Difference(1e-10).exact
    assert not Difference(1.1e-10).exact
    assert Difference(9e-9, noise=1e-9).exact
    assert not Difference(1.1e-8, noise=1e-9).exact


def test_random_statistics_reach_every_norm_and_what_is_next_to_zero():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm2d(64), nn.GroupNorm(2, 64), nn.LayerNorm(64), nn.InstanceNorm2d(64), nn.Linear(64, 64)
    )
    model.scale = nn.Parameter(torch.full((64,), 1e-6))
    model.one = nn.Parameter(torch.full((64,), 0.5))
    model.single = nn.Parameter(torch.zeros(1))
    model[4].weight.data.zero_()
    model[0].running_mean.fill_(10)
    model[0].running_var.fill_(4)
    kept = model[4].bias.clone()
    assert randomize_norms_(model, torch.Generator().manual_seed(0)) is model
    for norm in model[:3]:
        for tensor, low, high in ((norm.weight.detach(), 0.6, 1.4), (norm.bias.detach(), -0.4, 0.4)):
            assert low <= float(tensor.min()) < low + 0.1, norm
            assert high - 0.1 < float(tensor.max()) <= high, norm
    assert -0.3 * 12 <= float(model[0].running_mean.min()) < -2.5
    assert 2.5 < float(model[0].running_mean.max()) <= 0.3 * 12
    assert 2.4 <= float(model[0].running_var.min()) < 3
    assert 5.8 < float(model[0].running_var.max()) <= 6.4
    assert 0.02 < float(model[4].weight.detach().std()) < 0.06, "0.3 / sqrt(64)"
    assert 0.2 < float(model.scale.detach().std()) < 0.4
    assert torch.equal(model[4].bias, kept)
    assert bool((model.one == 0.5).all())
    assert float(model.single.detach()) == 0


def groups_of_three():
    neurons = tuple(range(3))
    return [
        NeuronGroup(
            "0",
            "channel",
            3,
            (Member("0", "producer", neurons, neurons), Member("2", "consumer", neurons, neurons)),
        ),
        NeuronGroup("2", "channel", 2, (Member("2", "producer", (0, 1), (0, 1)),), reason="so"),
    ]


def test_gates_are_on_inside_the_block_alone():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    x, factor = torch.randn(5, 4).double(), torch.tensor([2.0, 0.0, 0.5]).double()
    plain = net(x)
    with gated_by(net, groups_of_three(), {"0": factor}):
        gated = net(x)
    torch.testing.assert_close(gated, net[2](net[1](net[0](x)) * factor))
    assert torch.equal(net(x), plain)


def test_what_is_removed_wrongly_is_measured():
    """The producer's record has its neurons in another order than the consumer's."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 2)).double()
    x, scales = torch.randn(9, 4).double(), {"0": torch.tensor([1.0, 0.0, 0.5]).double()}
    assert removal_difference(net, groups_of_three(), scales, x).exact
    members = (Member("0", "producer", (0, 1, 2), (1, 2, 0)), Member("2", "consumer", (0, 1, 2), (0, 1, 2)))
    assert removal_difference(net, [NeuronGroup("0", "channel", 3, members)], scales, x).relative > 1e-3


def test_outputs_that_say_nothing_bring_in_the_layers_that_keep_theirs():
    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))

        def forward(self, x):
            return self.net(x).argmax(1)

    torch.manual_seed(0)
    x = torch.randn(5, 4)
    groups = [
        NeuronGroup(
            f"net.{g.id}",
            g.kind,
            g.size,
            tuple(Member(f"net.{m.module}", m.role, m.channels, m.neurons) for m in g.members),
            g.reason,
        )
        for g in groups_of_three()
    ]
    scales = {"net.0": torch.tensor([1.0, 0, 2])}
    assert layers_to_watch(Decides(), groups, scales, x) == ["net.2"]
    assert layers_to_watch(Decides().net, groups_of_three(), {"0": scales["net.0"]}, x) == []
