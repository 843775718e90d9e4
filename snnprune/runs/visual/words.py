"""Words and units for the keys of a report: what a reader sees in their place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ...forms import is_number
from ...measures import MetricInfo
from ...shown import cut
from ..times import OPEN, digits

COSTS = {"macs": "MACs", "params": "parameters", "latency": "time"}
STAGES = {"probe": "probe", "search": "search", "recover": "recovery"}
SPLITS = {"train": "training", "val": "validation", "test": "test", "given": "given data"}
CHECKS = {
    "fold": "scales folded into weights against the model with gates, float64",
    "remove": "neurons removed against the model with gates, float64",
    "onnx": "ONNX Runtime against PyTorch, final model, float32",
}
SERVED = {
    "engine": "engine",
    "version": "version",
    "device": "device",
    "batch": "inputs in a call",
    "precision": "number format",
    "threads": "CPU threads",
}
_NAME = 60  # characters
# Those of the system would be in its user's language.
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")
_MONTHS = (*_MONTHS, "November", "December")
_TRIAL = {
    "macs": ("MACs kept", "share"),
    "params": ("parameters kept", "share"),
    "share": ("budget, share of the predicted time", "share"),
    "val_loss": ("validation loss", ""),
    "passed": ("good enough", ""),
    "why": ("why it failed", ""),
    "latency": ("share of the dense time", "time"),
    "dense_ms": ("dense time", "ms"),
    "compact_ms": ("compact time", "ms"),
    "predicted_ms": ("predicted time", "ms"),
    "spread": ("spread of the share of time", "spread"),
    "refused": (f"why there is a {OPEN}", ""),
    "engine": ("engine", ""),
    "final": ("final model", ""),
}


def named(key: object, words: Mapping[str, str]) -> str:
    """The word for a key; one that is not known stands for itself."""
    return words.get(str(key), cut(key, _NAME))


def metric_of(split: str, metric: MetricInfo) -> str:
    """A metric with the part that it is of, such as `validation accuracy`."""
    return f"{named(split, SPLITS)} {cut(metric.name, _NAME)}"


def shape_of(sizes: Sequence[object]) -> str:
    """Sizes of one input, with a sign of multiplication between them."""
    return " \u00d7 ".join(map(str, sizes))


def when(date: str) -> str:
    """A date of ISO 8601 in words, such as `27 November 2026, 13:45 UTC`; what is none stands for itself."""
    try:
        found = datetime.fromisoformat(date)
    except ValueError:
        return cut(date, _NAME)
    zone = re.sub(r":\d\d\..*", "", found.tzname() or "")
    return f"{found.day} {_MONTHS[found.month - 1]} {found.year}, {found:%H:%M} {zone}".rstrip()


def duration(seconds: float) -> str:
    """A time that a run took, such as `12 s`, `4 min 10 s` or `2 h 5 min`."""
    if not 0 <= seconds < 1e9:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {left} min"
    return f"{minutes} min {rest} s" if minutes else f"{whole} s"


def amount(lost: float, metric: MetricInfo) -> str:
    """A loss of a metric with its unit: points of a fraction, else the metric's own."""
    return f"{100 * lost:.3g} point{'s' * (round(100 * lost, 9) != 1)}" if metric.percent else f"{lost:.4g}"


def steps_of(steps: Mapping[str, int]) -> str:
    """Training steps by stage; those that took none are left out."""
    taken = [(stage, count) for stage, count in steps.items() if count]
    return ", ".join(f"{named(stage, STAGES)} {count:,}" for stage, count in taken[:32])


def trial_head(key: str, metric: MetricInfo) -> str:
    """The head of a column of trials."""
    if key == "val_value":
        return metric_of("val", metric)
    if key == "drop":
        return f"{cut(metric.name, _NAME)} lost"
    return _TRIAL[key][0] if key in _TRIAL else cut(key, _NAME)


def trial_cell(trial: Mapping[str, Any], key: str, metric: MetricInfo) -> str:
    """What a trial holds under a key, with its unit."""
    value = trial.get(key)
    if trial.get("refused") is not None and key in ("latency", "dense_ms", "compact_ms") and value is None:
        return OPEN
    if value is not None and is_number(value):
        kind = _TRIAL[key][1] if key in _TRIAL else ""
        if key == "val_value":
            return metric.text(value)
        if key == "drop":
            return amount(value, metric)
        if kind == "ms":
            return digits(value, " ms")
        if kind:
            return f"{value:.1%}"
    return plain(value)


def plain(value: object) -> str:
    """A value of a file in words: `yes` and `no`, nothing for what is not there."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else cut(value)
