"""Groups: what is found, what is refused and why."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
from conftest import make_network
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune.errors import ConfigError, UnsupportedModelError
from snnprune.graph import find_groups
from snnprune.proof import random_scales, removal_difference


def by_id(groups):
    return {g.id: g for g in groups}


class Tower(nn.Module):
    """A convolution, whatever `middle` is, and a classifier."""

    def __init__(self, middle: nn.Module, width: int = 8, out: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.middle = middle
        self.last = nn.Conv2d(out, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(F.relu(self.last(F.relu(self.middle(self.conv(x))))).mean((2, 3)))


class Lambda(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_records_hold_names_and_integers_only():
    _, model, x = make_network("resnet20")
    groups = find_groups(model, x)
    assert pickle.loads(pickle.dumps(groups)) == groups
    for group in groups:
        with pytest.raises(dataclasses.FrozenInstanceError):
            group.size = 1
        for member in group.members:
            assert all(type(v) is int for v in (*member.channels, *member.neurons))


def test_lenet_groups_are_the_papers():
    _, model, x = make_network("lenet5_caffe")
    sizes = {g.id: g.size for g in find_groups(model, x) if g.prunable}
    assert sizes == {"conv1": 20, "conv2": 50, "fc1:in": 800, "fc1": 500}


def test_mlp_pixels_are_neurons():
    _, model, x = make_network("mlp")
    sizes = [g.size for g in find_groups(model, x) if g.prunable]
    assert sizes == [784, 300, 100]
    without = find_groups(model, x, input_neurons=False)
    assert [g.size for g in without if g.prunable] == [300, 100]


def test_flattened_maps_have_index_maps():
    _, model, x = make_network("lenet5_caffe")
    group = by_id(find_groups(model, x))["conv2"]
    consumer = group.consumers[0]
    assert consumer.module == "fc1"
    assert consumer.channels == tuple(range(800))
    assert consumer.neurons == tuple(c // 16 for c in range(800))


def test_concatenation_shifts_columns():
    class Cat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 7, 1)
            self.c = nn.Conv2d(12, 4, 1)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            x = torch.cat([self.a(x), self.b(x)], 1)
            return self.head(F.relu(self.c(F.relu(x))).mean((2, 3)))

    groups = by_id(snnprune.trace(Cat(), X))
    assert groups["a"].consumers[0].channels == tuple(range(5))
    assert groups["b"].consumers[0].channels == tuple(range(5, 12))


@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_option_a_streams_are_shifted_and_padding_is_kept(name):
    """The channels of a stage lie in the middle of the next; what is padded stays, and is named."""
    _, model, x = make_network(name)
    stream = by_id(snnprune.trace(model, x))["conv1"]
    assert stream.prunable
    assert stream.size == 16
    assert "48 more channels" in stream.note
    assert "padding" in stream.note
    channels = {m.module: m.channels for m in stream.producers}
    assert channels["conv1"] == tuple(range(16))
    assert channels["layer2.0.conv2"] == tuple(range(8, 24))
    assert channels["layer3.0.conv2"] == tuple(range(24, 40))
    inner = by_id(snnprune.trace(model, x))
    assert all(inner[f"layer{s}.0.conv1"].prunable for s in (1, 2, 3))


def shuffle(x):
    """Channel shuffle as ShuffleNet writes it: the width is read off the tensor."""
    return x.view(len(x), 2, x.shape[1] // 2, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


@pytest.mark.parametrize(
    ("middle", "why"),
    [
        (Lambda(lambda x: F.softmax(x, 1)), "softmax reads across"),
        (Lambda(lambda x: F.normalize(x, dim=1)), "norm reads across"),
        (Lambda(lambda x: x - x.mean(1, keepdim=True)), "mean reads across"),
        (Lambda(lambda x: x.cumsum(1)), "cumsum reads across"),
        (Lambda(lambda x: F.layer_norm(x, x.shape[1:])), "layer norm reads across"),
        (
            Lambda(lambda x: x * (x.flatten(2).transpose(1, 2) @ x.flatten(2)).mean((1, 2))[:, None, None, None]),
            "product",
        ),
        (Lambda(lambda x: torch.cat(x.split([3, 5], 1)[::-1], 1)), "split by a constant"),
        (Lambda(lambda x: torch.cat(x.split(4, 1)[::-1], 1)), "split by a constant"),
        (
            Lambda(lambda x: x.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8)),
            "constant in the code",
        ),
        (Lambda(lambda x: x[:, [1, 0, 2, 3, 4, 5, 6, 7]]), "picked by their position"),
        (Lambda(lambda x: torch.cat([2 * x[:, :4], x[:, 4:]], 1)), "picked by their position"),
        (Lambda(lambda x: x * torch.arange(8.0).view(8, 1, 1).to(x)), "constant in the code"),
        (Lambda(lambda x: F.conv2d(x, torch.ones(8, 8, 1, 1).to(x))), "where no gate can sit"),
        (Lambda(lambda x: torch.linalg.pinv(x)), "no rule for the operation linalg_pinv"),
    ],
)
def test_what_reads_across_channels_is_kept_with_a_reason(middle, why):
    model = Tower(middle)
    groups = snnprune.trace(model, X)
    conv = by_id(groups)["conv"]
    assert not conv.prunable
    assert why in str(conv.reason)
    assert by_id(groups)["last"].prunable, "groups elsewhere must not suffer"
    scales = random_scales(groups, torch.Generator().manual_seed(1))
    assert removal_difference(model.double().eval(), groups, scales, X.double()).exact


class Gate(nn.Module):
    """Spatial attention: one map for all channels."""

    def __init__(self, *, expand: bool) -> None:
        super().__init__()
        self.map, self.expand = nn.Conv2d(8, 1, 1), expand

    def forward(self, x):
        gate = torch.sigmoid(self.map(x))
        return x * (gate.expand_as(x) if self.expand else gate)


@pytest.mark.parametrize(
    ("middle", "size"),
    [
        (nn.GroupNorm(2, 8), 2),
        (nn.GroupNorm(8, 8), 8),
        (nn.Conv2d(8, 8, 3, padding=1, groups=2), 2),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), 8),
        (nn.ConvTranspose2d(8, 8, 3, padding=1, groups=4), 4),
        (nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, groups=4), nn.Conv2d(16, 8, 1, groups=2)), 2),
        (Lambda(shuffle), 4),
        (Lambda(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)), 4),
        (Lambda(lambda x: torch.cat(x.split(x.shape[1] // 4, 1)[::-1], 1)), 2),
        (Lambda(lambda x: x.flip(1)), 8),
        (Lambda(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))), 8),
        (Lambda(lambda x: torch.stack([x, 2 * x], 2).sum(2)), 8),
        (Lambda(lambda x: torch.einsum("nchw->nhwc", x).permute(0, 3, 1, 2)), 8),
        (Lambda(lambda x: F.interpolate(x, scale_factor=2.0)), 8),
        (Lambda(lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")), 8),
        (Gate(expand=False), 8),
        (Gate(expand=True), 8),
        (Lambda(lambda x: F.group_norm(x, x.shape[1] // 4)), 2),
        (Lambda(lambda x: torch.cat([x, torch.zeros(0)], 1)), 8),
    ],
)
def test_groups_are_as_fine_as_the_code_allows(middle, size):
    model = Tower(middle)
    groups = snnprune.trace(model, X)
    conv = by_id(groups)["conv"]
    assert conv.prunable, conv.reason
    assert conv.size == size
    for seed in range(3):
        scales = random_scales(groups, torch.Generator().manual_seed(seed))
        assert removal_difference(model.double().eval(), groups, scales, X.double()).exact


@pytest.mark.parametrize("factor", [Lambda(lambda x: F.pixel_shuffle(x, 2)), nn.PixelShuffle(2)])
def test_pixel_shuffle_loses_whole_blocks(factor):
    model = Tower(factor, out=2)
    conv = by_id(snnprune.trace(model, X))["conv"]
    assert conv.prunable
    assert conv.size == 2


class Scaled(nn.Module):
    """A parameter, a buffer and a shared parameter outside any layer, all per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.register_buffer("shift", torch.rand(1, 8, 1, 1))
        self.single = nn.Parameter(torch.rand(1))

    def forward(self, x):
        return x * self.scale + self.shift + self.single


