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
    """
    middle = share + _Z**2 / (2 * count)
    reach = _Z * math.sqrt(share * (1 - share) / count + (_Z / (2 * count)) ** 2)
    scale = 1 + _Z**2 / count
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def fall_interval(before: float, after: float, count: int) -> tuple[float, float]:
    """Where the difference `before - after` of two shares lies.

    Method 10 of Newcombe (Statistics in Medicine 17, 1998), which puts Wilson's intervals together. It takes the
    two as counted on inputs of their own. Where they are counted on the same ones, as here, the interval is too
    wide rather than too narrow, since both models find the same inputs hard.

    Args:
        before: share in [0, 1].
        after: share in [0, 1].
        count: of inputs that each was counted on.
    """
    low_before, high_before = share_interval(before, count)
    low_after, high_after = share_interval(after, count)
    fall = before - after
    return (
        fall - math.hypot(before - low_before, high_after - after),
        fall + math.hypot(high_before - before, after - low_after),
    )
