"""Groups of a set in the order in which neurons go: their neurons of one place go together.

Within its group a neuron has a place, that of its score. What has the same place (as a share of its group) in all
groups of a set counts as the mean of their scores, and gets one level, so that a threshold leaves all of them the
same share. Within every group its own scores decide who has which place.

Means are taken in float64, in which sums of single precision are exact unless scores differ by millions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Member:
    """A group of a set.

    Attributes:
        set: number of the set, from 0 on.
        begin: element of its first neuron.
        size: its neurons.
    """

    set: int
    begin: int
    size: int


class Pool:
    """Tables by which scores and levels of the groups of sets become common ones.

    Args:
        members: all groups of sets, those of one set one after another.
        blocks: (rows, elements) at the place of every neuron within its group, in every row the place where its
            block begins; -1 of those that stay whatever they score.
        device: where scores are.
    """

    def __init__(self, members: Sequence[Member], blocks: _Ints, device: torch.device) -> None:
        sets = [[m for m in members if m.set == number] for number in sorted({m.set for m in members})]
        widest = [max(m.size for m in own) for own in sets]
        nothing = blocks.shape[1]  # the element behind all, which counts as 0
        grid = np.full((max(map(len, sets)), sum(widest)), nothing)
        count = np.repeat([float(len(own)) for own in sets], widest)
        places, columns, shares, number = [], [], [], []
        begin = 0
        for at, (own, wide) in enumerate(zip(sets, widest, strict=True)):
            for line, member in enumerate(own):
                rank = np.arange(member.size)
                grid[line, begin : begin + wide] = member.begin + np.arange(wide) * member.size // wide
                places.append(member.begin + rank)
                columns.append(begin - (-rank * wide // member.size))
                shares.append(blocks[:, member.begin : member.begin + member.size] / member.size)
                number.append(np.full(member.size, at))
            begin += wide
        place, share, set_of = np.concatenate(places), np.concatenate(shares, axis=1), np.concatenate(number)
        self._grid, self._column = _put(grid, device), _put(np.concatenate(columns), device)
        self._count = torch.from_numpy(count).to(device)
        self._place = _put(place, device)
        order = np.stack([np.lexsort((row, set_of)) for row in share])
        share, set_of = np.take_along_axis(share, order, 1), set_of[order]
        first = np.ones(order.shape, dtype=bool)
        first[:, 1:] = (share[:, 1:] != share[:, :-1]) | (set_of[:, 1:] != set_of[:, :-1])
        self._order = _put(place[order], device)
        self._first = _put(np.maximum.accumulate(np.where(first, np.arange(order.shape[1]), 0), axis=1), device)
        self._apart = _put(set_of * (4 * nothing), device)  # so that a minimum ends where its set does

    def scores(self, down: Tensor) -> Tensor:
        """(elements,) scores by group and place, each the mean of its set's at that place, in float64."""
        down = down.double()
        means = torch.cat([down, down.new_zeros(1)])[self._grid].sum(0) / self._count
        return torch.scatter(down, 0, self._place, means[self._column])

    def levels(self, levels: Tensor) -> Tensor:
        """(rows, elements) levels by group and place, of every block the lowest from its share of the set on.

        So they never fall as a share grows, whatever group it is of: what one group keeps all keep.
        """
        found = (torch.gather(levels, 1, self._order) + self._apart).flip(1).cummin(1).values.flip(1)
        return torch.scatter(levels, 1, self._order, torch.gather(found - self._apart, 1, self._first))


def _put(array: _Ints, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
