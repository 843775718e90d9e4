"""The order in which neurons go, computed on the device of their scores by a few operations for all groups.

Every neuron gets a **level**: 0 when it stays whatever happens, else the place of its block's best neuron among
all scores, of equal ones that of the first, so that "level below a number" says who stays. Levels can be asked for
in several **rows** at once: the first is the order of the threshold; in the others blocks may be smaller, and some
groups may be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .blocks import at_least
from .pooling import Member, Pool


@dataclass(frozen=True, slots=True)
class Members:
    """What the order has to know of one group.

    Attributes:
        size: its neurons.
        least: neurons that stay; blocks begin behind them.
        parts: neurons of every layer that holds only some of them; of each part the floor stays.
        reads: for a group of single inputs, per layer that reads them: the inputs, shape (inputs,), and the
            channels that each of them belongs to, shape (most channels, inputs), as numbers among the neurons
            of all groups, -1 for none. One input stays that belongs to channels which stay.
        most: neurons that may stay; None: all.
        floor: least share that stays of every part, in place of the model's.
        set: number of the groups that keep the same share (`least` and `most` are then of all alike); None: it is
            in none.
    """

    size: int
    least: int
    parts: Sequence[NDArray[np.int64]] = ()
    reads: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]] = ()
    most: int | None = None
    floor: float | None = None
    set: int | None = None

    @property
    def highest(self) -> int:
        """Neurons that may stay."""
        return self.size if self.most is None else self.most

    @property
    def loose(self) -> bool:
        """Whether it is not settled how many stay."""
        return self.least < self.highest


@dataclass(frozen=True, slots=True)
class Row:
    """One order: neurons in a block of every group, and the groups that may get more neurons."""

    steps: tuple[int, ...]
    open: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Levels of one set of scores.

    Attributes:
        levels: (rows, elements): `lead` elements in front of the neurons and one behind them, which are none. Of
            neurons beyond the most that may stay they are larger than any place.
        order: (elements,) the scores times -1, sorted: at every place what is there.
    """

    levels: Tensor
    order: Tensor


