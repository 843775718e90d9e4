"""How far a share that was counted on some inputs may lie from that of all: intervals of 95 %."""

from __future__ import annotations

import math

_Z = 1.959963984540054  # 95 % of a normal distribution lie within so many deviations


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Where the share of all inputs lies, by that of some.

    Wilson's score interval (J. Am. Stat. Assoc. 22, 1927), which also holds for few inputs and near 0 and 1.

    Args:
        share: of the inputs counted, in [0, 1], such as an accuracy.
        count: of them, at least 1.

    Returns:
        The lower and the upper end, in [0, 1].
    """
    middle = share + _Z**2 / (2 * count)
    reach = _Z * math.sqrt(share * (1 - share) / count + (_Z / (2 * count)) ** 2)
    scale = 1 + _Z**2 / count
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def change_interval(before: float, after: float, count: int, both: int | None = None) -> tuple[float, float]:
    """Where the difference `after - before` of two shares lies.

    Newcombe's method 10, which puts Wilson's intervals together: for two samples Statistics in Medicine 17 (1998),
    873, for one sample that both were counted on 17 (1998), 2635. The second needs to know how many inputs both
    got right. Models that are right on the same inputs differ in few, and then it is much the narrower one.

    Args:
        before: share of the first, in [0, 1].
        after: share of the second, in [0, 1].
        count: of inputs that each was counted on, at least 1.
        both: of them, those that count for both shares; None where that is not known. Then the interval is that
            of two samples, which is too wide for one rather than too narrow.

    Returns:
        The lower and the upper end, in [-1, 1].
    """
    low_before, high_before = share_interval(before, count)
    low_after, high_after = share_interval(after, count)
    alike = 0.0 if both is None else _alike(round(before * count), round(after * count), both, count)
    change = after - before
    down = _apart(after - low_after, high_before - before, alike)
    up = _apart(high_after - after, before - low_before, alike)
    return max(-1.0, change - down), min(1.0, change + up)


def _apart(one: float, other: float, alike: float) -> float:
    """The deviation of a difference of two figures with these deviations, of which so much is common."""
    return math.sqrt(max(0.0, one * one - 2 * alike * one * other + other * other))


def _alike(before: int, after: int, both: int, count: int) -> float:
    """Correlation of the two, with Newcombe's correction for continuity where it is positive."""
    margins = before * (count - before) * after * (count - after)
    if margins == 0:
        return 0.0
    neither = count - before - after + both
    found = both * neither - (before - both) * (after - both)
    if found > 0:
        found = max(found - count / 2, 0.0)
    return found / math.sqrt(margins)
