"""The figures, each from plain values, of which it draws all; `drawings` sees to their number.

Their subjects are those of arXiv 2110.05954: patterns of pruned, weakened and strengthened neurons (figures 4
left and 5), their numbers per epoch (figure 4 right), and feature maps of pruned against strengthened kernels
(figure 3). Kinds differ in their hatching as well as in their colour.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ...shown import cut
from .render import HATCHES, INK, KINDS, PRUNED, STRENGTHENED, WEAKENED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.6  # inches: of letters that can be read on a phone, and are no larger than the text on a wide screen
SMALL = 8  # points
_COLUMNS = 3  # of small multiples
_TITLE = 18  # columns of the title of one of them
_LONGEST = 1000  # characters of a name that are looked at
_HATCHED = {"edgecolor": "#ffffff80", "linewidth": 0}


def blank(height: float) -> Figure:
    """A figure of the page's width and so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def breadth(text: str) -> int:
    """How wide a text is in columns, of which letters of the East take two."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def short(name: str, length: int = 26) -> str:
    """A name of at most so many columns.

    The parts of a module's name shrink to their first letter and their digits, the first ones first, so that
    layers of one kind can still be told apart.
    """
    parts = cut(name, _LONGEST).split(".")
    for at, part in enumerate(parts[:-1]):
        if breadth(".".join(parts)) <= length:
            break
        if part and not part.isdigit():
            parts[at] = part[0] + "".join(c for c in part[1:] if c.isdigit())
    text = ".".join(parts)
    for most in range(length, 1, -1):
        found = cut(text, most, front=1 / 3)
        if breadth(found) <= length:
            return found
    return ""


def before_axis(name: str) -> str:
    """A short name that stands to the left of an axis, with spaces for what letters of the East need more.

    The font by which figures are laid out lacks them, and its sign for that is narrower. A page shows no such
    spaces.
    """
    text = short(name)
    return " " * math.ceil(1.3 * (breadth(text) - len(text))) + text


def _legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=c, label=n, hatch=HATCHES[n], **_HATCHED) for n, c in KINDS.items()]
    figure.legend(handles=handles, ncols=3, loc="outside upper left")


def group_bars(groups: Sequence[Mapping[str, Any]]) -> Figure:
    """Per group, the shares of its neurons that are pruned, weakened and strengthened."""
    figure = blank(0.6 + 0.2 * len(groups))
    axis = figure.subplots()
    rows = np.arange(len(groups))
    sizes = np.array([g["size"] for g in groups], float)
    left = np.zeros(len(groups))
    for kind, color in KINDS.items():
        counts = [g["size"] - g["kept"] if kind == "pruned" else g[kind] for g in groups]
        share = np.array(counts, float) / sizes
        axis.barh(rows, share, left=left, facecolor=color, height=0.75, hatch=HATCHES[kind], **_HATCHED)
        left += share
    for row, g in enumerate(groups):
        axis.text(1.01, row, f"{g['kept']:,} of {g['size']:,}", va="center", fontsize=SMALL)
    axis.set(
        yticks=rows,
        yticklabels=[before_axis(g["id"]) for g in groups],
        xlim=(0, 1),
        ylim=(-0.6, len(groups) - 0.4),
    )
    axis.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.invert_yaxis()
    _legend(figure)
    return figure


def counts(seen: Mapping[int, Mapping[str, Sequence[int]]], sizes: Mapping[str, int]) -> Figure:
    """Neurons of every group that are off, weakened and strengthened, over some epochs of the search."""
    figure, panels = _panels(len(sizes))
    epochs = list(seen)
    for axis, name in zip(panels, sizes, strict=True):
        kept, weak, strong = (np.array([c[name][i] for c in seen.values()], float) for i in range(3))
        parts = [sizes[name] - kept, weak, strong]
        hatches = [HATCHES[kind] for kind in KINDS]
        axis.stackplot(epochs, parts, colors=list(KINDS.values()), hatch=hatches, **_HATCHED)
        axis.set(title=short(name, _TITLE), xticks=[epochs[0], epochs[-1]])
    _legend(figure)
    return figure


def histograms(scales: Mapping[str, Tensor]) -> Figure:
    """Scales of every group; those of exactly 0 as their own bar, and a stroke at 1, the dense model's."""
    figure, panels = _panels(len(scales))
    for axis, (name, scale) in zip(panels, scales.items(), strict=True):
        values = scale.float().numpy()
        alive = values[values > 0]
        low, top = (float(alive.min()), float(alive.max())) if len(alive) else (0.0, 1.0)
        reach = max(top - low, 1e-3)
        edges = np.linspace(low, low + reach, 25)
        heights, _ = np.histogram(alive, edges)
        below = [(a + b) / 2 < 1 for a, b in itertools.pairwise(edges)]
        colors = [WEAKENED if weak else STRENGTHENED for weak in below]
        hatches = [HATCHES["weakened" if weak else "strengthened"] for weak in below]
        axis.bar(edges[:-1], heights, np.diff(edges), align="edge", facecolor=colors, hatch=hatches, **_HATCHED)
        if low <= 1 <= low + reach:
            axis.axvline(1, color=INK, lw=0.8, ls=(0, (4, 2)))
        zero = low - 0.2 * reach
        axis.bar([zero], [int((values == 0).sum())], 0.1 * reach, color=PRUNED)
        ticks = [zero, low, low + reach]
        axis.set(title=short(name, _TITLE), xticks=ticks, xticklabels=["0", *(f"{v:.2f}" for v in ticks[1:])])
    _legend(figure)
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.ticker import MaxNLocator

    rows = math.ceil(count / _COLUMNS)
    figure = blank(1.2 * rows + 0.35)
    axes = np.atleast_1d(figure.subplots(rows, _COLUMNS, squeeze=False)).ravel().tolist()
    for spare in axes[count:]:
        spare.set_visible(False)
    for axis in axes:
        axis.tick_params(labelsize=SMALL)
        axis.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure, axes[:count]


