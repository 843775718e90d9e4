"""Several runs on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...files import write_atomically
from ...measures import ACCURACY, MetricInfo
from ...shown import cut
from ..report import Report, goal
from ..times import digits, marks, per_second, speed_up
from . import charts, html
from .charts import enough
from .drawings import capital
from .render import style, svg
from .words import when

_NAME = 60  # characters of a metric's name
_FIRST = ("run", "data", "target", "dense ms", "ms", "inputs/s", "speed-up")
_LAST = ("MACs kept", "parameters kept")


def head(runs: Sequence[tuple[str, Report]]) -> tuple[str, ...]:
    """Names of the columns of `comparison`; where runs were judged by different metrics each row says by which."""
    metric = _common(runs)
    if metric is None:
        return (*_FIRST, "metric", "dense value", "value", "change", *_LAST)
    name = cut(metric.name, _NAME)
    return (*_FIRST, f"dense {name}", name, metric.unit, *_LAST)


def comparison(runs: Sequence[tuple[str, Report]]) -> list[tuple[str, ...]]:
    """One row per run, in the order of `head`.

    Times that are not to be compared with each other have different marks, of which `marks` says what they mean.
    """
    rows, (signs, _) = [], marks([r.latency for _, r in runs])
    mixed = _common(runs) is None
    for (name, r), sign in zip(runs, signs, strict=True):
        # By compare() there was no run, and no target.
        wanted = "" if not r.groups and r.split == "given" else goal(r.target)
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
    table = html.table(head(runs), comparison(runs))
    dates = [f"{name}: {when(r.date)}" for name, r in runs if r.date]
    parts = ["<h1>Runs side by side</h1>", html.note("; ".join(dates)), table, *map(html.note, said)]
    with style():
        for at, metric in enumerate(dict.fromkeys(r.metric for _, r in runs)):
            chosen = [(name, r, r.compact.value) for name, r in runs if r.metric == metric]
            judged = [(name, r, value) for name, r, value in chosen if value is not None]
            parts += _drawn(judged, metric, str(at or ""), timed=not any(signs))
    content = html.page("Runs side by side: snnprune", *parts)
    write_atomically(path, lambda p: p.write_text(content, encoding="utf-8"))
    return path


def _drawn(runs: Sequence[tuple[str, Report, float]], metric: MetricInfo, mark: str, *, timed: bool) -> list[str]:
    """Sections on runs that were judged by one metric, whose names in the page have a mark of their own."""
    parts, name = [], capital(cut(metric.name, _NAME))
    times = [
        (run, r.latency["share"], value, r.dense.value)
        for run, r, value in runs
        if r.latency is not None and r.latency["share"] is not None
    ]
    costs = [(run, r.compact.macs / r.dense.macs, value, r.dense.value) for run, r, value in runs]
    for title, points, cost, file in (
        ("What it takes", times if timed else [], "share of the dense time", "time"),
        ("What it costs", costs, "share of the MACs kept", "trade-off"),
    ):
        dense = list(dict.fromkeys(value for *_, value in points if value is not None))
        if not enough([*points, *dense]):
            continue
        shown = [point[:3] for point in points]
        drawing = svg(charts.trade_off(shown, cost, metric, dense), f"{file}{mark}")
        caption = f"{name} over the {cost}; a cross at 100% is a dense model."
        parts.append(html.section(title, html.figure(drawing, caption)))
    return parts
