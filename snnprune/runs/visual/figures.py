"""The figures, each from plain values, of which it draws all; `drawings` sees to their number.

Their subjects are those of arXiv 2110.05954: patterns of pruned, weakened and strengthened neurons (figures 4
left and 5), their numbers per epoch (figure 4 right), and feature maps of pruned against strengthened kernels
(figure 3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...measures import MetricInfo
from ...shown import cut
from .render import INK, KINDS, PRUNED, STRENGTHENED, WEAKENED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _short(name: str, length: int = 34) -> str:
    return cut(name, length, front=1 / 3)


def _legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=c, label=n) for n, c in KINDS.items()]
    figure.legend(handles=handles, ncols=3, loc="outside upper left")


def group_bars(groups: Sequence[Mapping[str, Any]]) -> Figure:
    """Per group, the shares of its neurons that are pruned, weakened and strengthened."""
    figure = _figure(0.55 + 0.2 * len(groups))
    axis = figure.subplots()
    rows = np.arange(len(groups))
    sizes = np.array([g["size"] for g in groups], float)
    left = np.zeros(len(groups))
    for kind, color in KINDS.items():
        counts = [g["size"] - g["kept"] if kind == "pruned" else g[kind] for g in groups]
        share = np.array(counts, float) / sizes
        axis.barh(rows, share, left=left, color=color, height=0.75)
        left += share
    for row, g in enumerate(groups):
        axis.text(1.01, row, f"{g['kept']} of {g['size']}", va="center", fontsize=7)
    axis.set(
        yticks=rows, yticklabels=[_short(g["id"]) for g in groups], xlim=(0, 1), ylim=(-0.6, len(groups) - 0.4)
    )
    axis.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.invert_yaxis()
    _legend(figure)
    return figure


def course(
    curve: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    steps: Mapping[str, int],
    kept: Mapping[str, float],
    metric: MetricInfo,
) -> Figure:
    """Loss, cost and the metric on validation data over the training steps of both stages.

    The cost is what the budget allows in the search, and in the recovery what the compact model has: its share
    of each cost is `kept`.
    """
    begins = {"search": steps.get("probe", 0)}
    begins["recover"] = begins["search"] + steps.get("search", 0)
    judged = [h for h in history if h.get("val_value") is not None]
    budget = [p for p in curve if p.get("budget") is not None]
    rows = [bool(curve), bool(budget), bool(judged)]
    figure = _figure(0.4 + 1.35 * sum(rows))
    axes = iter(np.atleast_1d(figure.subplots(sum(rows), 1, sharex=True)))

    def at(entry: Mapping[str, Any]) -> float:
        return begins.get(entry["stage"], 0) + entry["step"]

    def draw(label: str, entries: Sequence[Mapping[str, Any]], key: str, **marks: Any) -> Axes:
        axis = next(axes)
        for stage, color in (("search", STRENGTHENED), ("recover", WEAKENED)):
            chosen = [e for e in entries if e["stage"] == stage]
            alone = {"marker": "."} if len(chosen) == 1 else {}
            axis.plot(
                [at(e) for e in chosen],
                [math.nan if e.get(key) is None else e[key] for e in chosen],
                color=color,
                label=stage,
                **{**marks, **alone},
            )
        axis.set_ylabel(label)
        axis.grid(axis="y", alpha=0.25)
        return axis

    found = []
    if curve:
        found.append(draw("training loss", curve, "loss", lw=1.2))
    if budget:
        named = (p.get("cost", p.get("metric")) for p in budget)  # until 0.2 it was called a metric
        cost = next((str(name) for name in named if name), "cost")
        ends = [0, steps.get("recover", 0)] if cost in kept else []
        held = [{"stage": "recover", "step": step, "budget": kept[cost]} for step in ends]
        found.append(draw(f"share of {cost}", [*budget, *held], "budget", lw=1.2))
        found[-1].yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    if judged:
        found.append(draw(f"val {_short(metric.name)}", judged, "val_value", lw=1.2, marker="."))
        _values(found[-1], metric)
    found[-1].set_xlabel("training step")
    found[0].legend(ncols=2, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    return figure


def _values(axis: Axes, metric: MetricInfo) -> None:
    """Let the axis of a metric's values show them as what they are."""
    if metric.percent:
        axis.yaxis.set_major_formatter(lambda v, _: f"{v:.1%}")


