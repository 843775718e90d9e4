"""From a piece's times to a table: stairs, and what lies between the measured widths.

**Stairs.** Engines compute in blocks of channels, of which the last costs as much as a full one; some have no fast
way at all for odd widths. So a count stands for an **effective** one, found for all pieces of a kind together: the
share of the rise from one multiple of 32 to the next that is there after so many channels. It never falls: a layer
that would be slower at fewer channels is priced as the faster one at more, to which its width is rounded.

**Between.** In effective counts time is nearly bilinear, and so it is interpolated.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .grid import BESIDE, Point, beside, levels, middle

PERIOD = BESIDE[-1]
_NODES = 96  # most counts of a side that a table tells apart
_LEAST_RISE = 0.03  # over the period, of the time: below it, stairs drown in noise
Stair = NDArray[np.float64]  # (PERIOD + 1,) effective channels of 0 to PERIOD
PLAIN: Stair = np.arange(PERIOD + 1, dtype=np.float64)


def rises(full: Sequence[int], units: Sequence[int], times: Mapping[Point, float], side: int) -> Stair | None:
    """The stair of one side of a piece, as it was measured; None where it was not, or hardly rises.

    Args:
        full: columns of every side.
        units: counts are multiples of these.
        times: milliseconds at the points of `grid.points`.
        side: which one.
    """
    counts = beside(full[side], units[side])
    if not counts:
        return None
    own = levels(full, units)
    at = [(c,) if len(full) == 1 else (c, middle(own[1])) if side == 0 else (middle(own[0]), c) for c in counts]
    seen = np.array([times[point] for point in at])
    rise = seen[-1] - seen[0]
    if rise < _LEAST_RISE * seen[0]:
        return None
    share = np.clip((seen - seen[0]) / rise, 0.0, 1.0)
    share = np.minimum.accumulate(share[::-1])[::-1]  # wider is never dearer
    share = np.maximum.accumulate(share)
    found = np.zeros(PERIOD + 1)
    for count in range(1, PERIOD + 1):
        place = int(np.searchsorted(BESIDE, count))
        found[count] = PERIOD * share[place]
    if share[3] < share[5] and share[4] < share[3] + 0.75 * (share[5] - share[3]):  # half way from 8 to 16
        smooth = 0 if share[1] < 0.5 * share[2] else 16  # stairs of 4, as of vector units, are the end of it below
        at = np.arange(smooth, PERIOD + 1)
        found[smooth:] = np.interp(at, BESIDE, PERIOD * share)
    return found


def stair(found: Sequence[Stair]) -> Stair:
    """One stair for all pieces of a kind: the median of those that were measured, or none at all."""
    return np.median(np.stack(found), axis=0) if found else PLAIN


def effective(counts: NDArray[np.int64], own: Stair) -> NDArray[np.float64]:
    """Channels that an engine computes where so many are asked for."""
    return PERIOD * (counts // PERIOD) + own[counts % PERIOD]


@dataclass(frozen=True, slots=True)
class Surface:
    """Time of a piece by its counts, in milliseconds.

    Attributes:
        maps: of every side (two of them), (full + 1,) count -> row or column of the table.
        table: (rows, columns), which falls along neither.
    """

    maps: tuple[NDArray[np.int64], NDArray[np.int64]]
    table: NDArray[np.float64]

    def __call__(self, counts: Sequence[int]) -> float:
        """Milliseconds with so many columns on every side."""
        a, b = (*counts, *(0,) * (2 - len(counts)))
        return float(self.table[self.maps[0][a], self.maps[1][b]])


def surface(
    full: Sequence[int], units: Sequence[int], times: Mapping[Point, float], stairs: Sequence[Stair]
) -> Surface:
    """The table of a piece.

    Args:
        full: columns of every side.
        units: counts are multiples of these.
        times: milliseconds at the points of `grid.points`.
        stairs: of every side.
    """
    own = levels(full, units)
    measured = np.array([times[at] for at in itertools.product(*own)])
    measured = rising(measured.reshape([len(level) for level in own]))
    nodes = [_nodes(f, s) for f, s in zip(full, stairs, strict=True)]
    for axis, (level, node, one) in enumerate(zip(own, nodes, stairs, strict=True)):
        measured = _between(effective(np.array(level), one), measured, effective(node, one), axis)
    table = rising(np.maximum(measured, 0.0))
    maps = [np.searchsorted(n, np.arange(f + 1)) for n, f in zip(nodes, full, strict=True)]
    maps += [np.zeros(1, np.int64)] * (2 - len(maps))
    return Surface((maps[0], maps[1]), table.reshape(table.shape + (1,) * (2 - table.ndim)))


def _nodes(full: int, own: Stair) -> NDArray[np.int64]:
    """Counts that the table tells apart: ends of stairs, or multiples of a power of 2 where those are many."""
    ends = [c for c in range(PERIOD) if own[c + 1] > own[c] + 1e-9]  # the next channel costs something
    if len(ends) * full > _NODES * PERIOD:
        apart = next(2**power for power in range(64) if full <= _NODES * 2**power)
        return np.unique([*range(0, full, apart), full]).astype(np.int64)
    found = [base + end for base in range(0, full, PERIOD) for end in ends]
    return np.unique([0, *(c for c in found if c < full), full]).astype(np.int64)


def _between(
    known: NDArray[np.float64], measured: NDArray[np.float64], wanted: NDArray[np.float64], axis: int
) -> NDArray[np.float64]:
    """Values at other places along an axis: linear, and outside of what is known as between its last two."""
    last = np.append(np.diff(known) > 0, True)  # of levels on one stair the widest, whose time is not too low
    known, measured = known[last], np.compress(last, measured, axis)
    if len(known) == 1:
        return np.repeat(measured, len(wanted), axis=axis)
    at = np.clip(np.searchsorted(known, wanted, side="right") - 1, 0, len(known) - 2)
    part = (wanted - known[at]) / (known[at + 1] - known[at])
    part = part.reshape([-1 if i == axis else 1 for i in range(measured.ndim)])
    return np.take(measured, at, axis) * (1 - part) + np.take(measured, at + 1, axis) * part


def rising(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The table as one that falls nowhere: half way between the least above it and the largest below it."""
    up, down = table, table
    for axis in range(table.ndim):
        up = np.maximum.accumulate(up, axis)
        down = np.flip(np.minimum.accumulate(np.flip(down, axis), axis), axis)
    return (up + down) / 2
