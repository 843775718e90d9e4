"""The forms of what runs write down: what must hold of a report, or of a part of one, that comes from a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_TIME = re.compile(r"[0-9.e+-]{1,30}ms")
_PLAIN = (str, int, float, bool, type(None))


def malformed(report: Any) -> str | None:
    """Name of the first part of a report that is not of its form; None where all are.

    Args:
        report: a `Report` made of what a file holds.
    """
    for name in ("dense", "compact"):
        figures = getattr(report, name)
        counts = (figures.macs, figures.params, 0 if figures.nonzero is None else figures.nonzero)
        if not all(map(is_count, counts)) or 0 in counts[:2]:
            return name
        if not _share_or_none(figures.accuracy) or not all(map(_number_or_none, (figures.value, figures.loss))):
            return name
    forms = {
        "groups": lambda v: _every(v, lambda g: type(g["id"]) is str and is_counted(g)),
        "kept_whole": lambda v: _every(v, lambda k: type(k["id"]) is type(k["reason"]) is str),
        "unpriced": lambda v: _every(v, lambda x: type(x) is str),
        "trials": lambda v: _every(v, lambda trial: all(type(x) in _PLAIN for x in trial.values())),
        "exactness": lambda v: all(_number_or_none(x) for x in v.values()),
        "target": lambda v: v is None or (len(v) == 1 and all(map(_is_aim, v.items()))),
        "seconds": is_number,
        "stored": lambda v: not v or all(type(v[name]) is int and v[name] > 0 for name in ("dense", "compact")),
        "speed": lambda v: v is None or (type(v) is dict and all(map(is_number, v["measured"].values()))),
        "latency": lambda v: v is None or is_timed(v),
        "versions": lambda v: all(type(x) is str for x in v.values()),
        "seed": lambda v: type(v) is int,
        "config": lambda v: type(v) is dict,
        **dict.fromkeys(("command", "data", "split", "device", "date"), lambda v: type(v) is str),
        "both_right": lambda v: v is None or is_count(v),
        **dict.fromkeys(("odd_widths", "steps", "inputs"), lambda v: all(map(is_count, v.values()))),
        **dict.fromkeys(("curve", "history"), lambda v: _every(v, is_point)),
    }
    return next((name for name, fits in forms.items() if not _fits(getattr(report, name), fits)), None)


def _fits(value: Any, fits: Callable[[Any], bool]) -> bool:
    try:
        return fits(value)
    except (TypeError, AttributeError, KeyError):  # a value of another type, or an entry that is missing
        return False


def _every(entries: Any, fits: Callable[[Any], bool]) -> bool:
    return type(entries) is list and all(map(fits, entries))


def is_counted(group: Mapping[str, Any]) -> bool:
    """Whether a group's counts are numbers of its neurons."""
    size: Any = group.get("size")
    counts: list[Any] = [group.get(key) for key in ("kept", "weakened", "strengthened")]
    return type(size) is int and size > 0 and all(is_count(count) and count <= size for count in counts)


def is_point(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of `curve` or `history` is what can be drawn: a step of a stage, and numbers."""
    get = entry.get
    for name in ("loss", "val_loss", "val_value", "budget"):  # a loop, because there may be a million entries
        if type(get(name)) not in (float, int, type(None)):
            return False
    known = type(get("stage")) is str and is_count(get("step"))
    known = known and all(type(get(name)) in (str, type(None)) for name in ("cost", "metric", "val_metric"))
    counts = get("counts", {})
    return (
        known
        and _share_or_none(get("val_accuracy"))
        and type(counts) is dict
        and all(_every(found, is_count) and len(found) == 3 for found in counts.values())
    )


def with_value(entry: Any) -> Any:
    """An entry of `history` or `trials`; of a version that knew nothing but accuracy, in the present form."""
    if isinstance(entry, dict) and "val_accuracy" in entry and "val_value" not in entry:
        return {"val_metric": "accuracy", "val_value": entry["val_accuracy"], **entry}
    return entry


def is_timed(times: Mapping[str, Any]) -> bool:
    """Whether entries are times of two models: figures or None, and what they are of."""
    figures = (times[name] for name in ("dense_ms", "compact_ms", "share", "predicted_ms"))
    spreads = (times[name] for name in ("spread", "dense_spread", "compact_spread"))
    counts, texts = (times["batch"], times["threads"]), ("engine", "version", "device", "precision", "load")
    return (
        all(value is None or (is_number(value) and 1e-9 <= value <= 1e12) for value in figures)
        and all(value is None or (is_number(value) and 0 <= value <= 1e6) for value in spreads)
        and all(is_count(count) and 0 < count < 2**31 for count in counts)
        and all(type(times[name]) is str for name in texts)
        and type(times["refused"]) in (str, type(None))
    )


def is_count(value: Any) -> bool:
    """Whether a value is a whole number of at least 0."""
    return type(value) is int and value >= 0


def is_number(value: Any) -> bool:
    """Whether a value is a number of Python's own."""
    return type(value) in (int, float)


def _is_aim(item: tuple[str, Any]) -> bool:
    """Whether a name and a value are a target: a number, or a time such as `3ms`."""
    name, value = item
    return is_number(value) or (name == "latency" and type(value) is str and bool(_TIME.fullmatch(value)))


def _number_or_none(value: Any) -> bool:
    return value is None or is_number(value)


def _share_or_none(value: Any) -> bool:
    return value is None or (is_number(value) and 0 <= value <= 1)