def counts(seen: Mapping[int, Mapping[str, Sequence[int]]], sizes: Mapping[str, int]) -> Figure:
    """Neurons of every group that are off, weakened and strengthened, over some epochs of the search."""
    figure, panels = _panels(len(sizes), height=1.15)
    epochs = list(seen)
    for axis, name in zip(panels, sizes, strict=True):
        kept, weak, strong = (np.array([c[name][i] for c in seen.values()], float) for i in range(3))
        parts = [sizes[name] - kept, weak, strong]
        axis.stackplot(epochs, parts, colors=list(KINDS.values()))
        axis.set(title=_short(name, 24), xticks=[epochs[0], epochs[-1]])
    _legend(figure)
    return figure


def histograms(scales: Mapping[str, Tensor]) -> Figure:
    """Scales of every group; those of exactly 0 as their own bar."""
    figure, panels = _panels(len(scales), height=1.15)
    for axis, (name, scale) in zip(panels, scales.items(), strict=True):
        values = scale.float().numpy()
        alive = values[values > 0]
        low, top = (float(alive.min()), float(alive.max())) if len(alive) else (0.0, 1.0)
        reach = max(top - low, 1e-3)
        edges = np.linspace(low, low + reach, 25)
        heights, _ = np.histogram(alive, edges)
        colors = [WEAKENED if (a + b) / 2 < 1 else STRENGTHENED for a, b in itertools.pairwise(edges)]
        axis.bar(edges[:-1], heights, np.diff(edges), align="edge", color=colors)
        zero = low - 0.2 * reach
        axis.bar([zero], [int((values == 0).sum())], 0.1 * reach, color=PRUNED)
        ticks = [zero, low, low + reach]
        axis.set(title=_short(name, 24), xticks=ticks, xticklabels=["0", *(f"{v:.2f}" for v in ticks[1:])])
    _legend(figure)
    return figure