def pixel_map(planes: Tensor) -> Figure:
    """Which pixels are read and how: pruned, weakened, strengthened; and their scales, a plane a row."""
    from matplotlib.colors import ListedColormap

    figure = blank(2.6 if len(planes) == 1 else 1.7 * len(planes))
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


def _over(axis: Axes, text: str) -> None:
    """Text above a picture, which may be longer than that is wide; a title would push its neighbours away."""
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axis.annotate(text, (0, 1), (0, 3), annotation_clip=False, **place).set_in_layout(False)


def feature_maps(pictures: Mapping[str, Tensor]) -> Figure:
    """An input, and what pruned and strengthened kernels of some layers make of it."""
    rows = [name for name in pictures if name != "input"]
    columns = max(len(pictures[name]) for name in rows)
    height = 0.75 * len(rows) + 0.25
    figure = blank(height)
    # Titles are longer than their pictures are wide: they have room above, and move nothing.
    figure.set_layout_engine("constrained", h_pad=0.1, rect=(0, 0, 1, 1 - 0.12 / height))
    grid = figure.add_gridspec(len(rows), columns + 2)
    first = figure.add_subplot(grid[:2, :2])
    image = pictures["input"].permute(1, 2, 0).numpy()
    first.imshow(image if image.shape[2] == 3 else image[:, :, 0], cmap="gray", vmin=0, vmax=255)
    first.set(xticks=[], yticks=[])
    _over(first, "input")
    for row, name in enumerate(rows):
        layer, kind = name.rsplit("|", 1)
        for column, plane in enumerate(pictures[name]):
            axis = figure.add_subplot(grid[row, column + 2])
            axis.imshow(plane.numpy(), cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(visible=True, color=KINDS.get(kind, INK), linewidth=1.5)
            if column == 0:
                _over(axis, f"{short(layer)}: {kind}")
    return figure
