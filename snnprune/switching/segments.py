"""Numbers of many groups in one tensor, and sums over the groups that come out the same on every device.

What is computed for every layer of a network by itself costs a GPU one launch per layer, and it waits for Python
in between. So the values of all groups lie in one tensor, one group after the other, and one operation meets all
of them. Sums are taken by gathering each group's numbers into a row, padded with zeros: unlike `index_add`, whose
order of additions changes from call to call on a GPU, that gives the same bits every time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_PADDED = 2**22  # entries of a padded table; beyond, groups are so few and large that they are summed one by one


class Segments:
    """Groups of numbers that lie one after the other.

    Args:
        sizes: group -> how many numbers it has, in order.
        device: where the tables lie.

    Attributes:
        names: of the groups.
        sizes: of the groups.
        total: of all sizes.
        group: (total,), the place in `names` of every number's group.
        count: (groups,), the sizes as float32.
    """

    def __init__(self, sizes: Mapping[str, int], device: torch.device | str) -> None:
        self.names, self.sizes, self.total = list(sizes), list(sizes.values()), sum(sizes.values())
        lengths = torch.tensor(self.sizes)
        self.group = torch.arange(len(lengths)).repeat_interleave(lengths).to(device)
        self.count = lengths.float().to(device)
        widest = max(self.sizes, default=0)
        self._rows: Tensor | None = None  # (groups, widest), places in the flat tensor; `total`: none
        if len(lengths) * widest <= max(_PADDED, 4 * self.total):
            place = (lengths.cumsum(0) - lengths)[:, None] + torch.arange(widest)[None]
            inside = torch.arange(widest)[None] < lengths[:, None]
            self._rows = torch.where(inside, place, self.total).to(device)

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Group -> its numbers, views of a (total,) tensor."""
        return dict(zip(self.names, flat.split(self.sizes), strict=True))

    def join(self, values: Mapping[str, Tensor]) -> Tensor:
        """(total,) out of group -> (size,)."""
        return torch.cat([values[name].reshape(-1) for name in self.names])

    def padded(self, flat: Tensor, fill: float = 0.0) -> Tensor:
        """(total, ...) as (groups, widest, ...), with `fill` behind the shorter groups; not differentiable.

        Raises:
            ValueError: the groups are too unlike in size.
        """
        if self._rows is None:
            raise ValueError("the groups are too unlike in size to be padded")
        end = flat.new_full((1, *flat.shape[1:]), fill)
        return torch.cat([flat, end]).index_select(0, self._rows.view(-1)).view(*self._rows.shape, *flat.shape[1:])

    def sums(self, flat: Tensor) -> Tensor:
        """(total, ...) to (groups, ...), differentiable."""
        return _Sums.apply(flat, self)  # type: ignore[return-value]

    def means(self, flat: Tensor) -> Tensor:
        """(total, ...) to (groups, ...), differentiable."""
        return self.sums(flat) / self.count.to(flat.dtype).view(-1, *[1] * (flat.dim() - 1))

    def spread(self, each: Tensor) -> Tensor:
        """(groups, ...) to (total, ...): every number gets what belongs to its group; differentiable."""
        return _Spread.apply(each, self)  # type: ignore[return-value]

    def _sums(self, flat: Tensor) -> Tensor:
        if self._rows is not None:
            return self.padded(flat).sum(1)
        return torch.stack([part.sum(0) for part in flat.split(self.sizes)])


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, segments: Segments) -> Tensor:
        ctx.segments = segments
        return segments._sums(flat)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient.index_select(0, ctx.segments.group), None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, each: Tensor, segments: Segments) -> Tensor:
        ctx.segments = segments
        return each.index_select(0, segments.group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.segments._sums(gradient), None


class Gather:
    """`values[index]` along the first dimension, whose gradient is summed in one order on every device.

    Args:
        index: (m,), places in `values`; `size` itself stands for a constant.
        size: of `values`.
        fill: the constant.
        device: where the tables lie.
    """

    def __init__(self, index: Tensor, size: int, device: torch.device | str, *, fill: float = 0.0) -> None:
        self.size, self.fill = size, fill
        index = index.long().cpu()
        self.index = index.to(device)
        self.constant = bool((index == size).any())
        order = index.argsort(stable=True)
        counts = torch.bincount(index, minlength=size + 1)[:size]
        sizes = {str(i): c for i, c in enumerate(counts.tolist())}
        order = order[: int(counts.sum())]
        self.plain = len(index) == size and bool((index == torch.arange(size)).all())
        widest = max(sizes.values(), default=0)
        place = (counts.cumsum(0) - counts)[:, None] + torch.arange(max(1, widest))[None]
        inside = torch.arange(max(1, widest))[None] < counts[:, None]
        order = torch.cat([order, torch.tensor([len(index)])])
        table = torch.where(inside, order[place.clamp_max(len(order) - 1)], len(index))
        self.inverse = table.to(device)  # (size, widest), places in the result; m where there is none

    def __call__(self, values: Tensor) -> Tensor:
        """(size, ...) to (m, ...), differentiable."""
        return values if self.plain else _Gather.apply(values, self)  # type: ignore[return-value]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, gather: Gather) -> Tensor:
        ctx.gather = gather
        if gather.constant:
            values = torch.cat([values, values.new_full((1, *values.shape[1:]), gather.fill)])
        return values.index_select(0, gather.index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        inverse = ctx.gather.inverse
        padded = torch.cat([gradient, gradient.new_zeros(1, *gradient.shape[1:])])
        found = padded.index_select(0, inverse.view(-1)).view(*inverse.shape, *gradient.shape[1:])
        return found.sum(1), None


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hard: Tensor, _soft: Tensor) -> Tensor:
        return hard.view_as(hard)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, gradient


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The values of `hard`, to the bit, with the gradient of `soft` (Bengio et al. 2013, arXiv 1308.3432)."""
    return _StraightThrough.apply(hard.detach(), soft)  # type: ignore[return-value]


def offsets(sizes: Sequence[int]) -> list[int]:
    """Where each of some sizes begins when they lie one after the other."""
    found, at = [], 0
    for size in sizes:
        found.append(at)
        at += size
    return found
