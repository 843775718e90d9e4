"""Attention: open modules compute what the originals do, and what cannot be opened is kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

import snnprune
from snnprune.layers import attention
from snnprune.proof import relative_difference


def attend(**options) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(24, 4, **options).double()
    if module.in_proj_bias is not None:
        nn.init.normal_(module.in_proj_bias)
    return module


Q, K = torch.randn(3, 7, 24, dtype=torch.float64), torch.randn(3, 7, 24, dtype=torch.float64)
BOOLEAN = torch.rand(7, 7, generator=torch.Generator().manual_seed(0)) > 0.7
BOOLEAN.fill_diagonal_(False)
PADDING = torch.zeros(3, 7, dtype=torch.bool)
PADDING[:, 5:] = True


@pytest.mark.parametrize("options", [{"batch_first": True}, {}, {"batch_first": True, "bias": False}])
@pytest.mark.parametrize(
    "call",
    [
        {},
        {"need_weights": False},
        {"average_attn_weights": False},
        {"attn_mask": BOOLEAN},
        {"attn_mask": BOOLEAN.double() * -3, "need_weights": False},
        {"attn_mask": BOOLEAN.expand(12, 7, 7), "need_weights": False},
        {"key_padding_mask": PADDING, "need_weights": False},
        {"key_padding_mask": PADDING, "attn_mask": BOOLEAN},
    ],
    ids=str,
)
@pytest.mark.parametrize("inputs", [(Q, Q, Q), (Q, K, K), (Q, K, Q)], ids=["self", "cross", "mixed"])
def test_open_multihead_attention_is_the_same_function(options, call, inputs):
    module = attend(**options)
    if not options.get("batch_first"):
        inputs = tuple(x.transpose(0, 1) for x in inputs)
    expected = module(*inputs, **call)
    with attention.opened(module):
        assert attention.is_open(module)
        found = module(*inputs, **call)
    assert not attention.is_open(module)
    assert relative_difference(expected[0], found[0]) < 1e-12
    assert (expected[1] is None) == (found[1] is None)
    if expected[1] is not None:
        assert relative_difference(expected[1], found[1]) < 1e-12


def test_open_multihead_attention_without_a_batch():
    module = attend()
    expected = module(Q[0], K[0], K[0])
    with attention.opened(module):
        found = module(Q[0], K[0], K[0])
    assert relative_difference(expected, found) < 1e-12


def assert_open_is_the_same(module: nn.Module, x: torch.Tensor) -> None:
    """With weights large enough for the attention to be uneven."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    expected = module(x)
    with attention.opened(module):
        assert relative_difference(expected, module(x)) < 1e-12


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (4, 4), (3, 8), (4, 9)])
@pytest.mark.parametrize("shift", [[0, 0], [2, 2], [2, 0]])
@pytest.mark.parametrize("kind", [ShiftedWindowAttention, ShiftedWindowAttentionV2])
@pytest.mark.parametrize("bias", [True, False])
def test_open_windows_are_the_same_function(kind, shift, size, bias):
    torch.manual_seed(0)
    module = kind(24, [4, 4], shift, 3, qkv_bias=bias).double()
    x = torch.randn(2, *size, 24, dtype=torch.float64)
    assert_open_is_the_same(module, x)


@pytest.mark.parametrize("size", [(4, 8, 8), (3, 7, 9), (2, 4, 4), (8, 3, 8)])
@pytest.mark.parametrize("shift", [[0, 0, 0], [2, 2, 2], [0, 1, 2]])
def test_open_windows_over_video_are_the_same_function(shift, size):
    torch.manual_seed(0)
    module = ShiftedWindowAttention3d(24, [4, 4, 4], shift, 3).double()
    x = torch.randn(2, *size, 24, dtype=torch.float64)
    assert_open_is_the_same(module, x)


def test_open_relative_attention_is_the_same_function():
    module = RelativePositionalMultiHeadAttention(24, 8, 16).double()
    x = torch.randn(2, 5, 16, 24, dtype=torch.float64)
    assert_open_is_the_same(module, x)


def test_attention_that_cannot_be_opened_is_kept():
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.MultiheadAttention(12, 3, add_bias_kv=True, batch_first=True)
            self.x, self.o, self.p = nn.Linear(12, 12), nn.Linear(12, 8), nn.Linear(8, 3)

        def forward(self, x):
            x = self.x(x)
            return self.p(torch.relu(self.o(self.a(x, x, x)[0])).mean(1))

    groups = {g.id: g for g in snnprune.trace(Cross(), torch.randn(2, 5, 12))}
    assert "MultiheadAttention (a)" in str(groups["x"].reason)
    assert groups["o"].prunable
    assert not any(g.heads for g in groups.values())
