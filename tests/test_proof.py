"""What the proof must not miss."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from traps import Body, X, by_id

import snnprune
from snnprune.errors import UnsupportedModelError
from snnprune.proof import random_scales, removal_difference


class ByWidth(Body):
    def middle(self, x):
        return x * x.shape[1] ** -0.5


class Masked(ByWidth):
    fill = -1e9

    def end(self, x):
        mask = torch.zeros_like(x, dtype=torch.bool)
        mask[..., 0] = True
        return x.masked_fill(mask, self.fill)


@pytest.mark.parametrize("fill", [0.0, -1e9, -1e12, float("-inf"), -3e38])
def test_constants_in_the_output_hide_nothing(fill):
    model = Masked()
    model.fill = fill
    groups = by_id(model)
    assert not groups["a"].prunable, "its width is read"
    assert groups["b"].prunable


def test_complex_outputs_are_compared():
    class Complex(ByWidth):
        def end(self, x):
            return x.detach()[:, :, 0].sum() * 0, torch.complex(x, x)

    assert not by_id(Complex())["a"].prunable


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    features: torch.Tensor


def test_features_inside_a_dataclass_are_outputs():
    class WithFeatures(Body):
        def end(self, x):
            return x, Output(x, self.kept)

        def middle(self, x):
            self.kept = x
            return x

    groups = by_id(WithFeatures())
    assert "output of the model" in str(groups["a"].reason)


@pytest.mark.parametrize("seed", range(5))
def test_hooks_of_the_users_own_are_followed(seed):
    model = Body()
    model.a.register_forward_hook(lambda _m, _x, out: out.roll(1, 1))
    groups = by_id(model)
    assert not groups["a"].prunable
    flipped = Body()
    flipped.a.register_forward_hook(lambda _m, _x, out: out.flip(1))
    flipped.b.register_forward_pre_hook(lambda _m, args: (args[0] * 2,))
    groups = snnprune.trace(flipped, X)
    assert all(g.prunable for g in groups if g.id in "ab")
    scales = random_scales(groups, torch.Generator().manual_seed(seed))
    assert removal_difference(flipped.double().eval(), groups, scales, X.double()).exact


class Buffered(Body):
    def __init__(self, *, persistent: bool) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.rand(8, 1, 1), persistent=persistent)

    def middle(self, x):
        return x * self.slopes


@pytest.mark.parametrize("persistent", [True, False])
def test_buffers_survive_the_file(persistent, tmp_path):
    torch.manual_seed(0)
    model = Buffered(persistent=persistent)
    groups = by_id(model)
    assert groups["a"].prunable == persistent, "what no file holds cannot be cut"
    with snnprune.attach(model, X, switcher=None) as gated:
        gated.set_scales(random_scales(gated.groups, torch.Generator().manual_seed(0)))
        small = gated.compact().eval()
    snnprune.save(small, tmp_path / "m")
    fresh = Buffered(persistent=persistent)
    if not persistent:
        fresh.slopes.copy_(model.slopes)
    assert torch.equal(snnprune.load(tmp_path / "m", model=fresh)(X), small(X))


def test_a_buffer_as_a_matrix():
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.o = nn.Linear(6, 8), nn.Linear(5, 3)
            self.register_buffer("matrix", torch.randn(8, 5))

        def forward(self, x):
            return self.o(F.relu(self.a(x)) @ self.matrix)

    groups = by_id(Projected(), torch.randn(4, 6))
    assert "matrix are used outside" in str(groups["a"].reason)


@pytest.mark.parametrize("how", ["weight_norm", "spectral_norm"])
def test_parametrized_layers_say_so(how):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1))
    getattr(nn.utils.parametrizations, how)(model[1])
    groups = by_id(model)
    assert "1 is parametrized" in str(groups["0"].reason)
    assert "1 is parametrized" in str(groups["1"].reason)
    assert groups["2"].prunable


def test_what_cannot_be_copied_says_why():
    from torch.nn.utils import prune

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    prune.l1_unstructured(model[0], "weight", 0.3)
    with pytest.raises(UnsupportedModelError, match="cannot be copied"):
        snnprune.trace(model, X)


def test_layers_that_never_run_are_named(caplog):
    class Choice(Body):
        def __init__(self) -> None:
            super().__init__()
            self.big = nn.Conv2d(4, 4, 3)

        def end(self, x):
            return x if x.shape[-1] < 16 else self.big(x)

    with caplog.at_level(logging.WARNING):
        snnprune.trace(Choice(), X)
    assert "such as big" in caplog.text


def test_a_detector_that_finds_nothing_is_proved_all_the_same():
    """An empty output equals every other, so the layers that keep their width are compared."""

    class Silent(ByWidth):
        def end(self, x):
            return x[x.flatten(1).mean(1) > 1e9]

    groups = by_id(Silent())
    assert "removal changes" in str(groups["a"].reason)
    assert groups["b"].prunable
