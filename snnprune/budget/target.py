"""Targets: what a user may ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from ..errors import ConfigError, TargetError
from ..options import Number, checked
from ..shown import brief_repr, cut
from .costs import Metric
from .hints import hint


@dataclass(frozen=True, slots=True)
class Budget:
    """A kept share of a cost.

    Attributes:
        metric: `macs`, `params` or `latency`.
        share: kept share of the dense cost, in (0, 1].
    """

    metric: Metric
    share: float


@dataclass(frozen=True, slots=True)
class Latency:
    """What a target of time asks for: one of the two is None.

    Attributes:
        share: of the dense time, in (0, 1].
        ms: milliseconds, above 0.
    """

    share: float | None
    ms: float | None

    def of(self, dense_ms: float) -> float:
        """The share of a dense time of so many milliseconds, at most 1."""
        if self.share is not None:
            return self.share
        assert self.ms is not None
        return min(1.0, self.ms / dense_ms)

    @property
    def value(self) -> float | str:
        """As in a target: the share, or the time with its unit, such as `3ms`."""
        return self.share if self.share is not None else f"{self.ms:.12g}ms"

    def __str__(self) -> str:
        return f"{self.share:g}" if self.share is not None else f"{self.ms:.12g}ms"


Target = Mapping[str, float | str]
METRICS: tuple[Metric, ...] = get_args(Metric)
NAMES = ("macs", "params", "drop", "latency")
_Kept = Annotated[float, Number("a share", low=0, high=1, above=True)]
_Lost = Annotated[float, Number("an amount", low=0)]
_TIME = re.compile(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,3}))?\s*(us|µs|μs|ms|s)\s*")
_PER_MS = {"us": 1000.0, "µs": 1000.0, "μs": 1000.0, "ms": 1.0, "s": 0.001}


def read_target(target: Target | None) -> dict[str, float | str] | None:
    """A target of any kind as a plain dict, after a check; None is the papers' free mode.

    A time is written in one way, such as `3ms`, whatever its unit was.

    Raises:
        TargetError: not a mapping with one known name, or no number that makes sense for it.
    """
    if (drop := parse_drop(target)) is not None:
        return {"drop": drop}
    if (latency := parse_latency(target)) is not None:
        return {"latency": latency.value}
    budget = parse_target(target)
    return None if budget is None else {budget.metric: budget.share}


def parse_drop(target: Target | None) -> float | None:
    """The amount of `{"drop": amount}`; None for any other target.

    Raises:
        TargetError: not a mapping with one known name, or no number of at least 0.
    """
    name, drop = _only(target)
    if name != "drop":
        return None
    found = None if isinstance(drop, str) else _number(drop, _Lost)
    if found is None:
        raise TargetError(
            f"target drop={_shown(drop)} is no amount that a metric may lose; use a number of at least 0. Of "
            "accuracy 0.005 is half a point." + hint(f"drop={drop}")
        )
    return found


def check_drop(drop: float, fraction: str | None) -> None:
    """Refuse a drop that leaves nothing.

    Args:
        drop: from `parse_drop`.
        fraction: name of the metric where that is a fraction; None of one with other units.

    Raises:
        TargetError: it is all of a fraction, or more.
    """
    if fraction is not None and drop >= 1:
        raise TargetError(
            f"target drop={drop} is no fraction of {fraction} in [0, 1); 0.005 is half a point."
            + hint(f"drop={drop}")
        )


def parse_latency(target: Target | None) -> Latency | None:
    """The share of `{"latency": share}`, or the time of `{"latency": "3ms"}`; None for any other target.

    Raises:
        TargetError: not a mapping with one known name, a share outside (0, 1], or no time above 0.
    """
    name, asked = _only(target)
    if name != "latency":
        return None
    if isinstance(asked, str) and (ms := _milliseconds(asked)) is not None:
        return Latency(None, ms)
    found = None if isinstance(asked, str) else _number(asked, _Kept)
    if found is None:
        raise TargetError(
            f"target latency={_shown(asked)} is no share of the dense time, nor a time; use a "
            "number in (0, 1], or milliseconds such as 3ms." + hint(f"latency={asked}")
        )
    return Latency(found, None)


def parse_target(target: Target | None, metrics: Sequence[Metric] = METRICS) -> Budget | None:
    """`{"macs": 0.5}`, `{"params": 0.3}` or `{"latency": 0.5}` to a budget; None is the papers' free mode.

    Args:
        target: as written.
        metrics: those that can be met here.

    Raises:
        TargetError: not a mapping with one of these names, or a share outside (0, 1].
    """
    name, share = _only(target)
    if name is None:
        return None
    metric: Metric | None = next((metric for metric in metrics if metric == name), None)
    if metric is None:
        raise TargetError(f"target {name!r} is unknown here; use {', '.join(metrics[:-1])} or {metrics[-1]}.")
    if metric == "latency" and isinstance(share, str):
        latency = parse_latency(target)
        raise TargetError(
            f"target latency={latency} is a time, and a budget is a share of what the dense model takes; use a "
            "number in (0, 1]."
        )
    found = None if isinstance(share, str) else _number(share, _Kept)
    if found is None:
        known = "time" if metric == "latency" else metric
        raise TargetError(
            f"target {metric}={_shown(share)} is no share of the dense {known}; use a number in (0, 1]."
            + hint(f"{metric}={share}")
        )
    return Budget(metric, found)


def _milliseconds(text: str) -> float | None:
    """A time such as `3ms`, `2.5 ms`, `900us` or `0.01s`; None where the text is none, or not above 0."""
    found = _TIME.fullmatch(text) if len(text) <= 40 else None
    if found is None:
        return None
    number, power, unit = found.groups()
    ms = float(f"{number}e{power or 0}") / _PER_MS[unit]
    return ms if 0 < ms < math.inf else None


def _only(target: Target | None) -> tuple[str | None, float | str]:
    """Name and value of a target; (None, 1) of the free mode."""
    if target is None:
        return None, 1.0
    if not isinstance(target, Mapping):
        raise TargetError(f'target {target!r} is no mapping; write {{"macs": 0.5}} for half of the multiply-adds.')
    if len(target) != 1:
        raise TargetError(f"target {dict(target)} must name exactly one of {', '.join(NAMES)}.")
    name, value = next(iter(target.items()))
    if name not in NAMES:
        known = f"target {name!r} is unknown; use {', '.join(NAMES)} or free."
        raise TargetError(known + hint(f"{name}={value}"))
    return name, value


def _number(value: object, kind: Any) -> float | None:
    """A number of the kind; None where the value is none."""
    try:
        return float(checked("target", value, kind))
    except ConfigError:
        return None


def _shown(value: object) -> str:
    return cut(value, 60) if isinstance(value, str) else brief_repr(value)
