"""Why a target cannot be met, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .blocks import at_least
from .costs import Kept, Metric
from .widths import bounds_of

if TYPE_CHECKING:
    from .model import CostModel

_NAMED = 3  # parts that hold the time


def too_little(cost: CostModel, metric: Metric, share: float, floors: Kept, floor: float, round_to: int) -> str:
    """The message on a target that is below what the floors allow.

    Args:
        cost: of the model.
        metric: of the target.
        share: that was asked for.
        floors: what stays whatever the target.
        floor: least kept share of every group.
        round_to: multiples of so many channels.
    """
    least, timed = cost.share(metric, floors), metric == "latency"
    asked = f"{metric}={math.ceil(least * 1000) / 1000:.3f}"
    remain = f"{metric} remain"
    if timed:
        whole, left = cost.dense[metric], cost.cost(metric, floors)
        dearest = sorted(((part.cost(floors), part.name) for part in cost.times), reverse=True)[:_NAMED]
        held = ", ".join(f"{name} ({ms:.3g} ms)" for ms, name in dearest)
        remain = f"time remain ({left:.3g} of {whole:.3g} ms), most of it in {held}"
        asked += f" or {metric}={math.ceil(least * whole * 1000) / 1000:.3f}ms"
    still = 1 - cost.prunable_share(metric)
    kept = _widths(cost, metric, floors, floor, round_to)
    if still >= 0.01:
        them = "it" if timed else "them"
        kept += (
            f" Nothing can be removed from {still:.0%} of {them}; `snnprune inspect` lists what is kept and why."
        )
    return (
        f"{metric}={share:g} is below what the floors allow: with {floor:.0%} of every group kept, {least:.3f} of "
        f"the dense {remain}. Ask for {asked} or more, or lower the floor."
    ) + kept


def _widths(cost: CostModel, metric: Metric, floors: Kept, floor: float, round_to: int) -> str:
    """Which widths hold most of what the floors alone would let go."""
    held: dict[str, float] = {}
    for name, widths in cost.widths.items():
        group = cost.groups[name]
        low, least = bounds_of(group, widths, round_to).low, at_least(floor, group.size)
        if low > least:
            width = max(widths, key=lambda w: bounds_of(group, (w,), round_to).low)
            fewer = {**floors, name: np.arange(group.size) < least}
            saved = cost.share(metric, floors) - cost.share(metric, fewer)
            held[str(width)] = held.get(str(width), 0.0) + saved
    if not held:
        return ""
    most = sorted(held, key=lambda text: -held[text])[:_NAMED]
    named = ", ".join(f"'{text}' ({held[text]:.3f})" for text in most)
    return f" Widths hold of it: {named}; allow less there."
