"""The contest's figure: every run a dot, every method its mean and interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..measures import MetricInfo
from ..runs.visual.render import STRENGTHENED, WEAKENED
from ..shown import cut
from .standing import Standing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 7.2  # inches
_MOST = 40  # methods


def runs(found: Sequence[Standing], metric: MetricInfo, dense: float | None) -> Figure:
    """Values of all runs by method, the best on top; the dense model is a line.

    Args:
        found: the methods that have values, the best first.
        metric: what values mean.
        dense: value of the dense model.
    """
    from matplotlib.figure import Figure

    shown = list(found)[:_MOST]
    figure = Figure(figsize=(_WIDTH, 1.4 + 0.26 * len(shown)), layout="constrained")
    axis = figure.subplots()
    unit = 100 if metric.percent else 1
    for at, one in enumerate(shown):
        colour = WEAKENED if one.rival else STRENGTHENED
        mean, half = one.mean
        values = [unit * value for value in one.values.values()]
        axis.plot(values, [at] * len(values), "o", ms=5, alpha=0.45, color=colour, mew=0)
        if math.isfinite(half):
            axis.plot([unit * (mean - half), unit * (mean + half)], [at, at], lw=1.6, color=colour)
        axis.plot(unit * mean, at, "|", ms=13, mew=2.2, color=colour)
    axis.set_yticks(range(len(shown)), [cut(one.name, 34) for one in shown])
    axis.set_ylim(len(shown) - 0.4, -0.9)
    spread = [unit * value for one in shown for value in one.values.values()]
    low, high = min(spread), max(spread)  # a wide interval of two seeds must not squeeze the rest
    room = max(high - low, 0.01 * max(abs(low), abs(high)), 1e-12)
    ends = [low - 0.6 * room, high + 0.6 * room]
    at = None if dense is None else unit * dense
    if at is not None and abs(at - (low + high) / 2) < 6 * room:  # else it is too far away to be shown beside them
        ends = [min(ends[0], at - 0.1 * room), max(ends[1], at + 0.3 * room)]
        axis.axvline(at, ls=":", lw=1, color="0.5")
        axis.text(at, -0.8, " dense", fontsize=7, va="bottom")
    axis.set_xlim(*ends)
    axis.set_xlabel(f"{cut(metric.name, 60)}{', %' if metric.percent else ''}")
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", alpha=0.25)
    return figure
