"""Charts: values over steps or over what was kept, beside those of the dense model.

Marks and strokes differ as well as colours, and what a value is stands above its axis, where it has room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...measures import MetricInfo
from .figures import before_axis, blank, short
from .render import INK, PRUNED, STRENGTHENED, WEAKENED
from .words import COSTS, metric_of, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 2  # points that make no chart
_NAME = 44  # characters above an axis
_MARKS, _COLORS = "osD^vPX*p", 10  # of which no two runs of 90 have both in common
_DENSE = {"color": INK, "lw": 1.0, "ls": (0, (4, 2))}


def enough(points: Sequence[Any]) -> bool:
    """Whether there is something to see that a sentence could not say."""
    return len(points) > FEW


def course(
    curve: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    steps: Mapping[str, int],
    kept: Mapping[str, float],
    metric: MetricInfo,
    dense: tuple[str, float] | None = None,
) -> Figure:
    """Loss, cost and the metric on validation data over the training steps of both stages.

    The cost is what the budget allows in the search, and in the recovery what the compact model has: its share
    of each cost is `kept`. Of what has only one or two points there is no axis.

    Args:
        curve: steps of both stages.
        history: epochs of both stages.
        steps: training steps by stage.
        kept: share of each cost that the compact model has.
        metric: what the epochs were judged by.
        dense: the dense model's value and a word on what it is of; None where there is none.
    """
    from matplotlib.ticker import MaxNLocator

    begins = {"search": steps.get("probe", 0)}
    begins["recover"] = begins["search"] + steps.get("search", 0)
    judged, budget = epochs_judged(history), [p for p in curve if p.get("budget") is not None]
    rows = [enough(part) for part in (curve, budget, judged)]
    figure = blank(0.35 + 1.3 * sum(rows))
    axes = iter(np.atleast_1d(figure.subplots(sum(rows), 1, sharex=True)))

    def at(entry: Mapping[str, Any]) -> float:
        return begins.get(entry["stage"], 0) + entry["step"]

    def draw(label: str, entries: Sequence[Mapping[str, Any]], key: str, mark: str = "") -> Axes:
        axis = next(axes)
        for stage, color, stroke in (("search", STRENGTHENED, "--"), ("recover", WEAKENED, "-")):
            chosen = [e for e in entries if e["stage"] == stage]
            axis.plot(
                [at(e) for e in chosen],
                [math.nan if e.get(key) is None else e[key] for e in chosen],
                color=color,
                ls=stroke,
                lw=1.3,
                label="recovery" if stage == "recover" else stage,
                marker=mark or ("." if len(chosen) == 1 else ""),
            )
        _name(axis, label)
        return axis

    found = []
    if rows[0]:
        found.append(draw("training loss", curve, "loss"))
    if rows[1]:
        names = (p.get("cost", p.get("metric")) for p in budget)  # until 0.2 it was called a metric
        cost = next((str(name) for name in names if name), "cost")
        ends = [0, steps.get("recover", 0)] if cost in kept else []
        held = [{"stage": "recover", "step": step, "budget": kept[cost]} for step in ends]
        found.append(draw(f"share of the {named(cost, COSTS)}", [*budget, *held], "budget"))
        _dense(found[-1], "dense", 1.0)
        _shares(found[-1].yaxis)
    if rows[2]:
        found.append(draw(metric_of("val", metric), judged, "val_value", "."))
        if dense is not None:
            _dense(found[-1], *dense)
        _values(found[-1], metric)
    found[-1].set_xlabel("training step")
    found[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    found[-1].xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
    _legend(figure, found)
    return figure


def epochs_judged(history: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Epochs of which the metric is known."""
    return [h for h in history if h.get("val_value") is not None]


def _legend(figure: Figure, axes: Iterable[Axes], columns: int = 4, loc: Any = "outside upper left") -> None:
    """What is drawn on any of the axes, outside of them, where it covers nothing."""
    drawn = [artist for axis in axes for artist in zip(*axis.get_legend_handles_labels(), strict=True)]
    once = {name: handle for handle, name in reversed(drawn)}
    names = list(dict.fromkeys(name for _, name in drawn))
    figure.legend([once[name] for name in names], names, ncols=columns, loc=loc)


def _name(axis: Axes, text: str) -> None:
    axis.set_title(short(text, _NAME), loc="left")
    axis.grid(axis="y", alpha=0.25)


def _dense(axis: Axes, label: str, value: float) -> None:
    axis.axhline(value, label=label, **_DENSE)


def _shares(axis: Any) -> None:
    """Let an axis show shares in as many digits as tell them apart."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0))


def _values(axis: Axes, metric: MetricInfo) -> None:
    """Let the axis of a metric's values show them as what they are."""
    if metric.percent:
        _shares(axis.yaxis)
    else:
        axis.yaxis.set_major_formatter(lambda v, _: f"{v:.6g}")


