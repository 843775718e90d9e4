"""Forwards of torchvision's windowed attention that take the number of heads from the weights at hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F


class OpenWindows:
    """Shifted-window attention over images (versions 1 and 2) and video.

    arXiv 2103.14030, 2111.09883 and 2106.13230.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *sizes, channels) with two or three sizes -> the same shape."""
        me = cast(Any, self)
        sizes, window, shift = tuple(x.shape[1:-1]), tuple(me.window_size), tuple(me.shift_size)
        if len(sizes) == 3:  # video: a window never exceeds the clip
            window = tuple(map(min, sizes, window))
            bias = me.get_relative_position_bias(list(window))
        else:
            bias = me.get_relative_position_bias()
        x = F.pad(
            x, (0, 0, *(n for size, w in zip(sizes[::-1], window[::-1], strict=True) for n in (0, -size % w)))
        )
        padded = tuple(x.shape[1:-1])
        # One window needs no shift.
        shift = tuple(0 if w >= size else s for size, w, s in zip(padded, window, shift, strict=True))
        dims = tuple(range(1, 1 + len(padded)))
        if any(shift):
            x = x.roll(tuple(-s for s in shift), dims)
        x = _partition(x, window)
        q, k, v = _qkv(me, x).chunk(3, -1)
        q, k, v = (y.unflatten(-1, (-1, me.head_dim)).transpose(1, 2) for y in (q, k, v))
        if hasattr(me, "logit_scale"):
            logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
            logits = logits * me.logit_scale.clamp(max=math.log(100.0)).exp()
        else:
            logits = (q * me.head_dim**-0.5) @ k.transpose(-2, -1)
        logits = logits + bias
        if any(shift):
            mask = _mask(padded, window, shift, like=logits)
            logits = (logits.unflatten(0, (-1, len(mask))) + mask[None, :, None]).flatten(0, 1)
        attention = F.dropout(logits.softmax(-1), me.attention_dropout, me.training)
        x = F.dropout(me.proj((attention @ v).transpose(1, 2).flatten(2)), me.dropout, me.training)
        x = _join(x, padded, window)
        if any(shift):
            x = x.roll(shift, dims)
        return x[(slice(None), *(slice(size) for size in sizes))].contiguous()


class OpenRelative:
    """MaxViT's attention (arXiv 2204.01697)."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, groups, tokens, channels) -> the same shape."""
        me = cast(Any, self)
        q, k, v = me.to_qkv(x).chunk(3, -1)
        q, k, v = (y.unflatten(-1, (-1, me.head_dim)).transpose(2, 3) for y in (q, k, v))
        logits = q @ (k * me.scale_factor).transpose(-2, -1) + me.get_relative_positional_bias()
        return me.merge((logits.softmax(-1) @ v).transpose(2, 3).flatten(3))


def _partition(x: Tensor, window: Sequence[int]) -> Tensor:
    """(batch, *sizes, channels) -> (batch * windows, tokens, channels)."""
    n = len(window)
    for dim in range(n, 0, -1):
        x = x.unflatten(dim, (x.shape[dim] // window[dim - 1], window[dim - 1]))
    x = x.permute(0, *range(1, 2 * n + 1, 2), *range(2, 2 * n + 1, 2), 2 * n + 1)
    return x.flatten(n + 1, 2 * n).flatten(0, n)


def _join(x: Tensor, sizes: Sequence[int], window: Sequence[int]) -> Tensor:
    """(batch * windows, tokens, channels) -> (batch, *sizes, channels)."""
    n = len(window)
    x = x.unflatten(1, tuple(window)).unflatten(0, (-1, *(s // w for s, w in zip(sizes, window, strict=True))))
    x = x.permute(0, *(d for i in range(1, n + 1) for d in (i, n + i)), 2 * n + 1)
    for dim in range(1, n + 1):
        x = x.flatten(dim, dim + 1)
    return x


def _qkv(module: Any, x: Tensor) -> Tensor:
    """Queries, keys and values; version 2 has no bias on the keys."""
    if not hasattr(module, "logit_scale") or module.qkv.bias is None:
        return module.qkv(x)
    q, _, v = module.qkv.bias.chunk(3)
    return F.linear(x, module.qkv.weight, torch.cat([q, torch.zeros_like(q), v]))


def _mask(sizes: Sequence[int], window: Sequence[int], shift: Sequence[int], *, like: Tensor) -> Tensor:
    """-100 between tokens of a window that were not neighbours before the shift: (windows, tokens, tokens)."""
    area = torch.zeros(tuple(sizes), dtype=torch.long, device=like.device)
    for dim, (size, side, step) in enumerate(zip(sizes, window, shift, strict=True)):
        at = torch.arange(size, device=like.device)
        band = (at >= size - side).long() + (at >= size - step).long() if step else torch.zeros_like(at)
        area = 3 * area + band.reshape(-1, *(1 for _ in sizes[dim + 1 :]))
    tokens = _partition(area[None, ..., None], window).squeeze(-1)
    return (tokens[:, None, :] != tokens[:, :, None]).to(like.dtype) * -100.0
