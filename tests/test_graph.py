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
from snnprune.surgery import random_scales, removal_difference


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
    assert "padded" in stream.note or "pads" in stream.note
    channels = {m.module: m.channels for m in stream.producers}
    assert channels["conv1"] == tuple(range(16))
    assert channels["layer2.0.conv2"] == tuple(range(8, 24))
    assert channels["layer3.0.conv2"] == tuple(range(24, 40))
    inner = by_id(snnprune.trace(model, x))
    assert all(inner[f"layer{s}.0.conv1"].prunable for s in (1, 2, 3))


@pytest.mark.parametrize(
    ("middle", "why"),
    [
        (nn.GroupNorm(2, 8), "group norm"),
        (nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2)), "grouped convolution"),
        (Lambda(lambda x: F.softmax(x, 1)), "removal changes the output"),
        (Lambda(lambda x: F.normalize(x, dim=1)), "expanded"),
        (Lambda(lambda x: x - x.mean(1, keepdim=True)), "removal changes the output"),
        (Lambda(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)), ""),
        (Lambda(lambda x: x.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8)), ""),
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


def test_hard_coded_view_is_refused_not_broken():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.mid, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(512, 16), nn.Linear(16, 4)

        def forward(self, x):
            return self.head(F.relu(self.mid(self.conv(x).view(-1, 512))))

    groups = by_id(snnprune.trace(Fixed(), X))
    assert not groups["conv"].prunable
    assert groups["mid"].prunable