def trade_off(
    points: Sequence[tuple[str, float, float]],
    cost: str,
    metric: MetricInfo,
    dense: Sequence[float] = (),
    places: Sequence[int] | None = None,
) -> Figure:
    """Runs as points.

    Args:
        points: (name, share of the cost that is kept, value of the metric).
        cost: what the share is of.
        metric: what the values mean.
        dense: values of dense models, at a share of 1.
        places: of the runs among all, by which they have the same mark in every figure.
    """
    figure = blank(2.7 + 0.19 * (len(points) + bool(dense)))
    axis = figure.subplots()
    for number, (name, share, value) in zip(places or range(len(points)), points, strict=True):
        mark, color = _MARKS[number % len(_MARKS)], f"C{number % _COLORS}"
        axis.plot([share], [value], mark, color=color, label=short(name, _NAME))
    for at, value in enumerate(dict.fromkeys(dense)):
        axis.plot([1.0], [value], "+", ms=9, mew=1.6, color=INK, label="" if at else "dense")
    axis.set_xlabel(cost)
    _name(axis, short(metric.name))
    _shares(axis.xaxis)
    _values(axis, metric)
    axis.margins(0.08)
    _legend(figure, [axis], 1, "outside lower left")
    return figure


def value_curve(
    points: Sequence[Mapping[str, Any]], dense: float, key: str, cost: str, metric: MetricInfo
) -> Figure:
    """The metric over the kept share of a cost, which is under `key` in a point; the dense model at 1."""
    figure = blank(2.6)
    axis = figure.subplots()
    xs, ys = zip(*sorted([(1.0, dense), *((p[key], p["value"]) for p in points)]), strict=True)
    axis.plot(xs, ys, marker="o", color=WEAKENED, label="cut")
    _dense(axis, "dense", dense)
    axis.set(xlabel=cost, xlim=(0, 1.02 * max(xs)))
    _name(axis, metric.name)
    _shares(axis.xaxis)
    _values(axis, metric)
    _legend(figure, [axis])
    return figure


def trials(
    points: Sequence[Mapping[str, Any]],
    costs: Mapping[str, str],
    metric: MetricInfo,
    dense: float,
    allowed: float,
) -> Figure:
    """The metric of trials over what they kept of each cost, the dense model at 1.

    Args:
        points: `value`, `passed`, and shares by the keys of `costs`, None where one is not known.
        costs: key -> name of a cost, at least one.
        metric: what the values mean.
        dense: value of the dense model.
        allowed: value that is just good enough.
    """
    figure = blank(0.45 + 2.1 * len(costs))
    for axis, (key, cost) in zip(figure.subplots(len(costs), 1, squeeze=False)[:, 0], costs.items(), strict=True):
        shown = [p for p in points if p[key] is not None]
        curve = sorted([(1.0, dense), *((p[key], p["value"]) for p in shown)])
        axis.plot(*zip(*curve, strict=True), color=PRUNED, lw=0.8)
        for passed, mark, color, label in (
            (True, "o", WEAKENED, "enough"),
            (False, "X", STRENGTHENED, "too little"),
        ):
            chosen = [p for p in shown if p["passed"] is passed]
            axis.plot([p[key] for p in chosen], [p["value"] for p in chosen], mark, color=color, label=label)
        axis.axhline(allowed, color=INK, lw=1.0, ls=":", label="allowed")
        axis.plot([1.0], [dense], "+", ms=9, mew=1.6, color=INK, label="dense")
        axis.set_xlabel(cost)
        _name(axis, metric_of("val", metric))
        _shares(axis.xaxis)
        _values(axis, metric)
    _legend(figure, figure.axes)
    return figure


def lost_grid(groups: Sequence[Mapping[str, Any]], dense: float, metric: MetricInfo) -> Figure:
    """Per group and kept share, how much worse the metric is, as numbers on a shade; fractions in points."""
    unit, most = (100, 1.0) if metric.percent else (1, 1e-9)
    lost = np.array([[unit * metric.lost(dense, p["value"]) for p in g["points"]] for g in groups])
    top = max(most, float(lost.max()))
    figure = blank(0.6 + 0.2 * len(groups))
    axis = figure.subplots()
    axis.imshow(lost, cmap="Oranges", vmin=0, vmax=top, aspect="auto")
    for (row, column), value in np.ndenumerate(lost):
        dark, text = value > 0.6 * top, f"{value:.1f}" if metric.percent else f"{value:.3g}"
        axis.text(column, row, text, ha="center", va="center", color="white" if dark else "#000001")
    shares = [f"{p['kept'] / groups[0]['size']:.0%}" for p in groups[0]["points"]]
    axis.set(xticks=range(len(shares)), xticklabels=shares, xlabel="neurons kept")
    axis.set(yticks=range(len(groups)), yticklabels=[before_axis(g["id"]) for g in groups])
    axis.tick_params(length=0)
    return figure
