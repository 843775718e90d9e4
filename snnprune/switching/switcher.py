"""The switcher network: a matrix with one row per neuron in, one value per row out.

Structure after arXiv 2110.05954, section 3.1 and figure 2: an encoder of convolution, ReLU and max
pooling; at every level a row convolution that turns the level's width into 1; a decoder along the
rows that joins every level with the row feature of the same encoder level. Upsampling is linear
interpolation and convolution: with the paper's transposed convolution a row's place decides as much as
its weights (every second row is kept). The last ReLU, which makes the values scales, is applied by
whoever uses them, because a budget moves its threshold.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Switcher(nn.Module):
    """U-Net over the rows of a matrix.

    Args:
        in_channels: channels of the input matrix.
        out_channels: values per row.
        width: columns of the input matrix.
        base: channels of the first encoder level; doubled at every level.
        levels: number of pooling steps (at least 0).
        stride: stride of the first convolution along the width; the full-resolution level dominates
            the cost, and its width is divided by this.
        zero_head: start with all outputs exactly 0, so that other paths decide at first.

    Example:
        >>> snnprune.Switcher(1, 1, width=27)(torch.rand(1, 64, 27)).shape
        torch.Size([1, 64])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int,
        *,
        base: int = 8,
        levels: int = 2,
        stride: int = 1,
        zero_head: bool = False,
    ) -> None:
        super().__init__()
        self.levels, self.stride = levels, stride
        self.min_width = stride * 2**levels
        columns = max(width, self.min_width)
        columns = (columns + stride - 1) // stride
        self.encoder, self.rows = nn.ModuleList(), nn.ModuleList()
        channels = in_channels
        for level in range(levels + 1):
            out = base * 2**level
            kernel = (3, 3) if level or stride == 1 else (3, max(3, stride))
            step = (1, 1 if level else stride)
            self.encoder.append(nn.Conv2d(channels, out, kernel, step, padding=(1, kernel[1] // 2)))
            columns = self._conv_width(columns * step[1] if level == 0 else columns, kernel[1], step[1])
            self.rows.append(nn.Conv2d(out, out, (1, columns)))
            columns //= 2
            channels = out
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(levels)):
            fine, coarse = base * 2**level, base * 2 ** (level + 1)
            self.up.append(nn.Conv1d(coarse, fine, 3, padding=1))
            self.join.append(nn.Conv1d(2 * fine, fine, 3, padding=1))
        self.head = nn.Conv1d(base, out_channels, 1)
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if zero_head:
            nn.init.zeros_(self.head.weight)

    @staticmethod
    def _conv_width(width: int, kernel: int, stride: int) -> int:
        return (width + 2 * (kernel // 2) - kernel) // stride + 1

    def forward(self, matrix: Tensor) -> Tensor:
        """(in_channels, rows, width) -> (out_channels, rows), before the last ReLU.

        Args:
            matrix: (in_channels, rows, width) weights, one row per neuron; with a first dimension of 1 or without.
        """
        x = matrix if matrix.dim() == 4 else matrix[None]
        rows, width = x.shape[2:]
        step = 2**self.levels
        pads = max(self.min_width - width, -width % self.stride), -rows % step
        if any(pads):
            x = F.pad(x, (0, pads[0], 0, pads[1]))  # (1, C, R, W)
        skips = []
        for level, (conv, row) in enumerate(zip(self.encoder, self.rows, strict=True)):
            if level:
                x = F.max_pool2d(x, 2)
            x = F.relu(conv(x))
            skips.append(F.relu(row(x)).squeeze(3))  # (1, c, R / 2^level)
        x = skips.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = F.relu(up(F.interpolate(x, scale_factor=2.0, mode="linear", align_corners=False)))
            x = F.relu(join(torch.cat([x, skips.pop()], 1)))
        values = self.head(x).squeeze(0)
        return values if values.shape[1] == rows else values[:, :rows]
