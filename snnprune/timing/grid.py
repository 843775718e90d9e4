"""At which widths a piece is timed."""

from __future__ import annotations

import math
from collections.abc import Sequence

BESIDE = (0, 1, 4, 8, 12, 16, 24, 32)  # where stairs are looked for, from a multiple of 32 on
_LEVELS = {1: (1.0, 0.8, 0.6, 0.4, 0.2, 0.1), 2: (1.0, 0.6, 0.3, 0.1)}  # by number of sides
Point = tuple[int, ...]


def levels(full: Sequence[int], units: Sequence[int]) -> list[list[int]]:
    """Counts of every side, from few to all: a product of them is the grid.

    Args:
        full: columns of every side.
        units: counts are multiples of these.
    """
    shares = _LEVELS.get(len(full), ())
    return [sorted({_snapped(share, f, u) for share in shares}) for f, u in zip(full, units, strict=True)]


def beside(full: int, unit: int) -> list[int]:
    """Counts close together, from a multiple of 32 on, that show the stairs; none where there is no room."""
    start = 32 * max(1, round(full / 4 / 32))
    return [start + more for more in BESIDE] if unit == 1 and start + BESIDE[-1] <= full else []


def middle(own: Sequence[int]) -> int:
    """The level of one side at which stairs of the other are looked for."""
    return own[len(own) // 2]


def points(full: Sequence[int], units: Sequence[int]) -> list[Point]:
    """All counts at which a piece is timed.

    Time is nearly bilinear in the two widths of a layer, so that a few of each suffice.

    Args:
        full: columns of every side; none of a piece that never changes.
        units: counts are multiples of these.
    """
    known = levels(full, units)
    if not full:
        return [()]
    if len(full) == 1:
        return list(dict.fromkeys((a,) for a in (*known[0], *beside(full[0], units[0]))))
    found = [(a, b) for a in known[0] for b in known[1]]
    found += [(a, middle(known[1])) for a in beside(full[0], units[0])]
    found += [(middle(known[0]), b) for b in beside(full[1], units[1])]
    return list(dict.fromkeys(found))


def _snapped(share: float, full: int, unit: int) -> int:
    """A count near a share of all, at the end of a stair of any engine where the side is wide enough."""
    step = next((s for s in (32, 16, 8, 4) if full >= 8 * s), 1)
    unit = math.lcm(unit, step) if share < 1 else unit
    return min(full, max(unit, unit * round(share * full / unit)))