def test_parameters_outside_layers_are_cut_along():
    model = Tower(Scaled())
    conv = by_id(snnprune.trace(model, X))["conv"]
    assert conv.prunable
    slices = {(m.module, m.dim) for m in conv.members if m.role == "parameter"}
    assert slices == {("middle.scale", 0), ("middle.shift", 1)}
    with snnprune.attach(model, X, switcher=None) as gated:
        gated.set_scales({"conv": torch.tensor([1.0, 0, 1, 0, 1, 1, 1, 1])})
        small = gated.compact()
    assert small.middle.scale.shape == (6, 1, 1)
    assert small.middle.shift.shape == (1, 6, 1, 1)
    assert torch.equal(small.middle.scale.flatten(), model.middle.scale.flatten()[[0, 2, 4, 5, 6, 7]])


@pytest.mark.parametrize(
    "middle",
    [nn.PReLU(8), nn.PReLU(), nn.InstanceNorm2d(8, affine=True), nn.BatchNorm2d(8, affine=False), nn.SiLU()],
)
def test_per_channel_layers_are_exact(middle):
    model = Tower(middle)
    groups = snnprune.trace(model, X)
    assert by_id(groups)["conv"].prunable
    scales = random_scales(groups, torch.Generator().manual_seed(1))
    assert removal_difference(model.double().eval(), groups, scales, X.double()).exact


def test_keep_protects_by_name():
    _, model, x = make_network("lenet5_caffe")
    groups = by_id(find_groups(model, x, keep=["conv*"]))
    assert "request" in str(groups["conv1"].reason)
    assert "request" in str(groups["conv2"].reason)
    assert groups["fc1"].prunable


def test_a_pattern_that_keeps_nothing_is_refused():
    _, model, x = make_network("lenet5_caffe")
    with pytest.raises(ConfigError, match="'covn1'"):
        find_groups(model, x, keep=["covn1"])


def test_frozen_layers_are_seen():
    _, model, x = make_network("resnet20")
    model.requires_grad_(False)
    assert len([g for g in find_groups(model, x) if g.prunable]) == 11


def test_nothing_prunable_is_an_error_that_says_why():
    with pytest.raises(UnsupportedModelError, match="output of the model"):
        snnprune.trace(nn.Sequential(nn.Conv2d(3, 4, 3)), X)


def test_a_model_that_does_not_run_is_an_error():
    with pytest.raises(UnsupportedModelError, match="does not run"):
        snnprune.trace(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)), X)


def test_a_hard_coded_view_takes_another_number():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.mid, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(512, 16), nn.Linear(16, 4)

        def forward(self, x):
            return self.head(F.relu(self.mid(self.conv(x).view(-1, 512))))

    groups = by_id(snnprune.trace(Fixed(), X))
    assert groups["conv"].prunable
    assert groups["conv"].size == 8
    assert groups["mid"].prunable