def _panels(count: int, *, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(4, count)
    rows = math.ceil(count / columns)
    figure = _figure(height * rows + 0.35)
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel().tolist()
    for spare in axes[count:]:
        spare.set_visible(False)
    for axis in axes:
        axis.tick_params(labelsize=6)
    return figure, axes[:count]


def pixel_map(planes: Tensor) -> Figure:
    """Which pixels are read and how: pruned, weakened, strengthened; and their scales, a plane a row."""
    from matplotlib.colors import ListedColormap

    figure = _figure(2.6 if len(planes) == 1 else 1.7 * len(planes))
    axes = figure.subplots(len(planes), 2, squeeze=False)
    for row, plane in zip(axes, planes.float().numpy(), strict=True):
        kinds = np.where(plane == 0, 0, np.where(plane < 1, 1, 2))
        row[0].imshow(kinds, cmap=ListedColormap(list(KINDS.values())), vmin=0, vmax=2)
        shown = row[1].imshow(plane, cmap="viridis", vmin=0)
        figure.colorbar(shown, ax=row[1], label="scale")
        for axis in row:
            axis.set(xticks=[], yticks=[])
    _legend(figure)
    return figure


def feature_maps(pictures: Mapping[str, Tensor]) -> Figure:
    """An input, and what pruned and strengthened kernels of some layers make of it."""
    rows = [name for name in pictures if name != "input"]
    columns = max(len(pictures[name]) for name in rows)
    figure = _figure(0.75 * len(rows) + 0.2)
    grid = figure.add_gridspec(len(rows), columns + 2)
    first = figure.add_subplot(grid[:2, :2])
    image = pictures["input"].permute(1, 2, 0).numpy()
    first.imshow(image if image.shape[2] == 3 else image[:, :, 0], cmap="gray", vmin=0, vmax=255)
    first.set(xticks=[], yticks=[], title="input")
    for row, name in enumerate(rows):
        layer, kind = name.rsplit("|", 1)
        for column, plane in enumerate(pictures[name]):
            axis = figure.add_subplot(grid[row, column + 2])
            axis.imshow(plane.numpy(), cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(visible=True, color=KINDS.get(kind, INK), linewidth=1.5)
            if column == 0:
                axis.set_title(f"{_short(layer)}: {kind}", loc="left")
    return figure


def trade_off(points: Sequence[tuple[str, float, float]], cost: str, metric: MetricInfo) -> Figure:
    """Runs as points: (name, share of the cost that is kept, value of the metric)."""
    figure = _figure(3.2)
    axis = figure.subplots()
    for number, (name, share, value) in enumerate(points):
        axis.plot([share], [value], "o", color=f"C{number % 10}")
        axis.annotate(_short(name, 28), (share, value), (5, 4), textcoords="offset points", fontsize=7)
    axis.set(xlabel=cost, ylabel=_short(metric.name))
    axis.xaxis.set_major_formatter(lambda v, _: f"{v:.1%}")
    _values(axis, metric)
    axis.margins(0.15)
    axis.grid(alpha=0.25)
    return figure


def value_curve(
    points: Sequence[Mapping[str, Any]], dense: float, key: str, cost: str, metric: MetricInfo
) -> Figure:
    """The metric over the kept share of a cost, which is under `key` in a point; the dense model at 1."""
    figure = _figure(2.6)
    axis = figure.subplots()
    xs, ys = zip(*sorted([(1.0, dense), *((p[key], p["value"]) for p in points)]), strict=True)
    axis.plot(xs, ys, marker="o", color=WEAKENED)
    axis.axhline(dense, color=PRUNED, lw=0.8)
    axis.set(xlabel=cost, ylabel=_short(metric.name), xlim=(0, 1.02 * max(xs)))
    axis.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    _values(axis, metric)
    axis.grid(alpha=0.25)
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
    figure = _figure(2.6)
    for axis, (key, cost) in zip(figure.subplots(1, len(costs), squeeze=False)[0], costs.items(), strict=True):
        shown = [p for p in points if p[key] is not None]
        curve = sorted([(1.0, dense), *((p[key], p["value"]) for p in shown)])
        axis.plot(*zip(*curve, strict=True), color=PRUNED, lw=0.8)
        for passed, color, label in ((True, WEAKENED, "enough"), (False, STRENGTHENED, "too little")):
            chosen = [p for p in shown if p["passed"] is passed]
            axis.plot([p[key] for p in chosen], [p["value"] for p in chosen], "o", color=color, label=label)
        axis.axhline(allowed, color=PRUNED, lw=0.8, ls="--", label="allowed")
        axis.set(xlabel=cost, ylabel=f"val {_short(metric.name)}")
        axis.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
        _values(axis, metric)
        axis.grid(alpha=0.25)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=3, loc="outside upper left")
    return figure


def lost_grid(groups: Sequence[Mapping[str, Any]], dense: float, metric: MetricInfo) -> Figure:
    """Per group and kept share, how much worse the metric is, as numbers on a shade; fractions in points."""
    unit, most = (100, 1.0) if metric.percent else (1, 1e-9)
    lost = np.array([[unit * metric.lost(dense, p["value"]) for p in g["points"]] for g in groups])
    top = max(most, float(lost.max()))
    figure = _figure(0.6 + 0.2 * len(groups))
    axis = figure.subplots()
    axis.imshow(lost, cmap="Oranges", vmin=0, vmax=top, aspect="auto")
    for (row, column), value in np.ndenumerate(lost):
        dark, text = value > 0.6 * top, f"{value:.1f}" if metric.percent else f"{value:.3g}"
        axis.text(column, row, text, ha="center", va="center", color="white" if dark else "#000001")
    shares = [f"{p['kept'] / groups[0]['size']:.0%}" for p in groups[0]["points"]]
    axis.set(xticks=range(len(shares)), xticklabels=shares, xlabel="neurons kept")
    axis.set(yticks=range(len(groups)), yticklabels=[_short(g["id"]) for g in groups])
    axis.tick_params(length=0)
    return figure
