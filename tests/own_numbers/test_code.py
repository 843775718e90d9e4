"""Sizes that the code computes itself: its calls take others."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from own_numbers.conftest import cut


class Attention(nn.Module):
    """The width of a head comes from that of the stream, and so does that of what goes out (ViT, TimeSformer)."""

    def __init__(self, dim: int = 24, num_heads: int = 6) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) * self.scale).softmax(-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(B, N, C))


class Reducing(nn.Module):
    """Keys and values of fewer tokens, and a method that takes heads apart (PVT)."""

    def __init__(self, dim: int = 24, heads: int = 6) -> None:
        super().__init__()
        self.dim, self.heads = dim, heads
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def apart(self, x, tokens):
        return x.view(len(x), tokens, self.heads, self.dim // self.heads).transpose(1, 2)

    def forward(self, x):
        b, n, c = x.size()
        kv = self.kv(F.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2))
        k, v = kv.reshape(b, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(self.apart(self.q(x), n), k, v)
        return self.proj(out.transpose(1, 2).contiguous().view(b, n, c))


class Mapped(nn.Module):
    """Attention over maps, whose width is read from the shape at the end (CvT, YOLO)."""

    def __init__(self, dim: int = 24, num_heads: int = 6) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v = (nn.Conv2d(dim, dim, 1) for _ in range(3))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        x = x.transpose(1, 2)[..., None]
        B, C, H, W = x.shape
        hd = C // self.num_heads
        q, k, v = (f(x).view(B, self.num_heads, hd, H * W) for f in (self.q, self.k, self.v))
        out = v @ (q.transpose(-2, -1) @ k / q.size(2) ** 0.5).softmax(-1).transpose(-2, -1)
        return self.proj(out.reshape(B, C, H * W).transpose(1, 2))


class Tokens(nn.Module):
    """A transformer of one block around some attention."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.embed, self.norm, self.attention = nn.Linear(5, 24), nn.LayerNorm(24), attention
        self.mlp = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 18), nn.GELU(), nn.Linear(18, 24))
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.attention(self.norm(x))
        return self.head((x + self.mlp(x)).mean(1))


@pytest.mark.parametrize(("kind", "group"), [(Attention, "qkv"), (Reducing, "kv"), (Mapped, "q")])
def test_heads_go_whose_width_is_computed_from_the_stream(kind, group, tmp_path):
    groups, small = cut(lambda: Tokens(kind()), tmp_path, 2, 8, 5)
    assert groups[f"attention.{group}"].size == 6
    assert len(groups[f"attention.{group}"].heads) == 1
    inner = small.attention
    assert isinstance(inner, kind)
    assert inner.proj.in_features == 16
    assert 4 in (getattr(inner, "num_heads", 0), getattr(inner, "heads", 0))


class Scaled(Attention):
    """The width of a head is computed with as well, so the number of heads has to stay what it was."""

    def forward(self, x):
        B, N, C = x.shape
        width = C // self.num_heads
        q, k, v = (part.view(B, N, self.num_heads, width).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        out = (q @ k.transpose(-2, -1) / width**0.5).softmax(-1) @ v
        return self.proj(out.transpose(1, 2).reshape(B, N, C))


def test_what_is_also_computed_with_stays(tmp_path):
    groups, small = cut(lambda: Tokens(Scaled()), tmp_path, 2, 8, 5)
    assert groups["attention.qkv"].size == 6
    assert small.attention.num_heads == 6
    assert small.attention.proj.in_features == 16


def test_a_cut_network_is_cut_again(tmp_path):
    _, small = cut(lambda: Tokens(Attention()), tmp_path, 2, 8, 5)
    x = torch.randn(2, 8, 5, dtype=torch.float64)
    with snnprune.attach(small, x, switcher=None) as gated, torch.no_grad():
        gated.set_scales({"attention.qkv": torch.tensor([0.0, 1.0, 0.5, 0.0])})
        wanted = gated(x)
        smaller = gated.compact()
    assert smaller.attention.num_heads == 2
    torch.testing.assert_close(smaller(x), wanted, rtol=1e-10, atol=1e-10)
    snnprune.save(smaller, tmp_path / "twice")
    again = snnprune.load(tmp_path / "twice", model=Tokens(Attention()).double())
    assert torch.equal(again(x), smaller(x))


class Constants(nn.Module):
    """The classic tutorial: the width of the flattened map is a number in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.out = nn.Conv2d(3, 9, 3, padding=1), nn.Linear(9 * 4 * 4, 12), nn.Linear(12, 4)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        x = x.view(-1, 9 * 4 * 4)
        return self.out(F.relu(self.fc(x)))


class Unequal(nn.Module):
    """A split by constants, written over several lines."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, 15, 3), nn.Conv2d(9, 4, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        one, two = F.relu(
            self.conv(x),
        ).split(
            [9, 6],
            dim=1,
        )
        return (self.a(one) * self.b(two)).mean((2, 3))


