"""The switcher of single connections: a weight matrix in, a matrix of values of the same shape out.

arXiv 2103.15590 lets the decoder keep the width of the matrix. A U-Net at full resolution would cost
hundreds of values per weight, so here it reads the matrix averaged over patches, and its output says, for
every patch, how the features of a single weight are to be mixed. Rows and columns enter in the order of
their norms, so that a patch holds weights of neurons that are alike in strength.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SIDE = 64  # patches along a side, at most


class MatrixSwitcher(nn.Module):
    """U-Net over a map: (in_channels, height, width) -> (out_channels, height, width)."""

    def __init__(self, in_channels: int, out_channels: int, *, base: int = 8, zero_head: bool = False) -> None:
        super().__init__()
        self.fine = nn.Conv2d(in_channels, base, 3, padding=1)
        self.coarse = nn.Conv2d(base, 2 * base, 3, padding=1)
        self.up = nn.Conv2d(2 * base, base, 3, padding=1)
        self.join = nn.Conv2d(2 * base, base, 3, padding=1)
        self.head = nn.Conv2d(base, out_channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        if zero_head:
            nn.init.zeros_(self.head.weight)

    def forward(self, matrix: Tensor) -> Tensor:
        """Interpolated on the way up, not by transposed convolutions, which tend to decide by position."""
        fine = F.relu(self.fine(matrix[None]))
        coarse = F.relu(self.coarse(F.max_pool2d(fine, 2, ceil_mode=True)))
        risen = F.interpolate(coarse, size=fine.shape[2:], mode="bilinear", align_corners=False)
        return self.head(F.relu(self.join(torch.cat([F.relu(self.up(risen)), fine], 1))))[0]


def sorted_patches(features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Feature maps averaged over patches, rows and columns in a given order: (channels, height, width)."""
    ordered = features.index_select(1, rows).index_select(2, columns)
    size = (min(_SIDE, ordered.shape[1]), min(_SIDE, ordered.shape[2]))
    return F.adaptive_avg_pool2d(ordered[None], size)[0]


def spread_patches(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The way back: every weight gets the values of its patch, (channels, len(rows), len(columns))."""
    full = F.interpolate(maps[None], size=(len(rows), len(columns)), mode="bilinear", align_corners=False)[0]
    return full.index_select(1, _inverse(rows)).index_select(2, _inverse(columns))


def _inverse(order: Tensor) -> Tensor:
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return place
