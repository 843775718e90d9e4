"""The page of a sensitivity analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files import write_atomically
from ...measures import MetricInfo
from ...shown import cut, largest
from ..times import served_by
from . import charts, html
from .charts import enough
from .drawings import BARS, capital
from .render import style, svg
from .words import COSTS


def write_sensitivity(name: str, found: Mapping[str, Any], path: Path) -> Path:
    """Write a page with the metric against the kept share, for the whole model and for every group.

    Args:
        name: of the model.
        found: what `Sensitivity.to_dict` returns.
        path: of the page.

    Raises:
        RunError: the file cannot be written.
    """
    dense, kept, metric = found["value"], found["cost"], MetricInfo.read(found["metric"])
    name_of_metric = capital(cut(metric.name, 60))
    note = (
        f"Nothing was trained between the cut and the measurement on {found['count']} inputs: this shows where "
        "the model is tender. The recovery of a run regains most of what is lost here."
    )
    parts = [f"<h1>{html.text(name)}</h1><p>{html.text(note)}</p>"]
    with style():
        timed = [point for point in found["whole"] if point.get("latency") is not None]
        if enough([dense, *timed]):
            drawing = svg(charts.value_curve(timed, dense, "latency", "share of the dense time", metric), "time")
            served = served_by(found["served"])
            caption = f"{name_of_metric} against the measured time of the cuts through all groups: {served}."
            parts.append(html.section("The whole model: time", html.figure(drawing, caption)))
        cost = COSTS[kept]
        if enough([dense, *found["whole"]]):
            share = f"share of the {cost} kept"
            drawing = svg(charts.value_curve(found["whole"], dense, kept, share, metric), "whole")
            caption = f"{name_of_metric} against the share of the {cost} that one cut through all groups keeps."
            parts.append(html.section("The whole model", html.figure(drawing, caption)))
        elif found["whole"]:
            parts.append(html.section("The whole model", _whole(found["whole"], cost, kept, metric)))
        groups, rest = largest(found["groups"], BARS, "groups", lambda g: g["size"], "--json prints all")
        drawing = svg(charts.lost_grid(groups, dense, metric), "groups")
        lost = f"Points of {cut(metric.name, 60)} lost" if metric.percent else f"Worse {cut(metric.name, 60)}"
        caption = f"{lost} when only so many of one group's neurons are kept. {rest}".rstrip()
        parts.append(html.section("Group by group", html.figure(drawing, caption)))
    content = html.page(f"{name}: sensitivity", *parts)
    write_atomically(path, lambda p: p.write_text(content, encoding="utf-8"))
    return path


def _whole(points: Sequence[Mapping[str, Any]], cost: str, key: str, metric: MetricInfo) -> str:
    """Cuts through all groups that are too few for a chart."""
    rows = [
        (f"{p[key]:.1%}", metric.text(p["value"]), "" if p.get("latency") is None else f"{p['latency']:.1%}")
        for p in points
    ]
    return html.table((f"{cost} kept", cut(metric.name, 60), "share of the dense time"), rows)