class Private(nn.Module):
    """Names that Python changes within a class, `super()`, defaults and a closure."""

    __side = 3

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.conv = nn.Linear(5, 9 * 9), nn.Conv2d(9, 4, 1)

    def forward(self, x, *, scale: float = 2.0, name: str = "π"):
        assert name == "π" or super().extra_repr()
        y = torch.reshape(self.fc(x), (len(x), 9, self.__side, self.__side)) * scale
        return self.conv(torch.relu(y)).mean((2, 3))


@pytest.mark.parametrize(
    ("kind", "shape", "group", "size"),
    [
        (Constants, (2, 3, 8, 8), "conv", 9),
        (Unequal, (2, 3, 8, 8), "conv", 15),
        (Private, (2, 5), "fc", 9),
    ],
)
def test_constants_in_the_code_become_others(kind, shape, group, size, tmp_path):
    groups, small = cut(kind, tmp_path, *shape)
    assert groups[group].size == size
    assert isinstance(small, kind)
    assert type(small).__name__ == kind.__name__


def test_the_compact_model_exports_and_trains(tmp_path):
    pytest.importorskip("onnxruntime")
    _, small = cut(lambda: Tokens(Attention()), tmp_path, 2, 8, 5)
    small = small.float()
    check = snnprune.export_onnx(small, tmp_path / "small.onnx", example_inputs=torch.randn(2, 8, 5))
    assert check.max_abs_error < 1e-5
    small.train()(torch.randn(2, 8, 5)).sum().backward()
    assert all(p.grad is not None for p in small.parameters())


def test_a_changed_source_is_refused(tmp_path):
    file = tmp_path / "net.py"
    text = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc, self.out = nn.Conv2d(3, 9, 3, padding=1), nn.Linear(9 * 64, 12), nn.Linear(12, 4)

    def forward(self, x):
        return self.out(self.fc(self.conv(x).relu().view(-1, 9 * 64)).relu())
"""
    file.write_text(text)
    made: dict = {"__name__": "net"}
    exec(compile(text, str(file), "exec"), made)
    torch.manual_seed(0)
    model, x = made["Net"](), torch.randn(2, 3, 8, 8)
    with snnprune.attach(model, x, switcher=None) as gated:
        gated.set_scales({"conv": torch.arange(9.0)})
        small = gated.compact()
    snnprune.save(small, tmp_path / "small")
    moved = "# a line above\n" + text
    file.write_text(moved)
    made = {"__name__": "net"}
    exec(compile(moved, str(file), "exec"), made)
    again = snnprune.load(tmp_path / "small", model=made["Net"]())
    torch.testing.assert_close(again(x), small(x))
    other = text.replace("self.conv(x).relu()", "(self.conv(x)).relu()")
    file.write_text(other)
    made = {"__name__": "net"}
    exec(compile(other, str(file), "exec"), made)
    with __import__("pytest").raises(snnprune.errors.StructureError, match="is not the code that was pruned"):
        snnprune.load(tmp_path / "small", model=made["Net"]())
    model = made["Net"]()
    file.unlink()
    reasons = {g.id: g.reason for g in snnprune.trace(model, x)}
    assert "is a constant in the code (view in net.py:11)" in str(reasons["conv"])


class Causal(nn.Module):
    """A transformer's attention as nanoGPT writes it: one split by an attribute, a mask in a buffer."""

    def __init__(self, n_head: int = 6, n_embd: int = 24) -> None:
        super().__init__()
        self.n_head, self.n_embd = n_head, n_embd
        self.c_attn, self.c_proj = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.register_buffer("bias", torch.tril(torch.ones(16, 16)).view(1, 1, 16, 16))

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        att = (q @ k.transpose(-2, -1)) * (1.0 / k.size(-1) ** 0.5)
        att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf")).softmax(-1)
        return self.c_proj((att @ v).transpose(1, 2).contiguous().view(B, T, C))


def test_a_split_by_an_attribute_follows_the_heads(tmp_path):
    groups, small = cut(lambda: Tokens(Causal()), tmp_path, 2, 8, 5)
    assert groups["attention.c_attn"].size == 6
    assert (small.attention.n_head, small.attention.n_embd) == (4, 16)
    assert small.attention.c_attn.out_features == 48
