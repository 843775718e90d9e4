"""Several runs on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...files import write_atomically
from ...shown import cut
from ..report import Report, goal
from ..times import digits, marks, per_second, speed_up
from . import figures, html
from .render import style, svg

HEAD = (
    *("run", "data", "target", "dense ms", "ms", "inputs/s", "speed-up"),
    *("dense accuracy", "accuracy", "points", "MACs kept", "params kept"),
)


def comparison(runs: Sequence[tuple[str, Report]]) -> list[tuple[str, ...]]:
    """One row per run, in the order of `HEAD`; accuracies in per cent.

    Times that are not to be compared with each other have different marks, of which `marks` says what they mean.
    """
    rows, (signs, _) = [], marks([r.latency for _, r in runs])
    for (name, r), sign in zip(runs, signs, strict=True):
        # By compare() there was no run, and no target.
        wanted = "" if not r.groups and r.split == "given" else goal(r.target)
        a, b = r.dense.accuracy, r.compact.accuracy
        scores = ("", "", "") if a is None or b is None else (f"{a:.2%}", f"{b:.2%}", f"{100 * (b - a):+.2f}")
        shares = (f"{r.compact.macs / r.dense.macs:.1%}", f"{r.compact.params / r.dense.params:.1%}")
        rows.append((cut(name), cut(r.data), wanted, *_times(r, sign), *scores, *shares))
    return rows


def _times(report: Report, sign: str) -> tuple[str, ...]:
    times = report.latency
    if times is None:
        return ("", "", "", "")
    found = (digits(times["dense_ms"]), digits(times["compact_ms"]), digits(per_second(times, "compact")))
    return tuple(f"{text} {sign}".rstrip() for text in (*found, speed_up(times)))


def write_comparison(runs: Sequence[tuple[str, Report]], path: Path) -> Path:
    """Write a page with a table of the runs, and their accuracies over what they cost.

    Raises:
        RunError: the file cannot be written.
    """
    signs, said = marks([r.latency for _, r in runs])
    table = html.table(HEAD, comparison(runs))
    parts = ["<h1>Runs side by side</h1>", table, *map(html.note, said)]
    scored = [(name, r, r.compact.accuracy) for name, r in runs if r.compact.accuracy is not None]
    timed = [
        (name, r.latency["share"], accuracy)
        for name, r, accuracy in scored
        if r.latency is not None and r.latency["share"] is not None
    ]
    with style():
        if timed and not any(signs):
            drawing = svg(figures.trade_off(timed, "time, as a share of the dense model's"), "time")
            caption = "Accuracy over the measured time, as a share of the dense model's."
            parts.append(html.section("What it takes", html.figure(drawing, caption)))
        if scored:
            points = [(name, r.compact.macs / r.dense.macs, accuracy) for name, r, accuracy in scored]
            drawing = svg(figures.trade_off(points, "MACs kept"), "trade-off")
            caption = "Accuracy over the share of MACs kept."
            parts.append(html.section("What it costs", html.figure(drawing, caption)))
    content = html.page("Runs side by side: snnprune", *parts)
    write_atomically(path, lambda p: p.write_text(content, encoding="utf-8"))
    return path
