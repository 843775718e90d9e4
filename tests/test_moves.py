"""What operations do to channels: which columns belong to which neuron, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from snnprune.graph import find_groups

X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
ROW = tuple(range(8))
HALVES, PAIRS, QUARTETS = (0, 1, 2, 3) * 2, (0, 0, 1, 1, 2, 2, 3, 3), (0,) * 4 + (1,) * 4


class Net(nn.Module):
    """Two convolutions with eight channels each, whatever `function` makes of them, and a reader."""

    def __init__(self, function, width: int, *, flat: bool = False) -> None:
        super().__init__()
        self.function = function
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.same, self.wide = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 1, groups=4)
        self.turned = nn.ConvTranspose2d(8, 4, 1, groups=4)
        self.rows, self.columns = nn.Parameter(torch.rand(5, 8)), nn.Parameter(torch.rand(8, 5))
        self.bias = nn.Parameter(torch.rand(5))
        self.part, self.parts = nn.Parameter(torch.rand(4, 1, 1)), nn.Parameter(torch.rand(2, 4, 1, 1))
        self.places, self.table = nn.Parameter(torch.rand(4, 4)), nn.Parameter(torch.rand(8, 4, 4))
        self.last = nn.Linear(width, 5) if flat else nn.Conv2d(width, 5, 1)
        self.head = nn.Linear(5, 2) if flat else nn.Conv2d(5, 2, 1)

    def forward(self, x):
        return self.head(self.last(self.function(self, x)))


def groups_of(function, width, **options):
    found = find_groups(Net(function, width, **options), X, input_neurons=False)
    return {group.id: group for group in found}


def members(group):
    return {(m.module, m.role): (m.channels, m.neurons, m.dim) for m in group.members}


def five(x):
    return x.view(2, 2, 4, 4, 4)


def gated(x):
    left, right = x.chunk(2, 1)
    return left * right


@pytest.mark.parametrize(
    ("function", "producer", "channels", "neurons"),
    [
        (lambda n, x: F.pad(n.a(x), (0, 0, 0, 0, 2, 3)), ROW, range(2, 10), ROW),
        (lambda n, x: F.pad(n.a(x), (1, 0, 2, 1)), ROW, ROW, ROW),
        (lambda n, x: F.pad(n.a(x), (-1, 0, 0, 0)), ROW, ROW, ROW),
        (lambda n, x: n.a(x).flip(1), ROW, ROW, ROW[::-1]),
        (lambda n, x: n.a(x).flip(2), ROW, ROW, ROW),
        (lambda n, x: n.a(x).roll((1, 1), (2, 3)), ROW, ROW, ROW),
        (lambda n, x: n.a(x).transpose(2, 3).permute(0, 1, 3, 2), ROW, ROW, ROW),
        (lambda n, x: n.a(x).repeat(1, 2, 1, 1), ROW, range(16), ROW * 2),
        (lambda n, x: n.a(x)[:, :, ::2, 1:], ROW, ROW, ROW),
        (lambda n, x: n.a(x)[:, :, torch.tensor([1, 0])], ROW, ROW, ROW),
        (lambda n, x: n.a(x).select(2, 0).unsqueeze(2), ROW, ROW, ROW),
        (lambda n, x: n.a(x).gather(2, torch.zeros(2, 8, 1, 4, dtype=torch.long)), ROW, ROW, ROW),
        (lambda n, x: gated(n.a(x)), HALVES, range(4), range(4)),
        (lambda n, x: F.glu(n.a(x), 1), HALVES, range(4), range(4)),
        (lambda n, x: torch.cat(n.a(x).chunk(2, 1)[::-1], 1), HALVES, ROW, HALVES),
        (lambda n, x: torch.cat(n.a(x).split(4, 1)[::-1], 1), HALVES, ROW, HALVES),
        (lambda n, x: torch.cat(n.a(x).chunk(2, 2)[::-1], 2), ROW, ROW, ROW),
        (lambda n, x: F.pixel_shuffle(n.a(x), 2), QUARTETS, (0, 1), (0, 1)),
        (lambda n, x: F.pixel_unshuffle(n.a(x), 2), ROW, range(32), [c // 4 for c in range(32)]),
        (lambda n, x: five(n.a(x)).transpose(1, 2).reshape(2, 8, 4, 4), HALVES, ROW, PAIRS),
        (lambda n, x: five(n.a(x)).flatten(1, 2), HALVES, ROW, HALVES),
        (lambda n, x: five(n.a(x)).sum(2), QUARTETS, (0, 1), (0, 1)),
        (lambda n, x: five(n.a(x)).sum(1), HALVES, range(4), range(4)),
        (lambda n, x: five(n.a(x)).amax(1, keepdim=True).flatten(1, 2), HALVES, range(4), range(4)),
        (lambda n, x: five(n.a(x)).softmax(2).flatten(1, 2), QUARTETS, ROW, QUARTETS),
        (lambda n, x: five(n.a(x)).topk(1, 2)[0].flatten(1, 2), QUARTETS, (0, 1), (0, 1)),
        (lambda n, x: n.a(x).mean((2, 3), keepdim=True), ROW, ROW, ROW),
        (lambda n, x: n.a(x).cumsum(2), ROW, ROW, ROW),
        (lambda n, x: F.interpolate(n.a(x), size=(3, 5)), ROW, ROW, ROW),
        (lambda n, x: F.fractional_max_pool2d(n.a(x), 2, 2), ROW, ROW, ROW),
        (lambda n, x: F.max_unpool2d(*F.max_pool2d(n.a(x), 2, return_indices=True), 2), ROW, ROW, ROW),
        (lambda n, x: F.unfold(n.a(x), 2)[..., None], ROW, range(32), [c // 4 for c in range(32)]),
        (lambda n, x: F.fold(n.a(x).flatten(2), (5, 5), 2)[:, :, :4], QUARTETS, (0, 1), (0, 1)),
        (lambda n, x: F.fold(F.unfold(n.a(x), 2), (4, 4), 2), ROW, ROW, ROW),
        (lambda n, x: n.a(x).unfold(2, 2, 1).unfold(3, 2, 1).amax((-1, -2)), ROW, ROW, ROW),
        (lambda n, x: F.channel_shuffle(n.a(x), 2), HALVES, ROW, PAIRS),
        (lambda n, x: n.a(x).rot90(1, (2, 3)), ROW, ROW, ROW),
        (lambda n, x: n.a(x).cummax(2)[0], ROW, ROW, ROW),
        (lambda n, x: n.a(x).kthvalue(2, 2, keepdim=True)[0], ROW, ROW, ROW),
        (lambda n, x: torch.fft.irfft2(torch.fft.rfft2(n.a(x)) * 1j), ROW, ROW, ROW),
        (lambda n, x: torch.fft.fft(n.a(x), dim=2).abs(), ROW, ROW, ROW),
        (lambda n, x: F.group_norm(n.a(x), 4), PAIRS, ROW, PAIRS),
        (lambda n, x: F.layer_norm(n.a(x), (4, 4)), ROW, ROW, ROW),
        (lambda n, x: F.layer_norm(five(n.a(x)), (4, 4, 4)).flatten(1, 2), QUARTETS, ROW, QUARTETS),
        (lambda n, x: n.a(x) * (n.a(x).mean((2, 3), keepdim=True) > 0), ROW, ROW, ROW),
        (lambda n, x: n.a(x).as_strided((2, 8, 4, 4), (128, 16, 4, 1)), ROW, ROW, ROW),
        (lambda n, x: n.a(x).masked_fill(x[:, :1] > 0, 0.0), ROW, ROW, ROW),
        (lambda n, x: n.a(x).reshape(2, 32, 2, 2), ROW, range(32), [c // 4 for c in range(32)]),
        (lambda n, x: torch.cat([x, n.a(x), x], 1), ROW, range(3, 11), ROW),
    ],
)
def test_columns_belong_to_the_neurons_that_arrive_there(function, producer, channels, neurons):
    group = groups_of(function, len(channels) if min(channels) == 0 else {2: 13, 3: 14}[min(channels)])["a"]
    assert group.prunable, group.reason
    assert group.size == len(set(producer))
    assert members(group) == {
        ("a", "producer"): (ROW, tuple(producer), 0),
        ("last", "consumer"): (tuple(channels), tuple(neurons), 0),
    }


@pytest.mark.parametrize(
    ("function", "other"),
    [
        (lambda n, x: n.a(x) + n.b(x), ROW),
        (lambda n, x: torch.max(n.a(x), n.b(x)), ROW),
        (lambda n, x: n.a(x) * n.b(x).mean((2, 3), keepdim=True).sigmoid(), ROW),
        (lambda n, x: n.a(x) - n.b(x).flip(1), ROW[::-1]),
        (lambda n, x: torch.cat([n.a(x), n.b(x)], 2), ROW),
        (lambda n, x: torch.stack([n.a(x), n.b(x)], 2)[:, :, 0], ROW),
        (lambda n, x: torch.stack([n.a(x), n.b(x)], 2).sum(2), ROW),
        (lambda n, x: torch.where(x[:, :1] > 0, n.a(x), n.b(x)), ROW),
        (lambda n, x: torch.lerp(n.a(x), n.b(x), 0.5), ROW),
    ],
)
def test_what_meets_channel_by_channel_lives_and_dies_together(function, other):
    group = groups_of(function, 8)["a"]
    assert (group.prunable, group.size) == (True, 8)
    assert members(group) == {
        ("a", "producer"): (ROW, ROW, 0),
        ("b", "producer"): (ROW, other, 0),
        ("last", "consumer"): (ROW, ROW, 0),
    }


def test_channels_that_lie_behind_each_other_live_and_die_together_though_nobody_reads_across():
    """Eight rows of four places per channel, the upper ones of one layer, the lower ones of the other."""
    group = groups_of(lambda n, x: torch.cat([n.a(x), n.b(x)], 2).flatten(1), 256, flat=True)["a"]
    assert (group.prunable, group.size) == (True, 8)
    assert members(group) == {
        ("a", "producer"): (ROW, ROW, 0),
        ("b", "producer"): (ROW, ROW, 0),
        ("last", "consumer"): (tuple(range(256)), tuple(c // 32 for c in range(256)), 0),
    }


def test_joined_channels_lie_side_by_side_with_what_nobody_owns():
    groups = groups_of(lambda n, x: torch.cat([n.a(x), x[:, :1], n.b(x)], 1), 17)
    assert members(groups["a"])["last", "consumer"] == (ROW, ROW, 0)
    assert members(groups["b"])["last", "consumer"] == (tuple(range(9, 17)), ROW, 0)


def test_a_layer_that_is_called_twice_reads_the_same_neurons():
    groups = groups_of(lambda n, x: n.same(n.a(x)) + n.same(n.b(x)), 8)
    assert set(members(groups["a"])) == {("a", "producer"), ("b", "producer"), ("same", "consumer")}
    assert set(members(groups["same"])) == {("same", "producer"), ("last", "consumer")}
    wide = torch.randn(2, 8, 4, 4)
    kept = groups_of(lambda n, x: n.same(n.a(x)) + n.same(wide), 8)["a"]
    assert kept.reason == "same also reads what no neuron owns"


@pytest.mark.parametrize(("name", "width"), [("wide", 16), ("turned", 4)])
def test_convolution_groups_are_neurons(name, width):
    group = groups_of(lambda n, x: getattr(n, name)(n.a(x)), width)["a"]
    out = tuple(c // (width // 4) for c in range(width))
    assert group.size == 4
    assert members(group) == {
        ("a", "producer"): (ROW, PAIRS, 0),
        (name, "between"): (tuple(range(width)), out, 0),
        ("last", "consumer"): (tuple(range(width)), out, 0),
    }


def test_a_convolution_group_that_reads_the_input_stays():
    groups = groups_of(lambda n, x: n.wide(torch.cat([x[:, :1], n.a(x)[:, 1:]], 1)), 16)
    assert not groups["a"].prunable


@pytest.mark.parametrize(("name", "dim"), [("rows", 0), ("columns", 1)])
def test_a_matrix_outside_layers_has_neurons_of_its_own(name, dim):
    def product(n, x):
        x = n.a(x).mean((2, 3))
        return F.linear(x, n.rows, n.bias) if name == "rows" else x @ n.columns

    groups = groups_of(product, 5, flat=True)
    assert groups["a"].reason == f"the weights of {name} are used outside the call of a layer"
    found = members(groups[name])
    every = tuple(range(5))
    assert found.pop(("last", "consumer")) == (every, every, 0)
    assert found.pop((name, "parameter")) == (every, every, dim)
    assert found == ({("bias", "parameter"): (every, every, 0)} if name == "rows" else {})
    assert groups[name].macs == 8, "multiply-adds of one of its neurons, for one input"


@pytest.mark.parametrize(("name", "dim"), [("part", 0), ("parts", 1)])
def test_a_parameter_that_is_shared_by_parts_lets_the_same_channels_go_in_each(name, dim):
    group = groups_of(lambda n, x: (five(n.a(x)) * getattr(n, name)).flatten(1, 2), 8)["a"]
    assert (group.prunable, group.size) == (True, 4)
    assert members(group)["a", "producer"] == (ROW, HALVES, 0)
    assert members(group)[name, "parameter"] == (tuple(range(4)), tuple(range(4)), dim)


def test_a_parameter_of_places_has_nothing_to_do_with_channels():
    group = groups_of(lambda n, x: n.a(x) * n.places, 8)["a"]
    assert (group.prunable, group.size) == (True, 8)
    assert set(members(group)) == {("a", "producer"), ("last", "consumer")}
    both = groups_of(lambda n, x: n.a(x) + n.table, 8)["a"]
    assert (both.prunable, both.size) == (True, 8)
    assert members(both)["table", "parameter"] == (ROW, ROW, 0)


def test_products_of_activations_are_priced_per_neuron_and_input():
    """(2, 8, 5) times (5, 3): 5 x 3 multiply-adds for every channel of an input."""
    fixed = torch.rand(5, 3)
    group = groups_of(lambda n, x: (n.a(x).flatten(2)[..., :5] @ fixed).mean(2), 8, flat=True)["a"]
    assert (group.prunable, group.size, group.macs) == (True, 8, 5 * 3)
    assert members(group)["last", "consumer"] == (ROW, ROW, 0)


@pytest.mark.parametrize(
    ("function", "width", "why"),
    [
        (lambda n, x: F.pad(n.a(x), (0, 0, 0, 0, -1, 0)), 7, "picked by their position"),
        (lambda n, x: F.pad(n.a(x), (0, 0, 0, 0, 1, -1)), 8, "picked by their position"),
        (lambda n, x: n.a(x).roll(1, 1), 8, "picked by their position"),
        (lambda n, x: n.a(x).roll(1), 8, "picked by their position"),
        (lambda n, x: n.a(x).unbind(1)[3][:, None], 1, "picked by their position"),
        (lambda n, x: n.a(x)[:, 2:], 6, "picked by their position"),
        (lambda n, x: n.a(x)[:, torch.tensor([1, 0])], 2, "picked by their position"),
        (lambda n, x: torch.cat(n.a(x).split([3, 5], 1)[::-1], 1), 8, "split by a constant"),
        (
            lambda n, x: torch.arange(256.0).view(2, 8, 4, 4).copy_(n.a(x)),
            8,
            "written into a tensor of a fixed size",
        ),
        (lambda n, x: n.a(x).as_strided((2, 4, 4, 4), (128, 16, 4, 1)), 4, "strides"),
        (lambda n, x: torch.ones(2, 8, 4, 9).gather(3, (n.a(x) > 0).long()), 8, "picked by its values"),
        (lambda n, x: n.a(x) * torch.arange(8.0).view(8, 1, 1), 8, "constant in the code"),
        (lambda n, x: n.a(x) + n.b(x)[:, :1], 8, None),
        (lambda n, x: torch.cat([n.a(x), torch.ones(2, 8, 1, 4)], 2), 8, "joined to a tensor of a fixed size"),
        (lambda n, x: n.a(x).amax(1, keepdim=True), 1, "amax reads across"),
        (lambda n, x: F.layer_norm(n.a(x), (8, 4, 4)), 8, "layer norm reads across"),
        (
            lambda n, x: (torch.rand(3, 8) @ n.a(x).flatten(2)).unsqueeze(3),
            3,
            "a product of activations reads across",
        ),
        (lambda n, x: n.a(x).rot90(1, (1, 2)), 4, "last reads across its channels"),
        (lambda n, x: torch.fft.fft(n.a(x), dim=1).abs(), 8, "Fourier transform reads across"),
        (lambda n, x: F.unfold(n.a(x).transpose(1, 2), 2)[..., None], 16, "windows read across"),
        (lambda n, x: n.a(x).unfold(1, 2, 2).flatten(3), 4, "picked by their position"),
        (lambda n, x: n.a(x).transpose(1, 3), 4, "last reads across its channels"),
        (lambda n, x: F.avg_pool1d(n.a(x).flatten(2).transpose(1, 2), 2).unsqueeze(3), 16, "pooling or resizing"),
    ],
)
def test_what_cannot_lose_channels_says_why(function, width, why):
    groups = groups_of(function, width)
    if why is None:  # the channel that is broadcast stays, those that it meets may go
        assert groups["a"].prunable
        assert "picked by their position" in groups["b"].reason
    else:
        assert not groups["a"].prunable
        assert why in groups["a"].reason
