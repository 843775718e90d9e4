"""Parts of attention that go by themselves: heads of unequal parts, values of one head."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from own_numbers.conftest import Around, cut


class Unequal(nn.Module):
    """Queries and keys of half the width of the values, in one convolution (YOLO 11, LeViT)."""

    def __init__(self, dim: int = 24, heads: int = 6) -> None:
        super().__init__()
        self.heads, self.value = heads, dim // heads
        self.key = self.value // 2
        self.qkv = nn.Conv2d(dim, heads * (2 * self.key + self.value), 1)
        self.proj = nn.Conv2d(dim, dim, 1)
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x):
        B, C, H, W = x.shape
        q, k, v = (
            self.qkv(x)
            .view(B, self.heads, 2 * self.key + self.value, H * W)
            .split([self.key, self.key, self.value], dim=2)
        )
        a = (q.transpose(-2, -1) @ k * self.key**-0.5).softmax(-1)
        x = (v @ a.transpose(-2, -1)).view(B, C, H, W) + self.local(v.reshape(B, C, H, W))
        return self.proj(x)


class Tokens(nn.Module):
    """The same over tokens, with constants in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 6
        self.qkv, self.proj = nn.Linear(24, 6 * 8), nn.Linear(24, 24)

    def forward(self, x):
        b, _, h, w = x.shape
        q, k, v = self.qkv(x.flatten(2).mT).view(b, h * w, self.num_heads, -1).split([2, 2, 4], dim=3)
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
        out = ((q @ k / 2).softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.proj(out).mT.unflatten(2, (h, w))


class Norm(Unequal):
    """The same cut by slices."""

    def forward(self, x):
        B, _, H, W = x.shape
        qkv = self.qkv(x).view(B, self.heads, 2 * self.key + self.value, H * W)
        q, k, v = qkv[:, :, : self.key], qkv[:, :, self.key : 2 * self.key], qkv[:, :, 2 * self.key :]
        a = (q.transpose(-2, -1) @ k).softmax(-1)
        return self.proj((v @ a.transpose(-2, -1)).reshape(B, -1, H, W))


@pytest.mark.parametrize("kind", [Unequal, Tokens, Norm])
def test_heads_with_unequal_parts_go(kind, tmp_path):
    groups, small = cut(lambda: Around(kind(), 24), tmp_path, 2, 3, 6, 6)
    assert groups["middle.qkv"].size == 6
    assert small.middle.proj.in_channels == 16 if kind is not Tokens else small.middle.proj.in_features == 16


class OneHead(nn.Module):
    """A non-local block."""

    def __init__(self, c: int = 12) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        b, _, h, w = x.shape
        q, k, v = (f(x).flatten(2) for f in (self.q, self.k, self.v))
        a = (q.transpose(1, 2) @ k / 5).softmax(-1)
        return x + self.o((v @ a.transpose(1, 2)).view(b, -1, h, w))


class Shaped(OneHead):
    """The same with the width of the stream in its views (SAGAN)."""

    def forward(self, x):
        b, c, h, w = x.size()
        q, k, v = self.q(x).view(b, c, h * w), self.k(x).view(b, -1, h * w), self.v(x).view(b, c, h * w)
        a = torch.bmm(q.permute(0, 2, 1), k).softmax(-1)
        return x + self.o(torch.bmm(v, a.permute(0, 2, 1)).view(b, c, h, w))


class Staged(nn.Module):
    """Attention with a number of heads that is one here (SegFormer's first stage)."""

    def __init__(self, c: int = 12) -> None:
        super().__init__()
        self.num_heads, self.head_size, self.all_head_size = 1, c, c
        self.q, self.k, self.v, self.o = (nn.Linear(c, c) for _ in range(4))

    def apart(self, x):
        return x.view(*x.shape[:-1], self.num_heads, self.head_size).transpose(1, 2)

    def forward(self, x):
        b, c, h, w = x.shape
        x = x.flatten(2).mT
        q, k, v = self.apart(self.q(x)), self.apart(self.k(x)), self.apart(self.v(x))
        y = ((q @ k.mT / self.head_size**0.5).softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
        y = y.view(y.size()[:-2] + (self.all_head_size,))  # noqa: RUF005  (as SegFormer writes it)
        return (x + self.o(y)).mT.view(b, c, h, w)


@pytest.mark.parametrize("kind", [OneHead, Shaped, Staged])
def test_values_of_one_head_go_by_channels(kind, tmp_path):
    groups, small = cut(lambda: Around(kind(), 12), tmp_path, 2, 3, 6, 6)
    assert groups["middle.v"].size == 12
    assert groups["middle.v"].prunable
    assert "product of activations reads across" in str(groups["middle.q"].reason)
    assert small.middle.o.weight.shape[1] == 8


class Biased(nn.Module):
    """Biases per head that are computed once for evaluation, as timm's LeViT does, and parts of unequal width."""

    def __init__(self, dim: int = 24, heads: int = 6) -> None:
        super().__init__()
        self.num_heads, self.key_dim, self.val_dim, self.val_attn_dim = heads, 2, 4, 4 * heads
        self.qkv, self.proj = nn.Linear(dim, heads * 8), nn.Linear(4 * heads, dim)
        self.biases = nn.Parameter(torch.randn(heads, 36))
        self.register_buffer("places", torch.arange(36 * 36).view(36, 36) % 36, persistent=False)
        self.cache = {}

    def train(self, mode=True):
        super().train(mode)
        if mode:
            self.cache = {}
        return self

    def bias(self):
        if self.training:
            return self.biases[:, self.places]
        if "bias" not in self.cache:
            self.cache["bias"] = self.biases[:, self.places]
        return self.cache["bias"]

    def forward(self, x):
        b, _, h, w = x.shape
        qkv = self.qkv(x.flatten(2).mT).view(b, h * w, self.num_heads, -1)
        q, k, v = qkv.split([self.key_dim, self.key_dim, self.val_dim], dim=3)
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
        y = ((q @ k + self.bias()).softmax(-1) @ v).transpose(1, 2).reshape(b, h * w, self.val_attn_dim)
        return self.proj(y).mT.reshape(x.shape)


def test_what_was_computed_for_evaluation_is_computed_anew(tmp_path):
    groups, small = cut(lambda: Around(Biased(), 24), tmp_path, 2, 3, 6, 6)
    assert groups["middle.qkv"].size == 6
    assert (small.middle.num_heads, small.middle.val_attn_dim, len(small.middle.biases)) == (4, 16, 4)
    assert (small.middle.key_dim, small.middle.val_dim) == (2, 4)
