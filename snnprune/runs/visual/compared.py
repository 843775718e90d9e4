"""Several runs on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...files import write_atomically
from ...shown import cut
from ..report import Report, goal
from . import figures, html
from .render import style, svg

HEAD = ("run", "data", "target", "dense", "compact", "points", "MACs kept", "params kept")


def comparison(runs: Sequence[tuple[str, Report]]) -> list[tuple[str, ...]]:
    """One row per run, in the order of `HEAD`; accuracies in per cent."""
    rows = []
    for name, r in runs:
        # By compare() there was no run, and no target.
        wanted = "" if not r.groups and r.split == "given" else goal(r.target)
        a, b = r.dense.accuracy, r.compact.accuracy
        scores = ("", "", "") if a is None or b is None else (f"{a:.2%}", f"{b:.2%}", f"{100 * (b - a):+.2f}")
        shares = (f"{r.compact.macs / r.dense.macs:.1%}", f"{r.compact.params / r.dense.params:.1%}")
        rows.append((cut(name), cut(r.data), wanted, *scores, *shares))
    return rows


def write_comparison(runs: Sequence[tuple[str, Report]], path: Path) -> Path:
    """Write a page with a table of the runs, and their accuracies over what they cost.

    Raises:
        RunError: the file cannot be written.
    """
    parts = ["<h1>Runs side by side</h1>", html.table(HEAD, comparison(runs))]
    points = [
        (name, r.compact.macs / r.dense.macs, r.compact.accuracy)
        for name, r in runs
        if r.compact.accuracy is not None
    ]
    if points:
        with style():
            drawing = svg(figures.trade_off(points), "trade-off")
        parts.append(html.section("What it costs", html.figure(drawing, "Accuracy over the share of MACs kept.")))
    content = html.page("Runs side by side: snnprune", *parts)
    write_atomically(path, lambda p: p.write_text(content, encoding="utf-8"))
    return path
