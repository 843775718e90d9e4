"""Results that are written into another tensor, and empty tensors that are joined to others."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from followed.conftest import Code, X, cut, kept_on_disk
from snnprune.graph import find_groups

ROWS = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
LONG = ROWS.view(1, 1, 8, 1)


def by_id(function, width=16, **tensors):
    model = Code(function, width, **tensors).double().eval()
    return {g.id: g for g in find_groups(model, X, input_neurons=False)}


def zeros(x, *shape):
    return torch.zeros(*(x.shape[d] if n is None else n for d, n in enumerate(shape)), dtype=x.dtype)


def upsampled(n, x):
    """Inverse wavelets write the four parts of a larger image."""
    y = n.a(x)
    out = zeros(y, None, None, 16, 16)
    out[:, :, 0::2, 0::2] = y
    out[:, :, 1::2, 1::2] = n.b(x).tanh()
    return out


@pytest.mark.parametrize(
    ("function", "producers"),
    [
        (lambda n, x: zeros(n.a(x), *[None] * 4).index_add_(2, ROWS, n.a(x)), {"a"}),
        (lambda n, x: n.a(x).index_add(2, ROWS, n.b(x), alpha=0.5), {"a", "b"}),
        (lambda n, x: n.a(x).index_copy(3, ROWS[:4], n.b(x)[..., :4]), {"a", "b"}),
        (lambda n, x: n.a(x).index_fill(3, ROWS[:4], 0.5), {"a"}),
        (lambda n, x: n.a(x).scatter_add(2, LONG.expand_as(n.a(x)), n.b(x)), {"a", "b"}),
        (lambda n, x: n.a(x).scatter(2, LONG.expand_as(n.a(x)), n.b(x)), {"a", "b"}),
        (
            lambda n, x: n.a(x).scatter_reduce(2, LONG.expand_as(n.a(x)), n.b(x), "amax"),
            {"a", "b"},
        ),
        (lambda n, x: torch.slice_scatter(n.a(x), n.b(x)[:, :, :2], 2, 0, 8, 4), {"a", "b"}),
        (lambda n, x: torch.select_scatter(n.a(x), n.b(x)[:, :, 1], 2, 3), {"a", "b"}),
        (upsampled, {"a", "b"}),
    ],
)
def test_what_is_written_along_other_dimensions_stays_what_it_is(function, producers):
    group = cut(Code(function))["a"]
    assert (group.prunable, group.size) == (True, 16)
    assert {m.module for m in group.producers} == producers


def fixed(batch):
    return torch.arange(16 * 64, dtype=torch.float64).view(1, 16, 8, 8).repeat(batch, 1, 1, 1)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda n, x: n.a(x).index_add(1, torch.arange(16).flip(0), n.b(x)), "to places along its channels"),
        (lambda n, x: fixed(len(x)).index_add(2, ROWS, n.a(x)), "constant in the code"),
        (lambda n, x: n.a(x).scatter_add(2, n.b(x).argmax(2, keepdim=True).expand_as(n.a(x)), n.a(x)), None),
    ],
)
def test_what_is_written_by_channel_or_into_a_fixed_tensor_says_why(function, why):
    groups = by_id(function)
    if why is None:
        assert "writes to places that are computed from it" in groups["b"].reason
    else:
        assert why in groups["a"].reason


@pytest.mark.parametrize("size", [16, 20])
def test_a_tensor_of_a_fixed_size_keeps_what_is_written_into_it(size):
    def write(n, x):
        y = F.pad(n.a(x), (0, 0, 0, 0, 0, size - 16))
        return torch.zeros(len(x), size, 8, 8).to(x).index_add_(2, ROWS, y)

    assert not {g.id: g for g in snnprune.trace(Code(write, size), X.float())}["a"].prunable


class Cached(nn.Module):
    """Attention over a cache of keys and values that begins empty, as decoders have one."""

    def __init__(self, empty: str) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.empty = 4, 8, empty
        self.q, self.k, self.v, self.o = (nn.Linear(16, 32) for _ in range(3)), None, None, nn.Linear(32, 16)
        self.q, self.k, self.v = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(16, 32)
        self.up, self.head = nn.Linear(16, 24), nn.Linear(24, 3)

    def start(self, x):
        if self.empty == "flat":
            return torch.tensor([], dtype=x.dtype, device=x.device)
        return x[:, :, :0] if self.empty == "part" else x.new_zeros(*x.shape[:2], 0, x.shape[3])

    def forward(self, x):
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for y in (self.q(x), self.k(x), self.v(x)))
        k, v = torch.cat([self.start(k), k], dim=-2), torch.cat([self.start(v), v], dim=-2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        return self.head(F.gelu(self.up(x)))


@pytest.mark.parametrize("empty", ["flat", "part", "made"])
def test_decoders_begin_with_an_empty_cache(empty, tmp_path):
    x = torch.randn(6, 5, 16, dtype=torch.float64)
    groups = cut(Cached(empty), x)
    heads = groups["q"]
    assert (heads.size, {m.module for m in heads.producers}) == (4, {"q", "k", "v"})
    assert groups["up"].size == 24
    kept_on_disk(lambda: Cached(empty), x.float(), tmp_path, onnx=empty == "flat")


@pytest.mark.parametrize(
    "function",
    [
        lambda n, x: torch.cat([torch.tensor([], dtype=x.dtype), n.a(x), n.b(x)], 2)[:, :, :8],
        lambda n, x: torch.cat([x[:, :0], n.a(x), x.new_zeros(6, 0, 8, 8)[: len(x)]], 1) + n.b(x),
        lambda n, x: torch.cat([torch.empty(len(x), 0, 8, 8, dtype=x.dtype), n.a(x)], 1) + n.b(x),
        lambda n, x: torch.cat([n.a(x)[:, :, :0], n.a(x), n.b(x)[:, :, 8:]], 2) + n.b(x),
        lambda n, x: n.a(x).tensor_split([0], 2)[1] + n.b(x),
    ],
)
def test_empty_tensors_add_nothing(function):
    group = cut(Code(function))["a"]
    assert (group.size, {m.module for m in group.producers}) == (16, {"a", "b"})


def test_an_empty_tensor_of_a_fixed_width_keeps_it():
    model = Code(lambda n, x: torch.cat([x.new_zeros(len(x), 16, 0, 8), n.a(x)], 2))
    assert not {g.id: g for g in snnprune.trace(model, X.float())}["a"].prunable
