"""Convolutions and norms that the code computes by itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import ops

from followed.conftest import Code, X, cut, kept_on_disk, parts
from snnprune.graph import find_groups

P = nn.Parameter


def rand(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("buffer", [False, True])
def test_a_kernel_of_every_channel_goes_with_its_channel(seed, buffer):
    """A blur with one kernel a channel, learned or not."""
    kernel = rand(16, 1, 3, 3)
    model = Code(
        lambda n, x: F.conv2d(F.silu(n.a(x)), n.k, n.c, stride=2, padding=1, groups=n.k.shape[0]),
        k=kernel if buffer else P(kernel),
        c=P(rand(16)),
    )
    group = cut(model, seed=seed)["a"]
    assert (group.size, group.macs) == (16, 9 * 16)
    assert parts(group) == {
        ("a", "producer"): 0,
        ("k", "parameter"): 0,
        ("c", "parameter"): 0,
        ("last", "consumer"): 0,
    }


def test_one_kernel_for_all_channels_stays_as_it_is():
    """Blurs with a fixed kernel (Kornia, StyleGAN), repeated or expanded to the number of channels."""
    for spread in (lambda k, c: k.expand(c, 1, 3, 3), lambda k, c: k.repeat(c, 1, 1, 1)):
        model = Code(
            lambda n, x, spread=spread: F.conv2d(n.a(x), spread(n.k, n.a(x).shape[1]), groups=n.a(x).shape[1]),
            k=rand(1, 1, 3, 3),
        )
        group = cut(model)["a"]
        assert (group.size, set(parts(group))) == (16, {("a", "producer"), ("last", "consumer")})


def test_grouped_kernels_lose_whole_groups():
    model = Code(
        lambda n, x: F.conv2d(n.a(x), n.k, n.c, groups=n.k.shape[0] // 6),
        width=24,
        k=P(rand(24, 4, 3, 3)),
        c=P(rand(24)),
    )
    group = cut(model)["a"]
    assert (group.size, len(group.producers[0].channels)) == (4, 16)
    turned = Code(
        lambda n, x: F.conv_transpose2d(n.a(x), n.k, groups=n.k.shape[0] // 4), width=8, k=P(rand(16, 2, 2, 2))
    )
    group = cut(turned)["a"]
    assert (group.size, parts(group)["k", "parameter"]) == (4, 0)


@pytest.mark.parametrize("turned", [False, True])
def test_what_a_kernel_makes_are_neurons_and_what_it_reads_stays(turned):
    function = F.conv_transpose2d if turned else F.conv2d
    shape = (16, 12, 3, 3) if turned else (12, 16, 3, 3)
    model = Code(lambda n, x: F.relu(function(n.a(x), n.k, n.c)), width=12, k=P(rand(*shape)), c=P(rand(12)))
    groups = cut(model)
    assert "where no gate can sit" in groups["a"].reason
    own = groups["k"]
    assert (own.prunable, own.size) == (True, 12)
    assert parts(own) == {("k", "parameter"): int(turned), ("c", "parameter"): 0, ("last", "consumer"): 0}
    assert own.macs == 16 * 9 * (64 if turned else 36), "multiply-adds of one of its neurons, for one input"


def test_a_kernel_that_is_computed_from_a_parameter_has_its_slices():
    """Weight standardisation in the code."""

    def standard(n, x):
        k = (n.k - n.k.mean((1, 2, 3), keepdim=True)) / n.k.std((1, 2, 3), keepdim=True)
        return F.conv2d(n.a(x), k)

    group = cut(Code(standard, width=12, k=P(rand(12, 16, 1, 1))))["k"]
    assert (group.prunable, group.size) == (True, 12)


def test_a_layers_weight_without_its_call():
    model = Code(lambda n, x: F.conv2d(n.a(x), n.m.weight, n.m.bias), width=12, m=nn.Conv2d(16, 12, 3))
    groups = cut(model)
    assert "no gate can sit" in groups["a"].reason
    assert (groups["m"].prunable, groups["m"].size) == (True, 12)


def test_kernels_that_are_activations_keep_what_they_touch():
    model = Code(lambda n, x: F.conv2d(n.a(x), n.b(x)[:, :, :1, :1].mean(0).expand(16, 16, 1, 1) * 1.0))
    model.eval()
    groups = {g.id: g for g in find_groups(model.double(), X)}
    assert "computed from activations" in groups["a"].reason
    assert "computed from activations" in groups["b"].reason


def test_kernels_of_one_channel_each_that_are_activations():
    """Dynamic depthwise convolution: kernel and image of a channel live and die together."""

    def dynamic(n, x):
        y, k = n.a(x), F.adaptive_avg_pool2d(n.b(x), 3)
        return F.conv2d(y.reshape(1, -1, 8, 8), k.reshape(-1, 1, 3, 3), groups=k.shape[0] * k.shape[1]).reshape(
            len(x), -1, 6, 6
        )

    group = cut(Code(dynamic))["a"]
    assert (group.size, {m.module for m in group.producers}) == (16, {"a", "b"})


def test_a_constant_kernel_of_a_fixed_number_of_channels_keeps_them():
    k = rand(16, 1, 3, 3).double()
    groups = {
        g.id: g for g in find_groups(Code(lambda n, x: F.conv2d(n.a(x), k, groups=n.a(x).shape[1])).double(), X)
    }
    assert "constant in the code" in groups["a"].reason


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_in_the_code(training):
    model = Code(
        lambda n, x: F.silu(F.batch_norm(n.a(x), n.m, n.v, n.w, n.c, training=training)),
        m=rand(16),
        v=1 + rand(16) ** 2,
        w=P(rand(16)),
        c=P(rand(16)),
    )
    group = cut(model)["a"]
    assert group.size == 16
    assert set(parts(group)) == {
        ("a", "producer"),
        ("last", "consumer"),
        *((name, "parameter") for name in "mvwc"),
    }


def test_instance_norm_in_the_code():
    model = Code(lambda n, x: F.instance_norm(n.a(x), weight=n.w, bias=n.c), w=P(rand(16)), c=P(rand(16)))
    group = cut(model)["a"]
    assert (group.size, set(parts(group)) > {("w", "parameter"), ("c", "parameter")}) == (16, True)
    assert cut(Code(lambda n, x: F.instance_norm(n.a(x))))["a"].size == 16


def test_a_deformable_kernel_in_the_code():
    model = Code(
        lambda n, x: ops.deform_conv2d(n.a(x), n.off(x), n.k, n.c, padding=1),
        width=12,
        off=nn.Conv2d(3, 18, 3, padding=1),
        k=P(rand(12, 16, 3, 3)),
        c=P(rand(12)),
    )
    groups = cut(model)
    assert "no gate can sit" in groups["a"].reason
    assert "positions are computed" in groups["off"].reason
    assert (groups["k"].prunable, groups["k"].size) == (True, 12)


def test_kernels_of_the_code_are_kept_on_disk(tmp_path):
    def make():
        return Code(
            lambda n, x: F.conv2d(F.conv2d(n.a(x), n.k, padding=1), n.d, n.c, groups=n.d.shape[0]),
            width=12,
            k=P(rand(12, 16, 3, 3)),
            d=rand(12, 1, 3, 3),
            c=P(rand(12)),
        )

    small = kept_on_disk(make, X.float(), tmp_path)
    assert small.k.shape[0] == small.d.shape[0] == small.c.shape[0] == small.last.in_channels < 12
