"""The contest's page: what can be said, the table, the figure, every run, and how it was made."""

from __future__ import annotations

import json
from pathlib import Path

from ..files import write_atomically
from ..runs.report import goal
from ..runs.visual import html
from ..runs.visual.render import style, svg
from ..shown import ROWS, cut, first
from . import figure
from .book import Contest

RULES = (
    "Every run starts from the same weights, takes the same number of training steps on the same batches in the "
    "same order as the others of its seed, and recovers with the same optimiser, schedule and loss. What a method "
    "spends before the removal is taken off its recovery. Nothing was tuned.",
    "A criterion by its name gives the order alone: threshold, surgery and rounding are ours. As it is means "
    "torch-pruning's own pruner, its ratio found by bisection, the same in every layer (local) or by one ranking "
    "(global); it keeps any width.",
    "Dense, trained on is the dense network in the same recovery, with nothing cut. As fast is how many times as "
    "fast as the dense model a result is, timed beside it.",
    "Means with their 95 % intervals over (n) seeds, by Student's t. Ours less it is the mean of the differences "
    "seed by seed, positive where ours is better. The best of several rivals is picked by the same runs, which "
    "favours it.",
)


_DRAWN = 1e30  # the largest value that an axis is made for


def write_page(found: Contest, path: Path) -> Path:
    """Write the page; it needs nothing but itself.

    Raises:
        RunError: it cannot be written.
    """
    metric, all_of = found.metric, found.standings
    name = cut(metric.name, 60)
    line = (
        f"{found.data} · target {goal(found.target)} · {found.steps} training steps a run · {name} on "
        f"{found.split} data · {found.device}"
    )
    dense = found.dense.get("value")
    parts = [f'<h1>Contest</h1><p class="dim">{html.text(line)}</p>', f"<p><b>{html.text(found.verdict)}</b></p>"]
    notes = [html.note(remark) for remark in found.remarks()]
    known = "" if dense is None else html.note(f"The dense model has {metric.text(dense)}.")
    parts.append(html.section("Methods", html.table(found.heads, found.table()), known, *notes))
    with_values = [one for one in all_of if one.values]
    largest = max((abs(value) for one in with_values for value in one.values.values()), default=0.0)
    if largest > _DRAWN:
        parts.append(html.section("Runs", html.note(f"Values as large as {largest:.1e} are not drawn.")))
    elif with_values:
        with style():
            drawn = svg(figure.runs(with_values, metric, dense), "contest")
        caption = (
            f"Every run is a dot, by its {name}; means with their intervals; torch-pruning's criteria in blue."
        )
        parts.append(html.section("Runs", html.figure(drawn, caption)))
    rows, rest = first(found.rows, ROWS, "runs", "contest.json has all")
    cells = [
        (
            row["method"],
            row["seed"],
            "failed" if row["value"] is None else metric.text(row["value"]),
            *("" if row[key] is None else f"{row[key]:.3f}" for key in ("macs", "params")),
            ", ".join(f"{stage} {count}" for stage, count in row["steps"].items() if count),
            "" if row["exact"] is None else f"{row['exact']:.1e}",
        )
        for row in rows
    ]
    columns = ("method", "seed", name, "MACs", "params", "steps", "exactness")
    parts.append(html.section("Run by run", html.table(columns, cells), html.note(rest)))
    parts.append(html.section("The rules", *(f"<p>{html.text(rule)}</p>" for rule in RULES)))
    made = f"<pre>{html.text(found.command, 4000)}</pre>" if found.command else ""
    versions = ", ".join(f"{k} {v}" for k, v in found.versions.items())
    options = html.text(json.dumps(found.config), 8000)
    parts.append(
        html.section(
            "How it was made",
            made,
            f"<p>{html.text(f'Versions: {versions}.')}</p>",
            f"<details><summary>All options</summary><pre>{options}</pre></details>",
        )
    )
    content = html.page("Contest: snnprune", *parts)
    write_atomically(path, lambda p: p.write_text(content, encoding="utf-8"))
    return path
