"""The feature extractor of one weight tensor, which needs little more memory than the tensor's gradient.

The extractor is linear in the weights, so its gradient needs nothing but the weights themselves: the
sorted, padded patches are made again in the backward pass instead of being kept for every layer until then,
and for some rows at a time.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .sources import Source, root

_PIECE = {"cpu": 2**20}  # weights that are read at once; a processor's cache holds them
_LARGEST = 2**24  # elsewhere, so that no large layer is there several times over


class Extractor(nn.Module):
    """A strided convolution over each neuron's weights (arXiv 2110.05954, section 3.3.2).

    Args:
        source: the weight tensor and how it is cut into a row per neuron.
        channels: of the features.
        width: positions of the features.
        sort: the columns by their norm first, so that the order of the neighbouring layer's neurons is forgotten.
    """

    def __init__(self, source: Source, channels: int, width: int, *, sort: bool) -> None:
        super().__init__()
        self.source, self.width, self.sort = source, width, sort
        self.kernel = max(1, math.ceil(source.length / width))
        self.weight = nn.Parameter(torch.randn(self.kernel, channels) / math.sqrt(self.kernel))

    def forward(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Features (neurons, width x channels) and the mean square of each neuron's weights (neurons,).

        Both are relative to the (detached) root mean square of the whole tensor. Without that the switcher
        sees values around 0.03, answers with its bias, and gives every neuron of a layer the same scale.
        """
        return _Extract.apply(self.source.weight(model), self.weight, self, model)  # type: ignore[return-value]

    def order(self, rows: Tensor) -> Tensor | None:
        """Columns from the strongest to the weakest, in units of weights that belong together."""
        unit = self.source.unit
        units = rows.shape[1] // unit
        if not self.sort or units < 2 or rows.shape[1] % unit:
            return None
        norms = torch.linalg.vector_norm(rows, dim=0)
        if unit > 1:
            norms = torch.linalg.vector_norm(norms.view(units, unit), dim=1)
        return norms.argsort(descending=True)

    def patches(self, rows: Tensor, order: Tensor | None) -> Tensor:
        """Sorted rows, padded with zeros and cut: (neurons x width, kernel)."""
        if order is not None:
            rows = rows.view(len(rows), len(order), -1).index_select(1, order).flatten(1)
        return F.pad(rows, (0, self.kernel * self.width - rows.shape[1])).view(-1, self.kernel)

    def rows_gradient(self, gradient: Tensor, order: Tensor | None, length: int) -> Tensor:
        """The transpose of `patches`."""
        gradient = gradient.view(-1, self.kernel * self.width)[:, :length]
        if order is None:
            return gradient
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return gradient.reshape(len(gradient), len(order), -1).index_select(1, back).flatten(1)


class _Extract(torch.autograd.Function):
    """Extractor.forward, which keeps the weights alone for its backward pass."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, kernel: Tensor, extractor: Extractor, model: nn.Module
    ) -> tuple[Tensor, Tensor]:
        rows = extractor.source.cut(weight, model).float()
        order = extractor.order(rows)
        strength = rows.new_empty(len(rows))
        features = rows.new_empty(len(rows), extractor.width * kernel.shape[1])
        for some in pieces(rows):
            part = rows[some].contiguous()
            strength[some] = torch.linalg.vector_norm(part, dim=1).square()
            features[some] = (extractor.patches(part, order) @ kernel).view(len(part), -1)
        scale = root(strength.sum() / rows.numel())
        ctx.save_for_backward(weight, kernel, order, scale)
        ctx.extractor, ctx.model = extractor, model
        return features.div_(scale), strength / rows.shape[1] / scale.square()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        weight, kernel, order, scale = ctx.saved_tensors
        extractor: Extractor = ctx.extractor
        of_features, of_energy = gradients
        of_features = of_features / scale
        with torch.enable_grad():
            leaf = weight.detach().requires_grad_(ctx.needs_input_grad[0])
            cut = extractor.source.cut(leaf, ctx.model)
        rows = cut.detach().float()
        factor = (of_energy * (2 / rows.shape[1]) / scale.square())[:, None]
        of_kernel = torch.zeros_like(kernel) if ctx.needs_input_grad[1] else None
        of_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        for some in pieces(rows):
            part, of_part = rows[some].contiguous(), of_features[some].reshape(-1, kernel.shape[1])
            if of_kernel is not None:
                of_kernel.addmm_(extractor.patches(part, order).t(), of_part)
            if of_rows is not None:
                moved = extractor.rows_gradient(of_part @ kernel.t(), order, rows.shape[1])
                of_rows[some] = torch.addcmul(moved, part, factor[some])
        of_weight = None
        if of_rows is not None:
            (of_weight,) = torch.autograd.grad(cut, leaf, of_rows.to(cut.dtype))
        return of_weight, of_kernel, None, None


def pieces(rows: Tensor) -> list[slice]:
    """Rows that are read at once: a large layer is copied, sorted and padded piece by piece."""
    step = max(1, _PIECE.get(rows.device.type, _LARGEST) // max(1, rows.shape[1]))
    return [slice(first, first + step) for first in range(0, len(rows), step)]
