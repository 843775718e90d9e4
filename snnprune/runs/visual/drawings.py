"""Which figures there are of a run, what they show, and what they leave out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...forms import is_number
from ...measures import MetricInfo
from ...shown import cut, first, largest, last, spread
from ..report import Report
from . import charts, figures
from .asked import kept_share
from .charts import enough, epochs_judged
from .material import Material
from .words import COSTS, SPLITS, STAGES, metric_of, named

if TYPE_CHECKING:
    from .figures import Figure

BARS = 120  # groups in one figure
_PANELS = 24  # small multiples in one figure
_POINTS, _EPOCHS = 1000, 200  # of a curve
_LAYERS, _MAPS, _SIDE = 12, 8, 512  # rows and columns of feature maps, and pixels along a side of one
_PLANES = 4  # channels of an input
_TRIALS, _SLOWEST = 500, 1e6  # in one figure, and times the dense model's time
_NAME, _FAR = 60, 1e30  # characters of a metric's name, and how large a value is that can be drawn


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure before it is drawn.

    Attributes:
        name: of its file.
        title: of its section.
        caption: what it shows.
        draw: makes it.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]


def drawings(material: Material) -> Iterator[Drawing]:
    """What there is material for; of each only so much that drawing it is quick, and its caption says so."""
    report = material.report
    if report.groups:
        groups, rest = largest(report.groups, BARS, "groups", lambda g: g["size"])
        text = (
            "Share of every group's neurons that was pruned, weakened (scale below 1) and strengthened (scale of "
            "1 or more), and how many were kept."
        )
        yield _drawing("groups", "Neurons by group", [text, rest], lambda: figures.group_bars(groups))
    yield from _trials(material)
    yield from _course(material)
    yield from _counts(material)
    if material.scales:
        place = {g["id"]: at for at, g in enumerate(report.groups)}
        names = sorted(material.scales, key=lambda n: place.get(n, len(place)))
        names, rest = largest(names, _PANELS, "groups", lambda n: len(material.scales[n]), "the rest is on file")
        text = (
            "How many neurons of a group have which scale at compaction. The bar on its own is those of exactly "
            "0; single inputs that go with their channel are not among them. In the dense model all scales are 1, "
            "at the stroke."
        )
        scales = {name: material.scales[name] for name in names}
        yield _drawing("scales", "Scales", [text, rest], lambda: figures.histograms(scales))
    yield from _pixels(material)
    yield from _maps(material)


def _drawing(name: str, title: str, sentences: Sequence[str], draw: Callable[[], Figure]) -> Drawing:
    return Drawing(name, title, " ".join(sentence for sentence in sentences if sentence), draw)


def _course(material: Material) -> Iterator[Drawing]:
    report, sentences = material.report, []
    metric = report.metric

    def thinned(entries: Sequence[Mapping[str, Any]], what: str) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        for stage in ("search", "recover"):
            own = [entry for entry in entries if entry["stage"] == stage]
            own, rest = spread(own, _POINTS, f"{what} of the stage {named(stage, STAGES)}")
            found += own
            sentences.append(rest)
        return found

    curve = thinned(report.curve, "points")
    history = thinned(epochs_judged(report.history), "epochs")
    if not enough(curve) and not enough(history):
        return
    text = "Over the training steps: the search, then the recovery."
    if enough([point for point in curve if point.get("budget") is not None]):
        text += (
            " The share of the cost is what the budget allows in the search, and what the compact model has in "
            "the recovery."
        )
    dense = _dense_value(report)
    if enough(history) and dense is not None:
        text += f" The dense model's {cut(metric.name, _NAME)} is that on the {dense[0]} part."
        dense = "dense", dense[1]
    kept = {cost: kept_share(report, cost) for cost in ("macs", "params")}
    draw = lambda: charts.course(curve, history, report.steps, kept, metric, dense)  # noqa: E731
    yield _drawing("course", "Course of the run", [text, *sentences], draw)


def _dense_value(report: Report) -> tuple[str, float] | None:
    """The dense model's value to draw beside those of epochs, and what part it is of.

    That on validation data where it was measured: for the trials of a `drop` target, or where there are no test
    data. Elsewhere it is that on test data.
    """
    if report.target is not None and "drop" in report.target:
        for trial in report.trials:
            if (point := _point(trial, "macs" if "macs" in trial else "params", report.metric)) is not None:
                return SPLITS["val"], point["dense"]
    value = _within(report.dense.value, -_FAR, _FAR)
    return None if value is None else (named(report.split, SPLITS), value)


def _trials(material: Material) -> Iterator[Drawing]:
    """The metric against cost, and against time where trials were timed; of a `drop` target."""
    report = material.report
    metric = report.metric
    kept = next((name for name in ("macs", "params") if any(name in trial for trial in report.trials)), "macs")
    allowed = None if report.target is None else report.target.get("drop")
    found = [point for trial in report.trials if (point := _point(trial, kept, metric)) is not None]
    if not found or not isinstance(allowed, (int, float)):
        return
    found, rest = last(found, _TRIALS, "trials")
    timed = [p for p in found if p["latency"] is not None]
    costs = {"latency": "share of the dense time"} if enough([None, *timed]) else {}
    if enough([None, *found]):  # the dense model is a point too
        costs[kept] = f"share of the {COSTS[kept]} kept"
    if not costs:
        return
    best = found[-1]["dense"]
    name = cut(metric.name, _NAME)
    judged = metric_of("val", metric)
    text = f"The {judged} of the trials over what they kept; the cross at 100% is the dense model."
    if "latency" in costs and len(timed) < len(found):
        text += " Trials without a time that can be believed are missing over the time."
    draw = lambda: charts.trials(found, costs, metric, best, metric.worse(best, allowed))  # noqa: E731
    over = "time and cost" if "latency" in costs else "cost"
    yield _drawing("trials", f"{capital(name)} against {over}", [text, rest], draw)


def capital(name: str) -> str:
    """A name at the beginning of a sentence; a shorthand such as mIoU stays."""
    return name.capitalize() if name.islower() else name


def _point(trial: Mapping[str, Any], kept: str, metric: MetricInfo) -> dict[str, Any] | None:
    """What is drawn of a trial; None of one that failed, or is of another kind."""
    far = 1.0 if metric.percent else _FAR
    cost = _within(trial.get(kept), 0, 1)
    value, lost = (_within(trial.get(name), -far, far) for name in ("val_value", "drop"))
    if cost is None or value is None or lost is None:
        return None
    return {
        kept: cost,
        "latency": _within(trial.get("latency"), 0, _SLOWEST),
        "value": value,
        "dense": metric.worse(value, -lost),
        "passed": trial.get("passed") is True,
    }


def _within(value: Any, low: float, high: float) -> float | None:
    return value if is_number(value) and low <= value <= high else None


def _counts(material: Material) -> Iterator[Drawing]:
    seen = list(enumerate((h["counts"] for h in material.report.history if "counts" in h), 1))
    if not enough(seen):  # the last epoch's are those of the groups
        return
    seen, thinned = spread(seen, _EPOCHS, "epochs")
    names = [g["id"] for g in material.report.groups if all(g["id"] in counts for _, counts in seen)]
    sizes = {g["id"]: g["size"] for g in material.report.groups}
    names, rest = largest(names, _PANELS, "groups", lambda n: sizes[n])
    if names:
        text = "How many neurons of a group were off, weakened and strengthened; the dense model has them all."
        chosen = {name: sizes[name] for name in names}
        draw = lambda: figures.counts(dict(seen), chosen)  # noqa: E731
        yield _drawing("counts", "Counts per epoch of the search", [text, rest, thinned], draw)


def _pixels(material: Material) -> Iterator[Drawing]:
    found = material.pixels()
    if found is None:
        return
    name, shape = found
    channels, rest = first(range(shape[0]), _PLANES, "channels", "the rest is on file")
    planes = _small(material.scales[name].reshape(shape)[: len(channels)])
    text = "Which values of the input are still read, and their scales."
    yield _drawing("pixels", "Inputs", [text, rest], lambda: figures.pixel_map(planes))


def _maps(material: Material) -> Iterator[Drawing]:
    names = [name for name in material.pictures if name != "input"]
    if not names or len(names) == len(material.pictures):
        return
    names, rest = first(names, _LAYERS, "rows of feature maps", "the rest is on file")
    most = max(len(material.pictures[name]) for name in names)
    more = f"Of up to {most:,} maps of a kernel's kind {_MAPS} are shown." if most > _MAPS else ""
    pictures = {name: _small(material.pictures[name][:_MAPS]) for name in ("input", *names)}
    text = "What kernels make of one input before the search: pruned against strengthened ones."
    yield _drawing("maps", "Feature maps", [text, rest, more], lambda: figures.feature_maps(pictures))


def _small(image: Tensor) -> Tensor:
    """(..., height, width) of so few rows and columns that it is drawn quickly."""
    rows, columns = (-(-length // _SIDE) for length in image.shape[-2:])
    return image[..., ::rows, ::columns]
