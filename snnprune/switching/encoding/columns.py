"""The extractors' kernels, laid out so that one product per tensor gives the features.

An extractor is a strided convolution over a neuron's weights, the strongest columns first (arXiv 2110.05954,
section 3.3.2). Sorting the weights would copy them, so the kernel is moved instead: the column of rank `q` meets
row `q % kernel` of the kernel, for patch `q // kernel` of the features. In the matrix `A` the column's row is zero
but there, and `weights @ A` are the features of all patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Units:
    """The columns of one source.

    Attributes:
        unit: columns that stay together, in order, when units are sorted.
        norms: (units,), where the norm of every unit is found.
        columns: (units,), the row of `A` where every unit begins.
    """

    unit: int
    norms: Tensor
    columns: Tensor


class Columns(nn.Module):
    """All extractors of a network.

    Args:
        sources: their columns.
        total: rows of `A`; those that no source names are zero.
        channels: of the features.
        width: patches.
        sort: the strongest units first; else they stay in place.
    """

    def __init__(self, sources: Sequence[Units], total: int, *, channels: int, width: int, sort: bool) -> None:
        super().__init__()
        self.total, self.channels, self.width, self.sort = total, channels, width, sort
        kernels: list[Tensor] = []
        base, place, inner, table, back = [], [], [], [], []
        units = columns = rows = 0
        for number, source in enumerate(sources):
            count = len(source.norms)
            length = count * source.unit
            kernel = max(1, math.ceil(length / width))
            kernels.append(torch.randn(kernel, channels) / math.sqrt(kernel))
            base.append(torch.full((count,), number << 32))
            rank = torch.arange(length)
            place.append(units + rank // source.unit)
            inner.append(rank % source.unit)
            here = torch.full((length, width), -1)
            here[rank, rank // kernel] = rows + rank % kernel
            table.append(here)
            ranks = torch.arange(width)[None] * kernel + torch.arange(kernel)[:, None]  # (kernel, width)
            back.append(torch.where(ranks < length, (columns + ranks) * width + torch.arange(width), -1))
            units, columns, rows = units + count, columns + length, rows + kernel
        self.count, self.covered = columns, columns == total
        self.plain = all(source.unit == 1 for source in sources)
        self.weight = nn.Parameter(_joined(kernels, torch.zeros(0, channels)))
        none = torch.zeros(0, dtype=torch.long)
        found = _joined(table, none.view(0, width)).flatten()
        reverse = _joined(back, none.view(0, width)).flatten()
        for name, value in (
            ("norms", _joined([s.norms for s in sources], none)),
            ("starts", _joined([s.columns for s in sources], none)),
            ("base", _joined(base, none)),
            ("place", _joined(place, none)),
            ("inner", _joined(inner, none)),
            ("table", torch.where(found < 0, rows, found).int()),
            ("back", torch.where(reverse < 0, columns * width, reverse).int()),
        ):
            self.register_buffer(name, value, persistent=False)

    norms: Tensor
    starts: Tensor
    base: Tensor
    place: Tensor
    inner: Tensor
    table: Tensor
    back: Tensor

    def order(self, norms: Tensor) -> Tensor:
        """(columns,): the row of `A` where the column of every rank lies, one source after the other.

        Args:
            norms: of everything that a source may name, >= 0.
        """
        starts = self.starts
        if self.sort:
            # One sort for all: the bits of a float that is not negative, read as an integer, are in its order.
            bits = norms.index_select(0, self.norms).view(torch.int32)
            starts = starts.index_select(0, torch.sort(self.base - bits, stable=True).indices)
        return starts if self.plain else starts.index_select(0, self.place) + self.inner

    def matrix(self, weight: Tensor, order: Tensor) -> Tensor:
        """`A`, (total, width x channels)."""
        ended = torch.cat([weight, weight.new_zeros(1, self.channels)])
        ranked = ended.index_select(0, self.table).view(-1, self.width * self.channels)
        shape = self.total, ranked.shape[1]
        found = weight.new_empty(shape) if self.covered else weight.new_zeros(shape)
        return found.index_copy_(0, order, ranked)

    def gradient(self, of_matrix: Tensor, order: Tensor) -> Tensor:
        """What `matrix` makes of its weight, transposed; every sum is taken in one order."""
        ranked = of_matrix.new_empty(self.count + 1, of_matrix.shape[1])
        torch.index_select(of_matrix, 0, order, out=ranked[:-1])
        ranked[-1].zero_()
        found = ranked.view(-1, self.channels).index_select(0, self.back)
        return found.view(-1, self.width, self.channels).sum(1)


def _joined(parts: Sequence[Tensor], none: Tensor) -> Tensor:
    return torch.cat(list(parts)) if parts else none
