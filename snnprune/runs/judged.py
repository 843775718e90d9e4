"""What a report's figures are worth: on how many inputs, how far off by chance, and whether a drop was kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..measures import ACCURACY
from ..measures.intervals import change_interval
from ..shown import cut

if TYPE_CHECKING:
    from .report import Report

_PARTS = {"val": "validation", "test": "test", "given": "given", "train": "training"}


def interval_of(report: Report) -> tuple[float, float] | None:
    """Where the change of the accuracy lies, at 95 %, a fraction; None where nothing is known of that.

    Only the accuracy is a share of inputs, so that its deviation by chance is known.
    """
    before, after, count = report.dense.accuracy, report.compact.accuracy, report.inputs.get(report.split)
    if report.metric != ACCURACY or before is None or after is None or not count:
        return None
    return change_interval(before, after, count, report.both_right)


def worth(report: Report) -> list[str]:
    """Sentences below the table: the inputs and the interval, and what was asked by `drop`."""
    before, after, count = report.dense.value, report.compact.value, report.inputs.get(report.split)
    if before is None or after is None or not count:
        return []
    metric, interval = report.metric, interval_of(report)
    found = f"{cut(metric.name)}: {metric.change(before, after)} on {_inputs(report, report.split)}"
    if interval is not None:
        low, high = map(metric.difference, interval)
        found += f"; 95 % interval of the change: {low} to {high}"
    return [found, *_kept(report, metric.lost(before, after), interval)]


def _kept(report: Report, lost: float, interval: tuple[float, float] | None) -> list[str]:
    """Whether the drop that was asked for, and that validation data decided about, holds here too."""
    drop = (report.target or {}).get("drop")
    if not isinstance(drop, (int, float)):
        return []
    if report.split != "test":
        return ["these data decided about the cut too: whether the drop holds on others, only test data can tell"]
    metric, val = report.metric, report.inputs.get("val")
    asked = f"a drop of {_amount(report, drop)} was allowed"
    asked += f", decided on {_inputs(report, 'val')}" if val else ", decided on validation data"
    if lost <= drop:
        said, remedy = "on the test data it is kept", ""
        most = drop if interval is None else -interval[0]
        doubt = most > drop and _amount(report, most) != _amount(report, drop)
        more = f", though so few inputs do not rule out one of {_amount(report, most)}" if doubt else ""
    else:
        said = f"on the test data it is missed by {_amount(report, lost - drop)}"
        remedy = f". Ask for less, or give more validation data by which {metric.name} is judged"
        if interval is None:
            more = ""
        elif -interval[1] <= drop:
            more = ", which may be chance: the interval holds it"
        else:
            more = ", and not by chance alone"
    return [f"{asked}; {said}{more}{remedy}"]


def _amount(report: Report, value: float) -> str:
    return f"{100 * value:.2f} points" if report.metric.percent else f"{value:.4g}"


def _inputs(report: Report, part: str) -> str:
    """How many inputs of which part."""
    count = report.inputs[part]
    return f"{count:,} {_PARTS.get(part, cut(part))} input{'s' * (count != 1)}"
