"""The form of `report.json`: what must hold of a report that comes from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_PLAIN = (str, int, float, bool, type(None))


def malformed(report: Any) -> str | None:
    """Name of the first part of a report that is not of its form; None where all are.

    Args:
        report: a `Report` made of what a file holds.
    """
    for name in ("dense", "compact"):
        figures = getattr(report, name)
        counts = (figures.macs, figures.params, 0 if figures.nonzero is None else figures.nonzero)
        if not all(map(_count, counts)) or 0 in counts[:2]:
            return name
        if not _share_or_none(figures.accuracy) or not _number_or_none(figures.loss):
            return name
    forms = {
        "groups": lambda v: _every(v, lambda g: type(g["id"]) is str and _counted(g)),
        "kept_whole": lambda v: _every(v, lambda k: type(k["id"]) is type(k["reason"]) is str),
        "unpriced": lambda v: _every(v, lambda x: type(x) is str),
        "trials": lambda v: _every(v, lambda trial: all(type(x) in _PLAIN for x in trial.values())),
        "exactness": lambda v: all(_number_or_none(x) for x in v.values()),
        "target": lambda v: v is None or (len(v) == 1 and all(map(_number, v.values()))),
        "seconds": _number,
        "stored": lambda v: not v or all(type(v[name]) is int and v[name] > 0 for name in ("dense", "compact")),
        "speed": lambda v: v is None or (type(v) is dict and all(map(_number, v["measured"].values()))),
        "versions": lambda v: all(type(x) is str for x in v.values()),
        "seed": lambda v: type(v) is int,
        "config": lambda v: type(v) is dict,
        **dict.fromkeys(("command", "data", "split", "device"), lambda v: type(v) is str),
        **dict.fromkeys(("odd_widths", "steps"), lambda v: all(map(_count, v.values()))),
        **dict.fromkeys(("curve", "history"), lambda v: _every(v, _point)),
    }
    return next((name for name, fits in forms.items() if not _fits(getattr(report, name), fits)), None)


def _fits(value: Any, fits: Callable[[Any], bool]) -> bool:
    try:
        return fits(value)
    except (TypeError, AttributeError, KeyError):  # a value of another type, or an entry that is missing
        return False


def _every(entries: Any, fits: Callable[[Any], bool]) -> bool:
    return type(entries) is list and all(map(fits, entries))


def _counted(group: Mapping[str, Any]) -> bool:
    """Whether a group's counts are numbers of its neurons."""
    size = group["size"]
    counts = [group[key] for key in ("kept", "weakened", "strengthened")]
    return type(size) is int and size > 0 and all(_count(count) and count <= size for count in counts)


def _point(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of `curve` or `history` is what can be drawn: a step of a stage, and numbers."""
    get = entry.get
    for name in ("loss", "val_loss", "budget"):  # a loop, because there may be a million entries
        if type(get(name)) not in (float, int, type(None)):
            return False
    known = type(get("stage")) is str and _count(get("step")) and type(get("metric")) in (str, type(None))
    counts = get("counts", {})
    return (
        known
        and _share_or_none(get("val_accuracy"))
        and type(counts) is dict
        and all(_every(found, _count) and len(found) == 3 for found in counts.values())
    )


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _number_or_none(value: Any) -> bool:
    return value is None or _number(value)


def _share_or_none(value: Any) -> bool:
    return value is None or (_number(value) and 0 <= value <= 1)
