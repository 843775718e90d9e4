"""The form of `report.json`: what must hold of a report that comes from a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def malformed(report: Any) -> str | None:
    """Name of the first part of a report that is not of its form; None where all are.

    Args:
        report: a `Report` made of what a file holds.
    """
    for name in ("dense", "compact"):
        figures = getattr(report, name)
        counts = (figures.macs, figures.params, 0 if figures.nonzero is None else figures.nonzero)
        if not all(type(count) is int for count in counts) or min(counts) < 0 or 0 in counts[:2]:
            return name
        if not _number_or_none(figures.accuracy) or not _number_or_none(figures.loss):
            return name
    forms = {
        "groups": lambda v: all(type(g["id"]) is str and _counted(g) for g in v),
        "exactness": lambda v: all(_number_or_none(x) for x in v.values()),
        "target": lambda v: v is None or all(_number(x) for x in v.values()),
        "seconds": _number,
        "kept_whole": lambda v: all(type(k["id"]) is type(k["reason"]) is str for k in v),
        "stored": lambda v: not v or all(type(v[name]) is int and v[name] > 0 for name in ("dense", "compact")),
        "versions": lambda v: all(type(x) is str for x in v.values()),
        "unpriced": lambda v: type(v) is list and all(type(x) is str for x in v),
        "seed": lambda v: type(v) is int,
        **dict.fromkeys(("command", "data", "split", "device"), lambda v: type(v) is str),
        **dict.fromkeys(("config", "odd_widths", "steps"), lambda v: type(v) is dict),
        **dict.fromkeys(("curve", "history", "trials"), lambda v: all(type(entry) is dict for entry in v)),
    }
    return next((name for name, fits in forms.items() if not fits(getattr(report, name))), None)


def _counted(group: Mapping[str, Any]) -> bool:
    counts = [group[key] for key in ("kept", "weakened", "strengthened")]
    return type(group["size"]) is int and group["size"] > 0 and all(type(c) is int and c >= 0 for c in counts)


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _number_or_none(value: Any) -> bool:
    return value is None or _number(value)