class Ranking:
    """Tables by which scores become levels.

    Elements in front of the neurons take the first places, so that levels of neurons begin at `lead` and a search
    in steps of `lead` has the neurons that always stay to themselves. One element behind takes the last place: it
    stands for a neuron that never comes.

    Args:
        groups: all groups, in the order of their neurons.
        rows: the orders to compute.
        floor: least share that stays of every part of a group.
        lead: elements in front, at least 1.
        device: where scores are.
    """

    def __init__(
        self, groups: Sequence[Members], rows: Sequence[Row], *, floor: float, lead: int, device: torch.device
    ) -> None:
        self._device = device
        first = lead + np.cumsum([0, *(g.size for g in groups)])  # of every group among the elements
        self.lead, self.neurons, self.elements = lead, int(first[-1]) - lead, int(first[-1]) + 1
        ends = np.concatenate([np.full(lead, -np.inf), [np.inf]]).astype(np.float32)
        self._ends = torch.from_numpy(ends).to(device).split([lead, 1])
        segment = np.repeat(np.arange(len(groups) + 2), [lead, *(g.size for g in groups), 1])
        self._segment = self._put(2 * segment)  # two places a group: what must stay comes before the others
        self._start = self._put(np.stack([self._starts(groups, row, first) for row in rows]))
        self._pool = self._pooled(groups, rows, first)
        self._places = self._put(np.arange(self.elements))
        self.capped = any(g.highest < g.size for g in groups)
        self._beyond = self._put(self._beyond_most(groups)) if self.capped else None
        self._parts = self._part_tables(groups, first, floor)
        self._reads = self._read_tables(groups, lead)

    def _put(self, array: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _starts(self, groups: Sequence[Members], row: Row, first: NDArray[np.int64]) -> NDArray[np.int64]:
        """(elements,) place, in the order by group and score, whose rank is the level of the one at this place."""
        found = np.zeros(self.elements, dtype=np.int64)
        found[-1] = self.elements - 1
        for group, step, opened, begin in zip(groups, row.steps, row.open, first[:-1], strict=True):
            rank = np.arange(group.size)
            block = begin + np.maximum(rank // step * step, group.least)
            start = block if opened else np.full(group.size, self.elements - 1)
            found[begin : begin + group.size] = np.where(rank < group.least, 0, start)
        return found

    def _pooled(self, groups: Sequence[Members], rows: Sequence[Row], first: NDArray[np.int64]) -> Pool | None:
        """What makes groups of a set keep the same share; None where no two are in one."""
        sets = [group.set for group in groups if group.set is not None]
        own = [i for i, group in enumerate(groups) if group.set is not None and sets.count(group.set) > 1]
        if not own:
            return None
        blocks = np.full((len(rows), self.elements), -1)
        for line, row in zip(blocks, rows, strict=True):
            for i in own:
                rank = np.arange(groups[i].size)
                block = np.maximum(rank // row.steps[i] * row.steps[i], groups[i].least)
                line[first[i] : first[i] + len(rank)] = np.where(rank < groups[i].least, -1, block)
        members = [Member(groups[i].set or 0, int(first[i]), groups[i].size) for i in own]
        return Pool(members, blocks, self._device)

    def _beyond_most(self, groups: Sequence[Members]) -> NDArray[np.int64]:
        """(elements,) by group and score: what lifts levels beyond all sets, wherever a search begins to count."""
        own = [np.where(np.arange(g.size) < g.highest, 0, 4 * self.elements) for g in groups]
        return np.concatenate([np.zeros(self.lead, dtype=np.int64), *own, np.zeros(1, dtype=np.int64)])

    def _part_tables(
        self, groups: Sequence[Members], first: NDArray[np.int64], floor: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Elements of all parts, with what tells parts apart; where the best are once sorted, with the same."""
        held = [(g, begin + part) for g, begin in zip(groups, first[:-1], strict=True) for part in g.parts]
        parts = [part for _, part in held]
        if not parts:
            return None
        floors = [floor if group.floor is None else group.floor for group, _ in held]
        begins = np.cumsum([0, *(len(part) for part in parts)])
        tag = np.repeat(np.arange(len(parts)) * self.elements, [len(part) for part in parts])
        least = [at_least(own, len(part)) for own, part in zip(floors, parts, strict=True)]
        best = [begin + np.arange(count) for begin, count in zip(begins[:-1], least, strict=True)]
        take = np.concatenate(best)
        return self._put(np.concatenate(parts)), self._put(tag), self._put(take), self._put(tag[take])

    def _read_tables(self, groups: Sequence[Members], lead: int) -> tuple[Tensor, Tensor] | None:
        """(layers, inputs) elements of the single inputs, and (channels, layers, inputs) those that they need."""
        reads = [read for group in groups for read in group.reads]
        if not reads:
            return None
        widest = max(len(inputs) for inputs, _ in reads)
        depth = max(len(channels) for _, channels in reads)
        units = np.full((len(reads), widest), self.elements - 1)
        needs = np.zeros((depth, len(reads), widest), dtype=np.int64)  # element 0 always stays
        for i, (inputs, channels) in enumerate(reads):
            units[i, : len(inputs)] = lead + inputs
            needs[: len(channels), i, : len(inputs)] = np.where(channels < 0, 0, lead + channels)
        return self._put(units), self._put(needs)

    def __call__(self, scores: Tensor) -> Ranked:
        """Levels of these scores, shape (neurons,), without waiting for the device."""
        before, after = self._ends
        down = torch.cat([before, scores.neg(), after])
        ascending, order = torch.sort(down, stable=True)  # the best first, of equal ones the first
        segment, optional, place = self._segment, None, None
        if self._parts is not None or self._reads is not None:
            place = torch.scatter(self._places, 0, order, self._places)  # of every element among all scores
            optional = self._optional(order, place)
            segment = segment if optional is None else segment + optional
        rank = torch.sort(segment[order], stable=True)[1]  # by group and score: the place among all
        element = order[rank]
        if self._pool is not None:
            ascending, by = torch.sort(self._pool.scores(ascending[rank]), stable=True)
            rank = torch.scatter(self._places, 0, by, self._places)
        levels = rank[self._start]
        if optional is not None:
            levels = levels * optional[element[self._start[0]]]
        if self._pool is not None:
            levels = self._pool.levels(levels)
        if self._beyond is not None:
            levels = levels + self._beyond
        levels = torch.scatter(self._places.expand_as(levels), 1, element.expand_as(levels), levels)
        if place is not None:
            levels = self._readable(levels, order, place)
        return Ranked(levels, ascending)

    def _optional(self, order: Tensor, place: Tensor) -> Tensor | None:
        """(elements,) 0 for the best neurons of every part, as many as its floor says, and 1 for all others."""
        if self._parts is None:
            return None
        members, tag, take, top = self._parts
        best = torch.sort(place[members] + tag)[0][take] - top
        return torch.index_fill(self._places.new_ones(self.elements), 0, order[best], 0)

    def _readable(self, levels: Tensor, order: Tensor, place: Tensor) -> Tensor:
        """Levels with one single input more at 0 for every layer that reads such: the best with channels at 0."""
        if self._reads is None:
            return levels
        units, needs = self._reads
        need = levels[0][needs].amax(0) if len(needs) > 1 else levels[0][needs[0]]
        best = place[units].masked_fill(need > 0, self.elements - 1).amin(1)
        return torch.index_fill(levels, 1, order[best], 0)
