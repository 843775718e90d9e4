"""Several runs on one page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...files import write_atomically
from ...measures import ACCURACY, MetricInfo
from ...shown import cut
from ..report import Report, goal
from ..times import digits, marks, per_second, speed_up
from . import charts, html
from .asked import target_words
from .charts import enough
from .drawings import capital
from .render import style, svg
from .words import when

Row = tuple[str, ...]
_NAME = 60  # characters of a metric's name
_FIRST = ("run", "data", "target", "dense ms", "ms", "inputs/s", "speed-up")
_WORDS = {
    "dense ms": "dense time (ms)",
    "ms": "time (ms)",
    "inputs/s": "inputs a second",
    "target": "asked",
    "params kept": "parameters kept",
}
_LAST = ("MACs kept", "params kept")


def head(runs: Sequence[tuple[str, Report]]) -> tuple[str, ...]:
    """Names of the columns of `comparison`; where runs were judged by different metrics each row says by which."""
    metric = _common(runs)
    if metric is None:
        return (*_FIRST, "metric", "dense value", "value", "change", *_LAST)
    name = cut(metric.name, _NAME)
    return (*_FIRST, f"dense {name}", name, metric.unit, *_LAST)


def comparison(runs: Sequence[tuple[str, Report]], asked: Callable[[Report], str] | None = None) -> list[Row]:
    """One row per run, in the order of `head`; a target is as on the command line, or as `asked` says it.

    Times that are not to be compared with each other have different marks, of which `marks` says what they mean.
    """
    rows, (signs, _) = [], marks([r.latency for _, r in runs])
    mixed = _common(runs) is None
    for (name, r), sign in zip(runs, signs, strict=True):
        # By compare() there was no run, and no target.
        wanted = "" if not r.groups and r.split == "given" else goal(r.target) if asked is None else asked(r)
        a, b, metric = r.dense.value, r.compact.value, r.metric
        named = cut(metric.name, _NAME) if mixed else None
        judged = ("", "", "")
        if a is not None and b is not None:
            judged = (metric.text(a), metric.text(b), metric.difference(b - a))
        judged = judged if named is None else (named if judged[0] else "", *judged)
        shares = (f"{r.compact.macs / r.dense.macs:.1%}", f"{r.compact.params / r.dense.params:.1%}")
        rows.append((cut(name), cut(r.data), wanted, *_times(r, sign), *judged, *shares))
    return rows


def _common(runs: Sequence[tuple[str, Report]]) -> MetricInfo | None:
    """The metric of all runs; None where there are several."""
    found = list(dict.fromkeys(r.metric for _, r in runs if r.compact.value is not None))
    return None if len(found) > 1 else found[0] if found else ACCURACY


def _times(report: Report, sign: str) -> tuple[str, ...]:
    times = report.latency
    if times is None:
        return ("", "", "", "")
    found = (digits(times["dense_ms"]), digits(times["compact_ms"]), digits(per_second(times, "compact")))
    return tuple(f"{text} {sign}".rstrip() for text in (*found, speed_up(times)))


def write_comparison(runs: Sequence[tuple[str, Report]], path: Path) -> Path:
    """Write a page with a table of the runs, and their metrics over what they cost.

    Raises:
        RunError: the file cannot be written.
    """
    signs, said = marks([r.latency for _, r in runs])
    heads = [_WORDS.get(name, name) for name in head(runs)]
    table = html.table(heads, comparison(runs, target_words))
    dates = [f"{name}: {when(r.date)}" for name, r in runs if r.date]
    parts = ["<h1>Runs side by side</h1>", html.note("; ".join(dates)), table, *map(html.note, said)]
    with style():
        for number, metric in enumerate(dict.fromkeys(r.metric for _, r in runs)):
            judged = [at for at, (_, r) in enumerate(runs) if r.metric == metric and r.compact.value is not None]
            parts += _drawn(runs, judged, metric, str(number or ""), timed=not any(signs))
    content = html.page("Runs side by side: snnprune", *parts)
    write_atomically(path, lambda p: p.write_text(content, encoding="utf-8"))
    return path


def _drawn(
    runs: Sequence[tuple[str, Report]], chosen: Sequence[int], metric: MetricInfo, mark: str, *, timed: bool
) -> list[str]:
    """Sections on the chosen runs, all judged by one metric, whose names in the page have a mark of their own."""
    parts, name = [], capital(cut(metric.name, _NAME))
    takes = {at: times["share"] for at in chosen if timed and (times := runs[at][1].latency) is not None}
    costs = {at: runs[at][1].compact.macs / runs[at][1].dense.macs for at in chosen}
    for title, shares, cost, file in (
        ("What it takes", takes, "share of the dense time", "time"),
        ("What it costs", costs, "share of the MACs kept", "trade-off"),
    ):
        points = {
            at: (runs[at][0], share, value)
            for at, share in shares.items()
            if share is not None and (value := runs[at][1].compact.value) is not None
        }
        values = (runs[at][1].dense.value for at in points)
        dense = list(dict.fromkeys(value for value in values if value is not None))
        if enough([*points, *dense]):
            figure = charts.trade_off(list(points.values()), cost, metric, dense, list(points))
            caption = f"{name} over the {cost}; a cross at 100% is a dense model."
            parts.append(html.section(title, html.figure(svg(figure, f"{file}{mark}"), caption)))
    return parts
