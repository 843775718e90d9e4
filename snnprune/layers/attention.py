"""Attention whose number of heads may shrink.

PyTorch's and torchvision's attention modules take it for granted that all heads together are as wide as
the stream, and some use their projections' weights without calling the projection. An *open* module is
the same module (same parameters, buffers and names) under a subclass whose forward takes the number
of heads from the weights at hand and calls its output projection, so that gates can sit there and whole
heads can be cut. Opening and closing only change the class; the function stays the same.

Modules of other classes that keep the number of heads in an attribute (timm's, for one) need no opening:
the attribute follows the heads.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .windows import OpenRelative, OpenWindows

HEAD_COUNTS = ("num_heads", "n_heads", "heads", "nhead", "num_attention_heads")
HEAD_WIDTHS = ("attn_dim", "inner_dim", "all_head_size")
_WIDTHS_OF = {"MultiscaleAttention": ("output_dim",)}  # elsewhere that may be the width of the stream


class OpenMultiheadAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` with any number of heads of the width `head_dim`."""

    @property
    def _qkv_same_embed_dim(self) -> bool:  # type: ignore[override]
        """False keeps `nn.TransformerEncoderLayer` from computing the attention by itself."""
        return False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention.forward`; `is_causal` is a hint, `attn_mask` counts."""
        batched, first = query.dim() == 3, self.batch_first
        weights, biases = self.in_proj_weight, self.in_proj_bias
        if query is key and key is value:
            q, k, v = F.linear(query.contiguous(), weights, biases).chunk(3, -1)
        else:
            parts = (None,) * 3 if biases is None else biases.chunk(3)
            cut = zip((query, key, value), weights.chunk(3), parts, strict=True)
            q, k, v = (F.linear(x.contiguous(), w, b) for x, w, b in cut)
        if not batched:
            q, k, v = (x.unsqueeze(0) for x in (q, k, v))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        q, k, v = (x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for x in (q, k, v))
        mask = _additive(attn_mask, q)
        if mask is not None and mask.dim() == 3:
            mask = mask.unflatten(0, (len(q), -1))
        padding = _additive(key_padding_mask, q)
        if padding is not None:
            padding = padding[:, None, None, :]
            mask = padding if mask is None else mask + padding
        dropout = self.dropout if self.training else 0.0
        attention: Tensor | None = None
        if need_weights:
            logits = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            attention = torch.softmax(logits if mask is None else logits + mask, -1)
            attention = F.dropout(attention, dropout)
            mixed = attention @ v
            attention = attention.mean(1) if average_attn_weights else attention
            attention = attention if batched else attention.squeeze(0)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if not batched:
            return out.squeeze(0), attention
        return out if first else out.transpose(0, 1), attention


def _additive(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """A mask to be added to the logits."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)


@functools.cache
def _open_classes() -> dict[type[nn.Module], type[nn.Module]]:
    """Original class -> open class. torchvision is looked up when first needed."""
    found: dict[type[nn.Module], type[nn.Module]] = {nn.MultiheadAttention: OpenMultiheadAttention}
    with contextlib.suppress(ImportError):
        from torchvision.models import maxvit, swin_transformer
        from torchvision.models.video import swin_transformer as video

        pairs: list[tuple[type[nn.Module], type]] = [
            (swin_transformer.ShiftedWindowAttention, OpenWindows),
            (swin_transformer.ShiftedWindowAttentionV2, OpenWindows),
            (video.ShiftedWindowAttention3d, OpenWindows),
            (maxvit.RelativePositionalMultiHeadAttention, OpenRelative),
        ]
        for original, mixin in pairs:
            found[original] = type(f"Open{original.__name__}", (mixin, original), {"__module__": __name__})
    return found


def __getattr__(name: str) -> Any:
    """The open classes of torchvision's attention by name, for `pickle`."""
    for found in _open_classes().values():
        if found.__name__ == name:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def is_open(module: nn.Module) -> bool:
    """True for a module under one of the open classes."""
    return type(module) in _open_classes().values()


def _openable(module: nn.Module) -> bool:
    if type(module) not in _open_classes():
        return False
    if isinstance(module, nn.MultiheadAttention):
        plain = module.bias_k is None and module.bias_v is None and not module.add_zero_attn
        return plain and module._qkv_same_embed_dim
    return True


def open_(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Open every attention module among `modules` that can be; returns those that changed."""
    changed = []
    for module in modules:
        if _openable(module):
            module.__class__ = _open_classes()[type(module)]
            if isinstance(module, OpenWindows):
                module.head_dim = module.qkv.out_features // (3 * module.num_heads)  # type: ignore[attr-defined]
            changed.append(module)
    return changed


def close_(modules: Iterable[nn.Module]) -> None:
    """Give open modules their original class back. Only for modules that have all their heads."""
    originals = {new: old for old, new in _open_classes().items()}
    module: Any
    for module in modules:
        if type(module) in originals:
            if OpenWindows in type(module).__mro__:
                del module.head_dim
            module.__class__ = originals[type(module)]


def unnest_(model: nn.Module) -> list[nn.TransformerEncoder]:
    """Switch nested tensors off in encoders with open attention; returns those that changed.

    `nn.TransformerEncoder` decides by its first layer alone, and then hands nested tensors to all.
    """
    changed = []
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(is_open(part) for part in module.modules()):
            if module.use_nested_tensor:
                changed.append(module)
            module.use_nested_tensor = False
    return changed


@contextlib.contextmanager
def opened(model: nn.Module) -> Iterator[nn.Module]:
    """The model with all its attention open, for the length of a `with` block."""
    changed = open_(model.modules())
    encoders = unnest_(model)
    try:
        yield model
    finally:
        close_(changed)
        for encoder in encoders:
            encoder.use_nested_tensor = True


def head_count(module: nn.Module) -> int | None:
    """The number of heads that a module has now; None for modules without heads."""
    for name in HEAD_COUNTS:
        value = module.__dict__.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return int(value)
    return None


def set_head_count(module: nn.Module, heads: int) -> None:
    """Make a module's attributes say that it has so many heads."""
    before = head_count(module)
    if not before or before == heads:
        return
    widths = HEAD_WIDTHS + _WIDTHS_OF.get(type(module).__name__, ())
    for name in HEAD_COUNTS + widths:
        value = module.__dict__.get(name)
        if type(value) is int and value % before == 0 and (name in widths or value == before):
            setattr(module, name, value // before * heads)


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Attention as products and a softmax that can be followed and counted, not as one fused operation."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
