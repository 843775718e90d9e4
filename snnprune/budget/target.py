"""Targets: what a user may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from ..errors import ConfigError, TargetError
from ..options import Number, checked
from .costs import Metric


@dataclass(frozen=True, slots=True)
class Budget:
    """A kept share of a cost.

    Attributes:
        metric: `macs` or `params`.
        share: kept share of the dense cost, in (0, 1].
    """

    metric: Metric
    share: float


NAMES = ("macs", "params", "drop", "latency")
_Kept = Annotated[float, Number("a share", low=0, high=1, above=True)]
_Lost = Annotated[float, Number("a fraction", low=0, high=1, below=True)]


def read_target(target: Mapping[str, float] | None) -> dict[str, float] | None:
    """A target of any kind as a plain dict, after a check; None is the papers' free mode.

    Raises:
        TargetError: not a mapping with one known name, or no number that makes sense for it.
    """
    for name, parse in (("drop", parse_drop), ("latency", parse_latency)):
        if (value := parse(target)) is not None:
            return {name: value}
    budget = parse_target(target)
    return None if budget is None else {budget.metric: budget.share}


def parse_drop(target: Mapping[str, float] | None) -> float | None:
    """The fraction of `{"drop": fraction}`; None for any other target.

    Raises:
        TargetError: not a mapping with one known name, or a fraction outside [0, 1).
    """
    name, drop = _only(target)
    if name != "drop":
        return None
    found = _number(drop, _Lost)
    if found is None:
        raise TargetError(f"target drop={drop} is no fraction of accuracy in [0, 1); 0.005 is half a point.")
    return found


def parse_latency(target: Mapping[str, float] | None) -> float | None:
    """The share of `{"latency": share}`; None for any other target.

    Raises:
        TargetError: not a mapping with one known name, or a share outside (0, 1].
    """
    name, share = _only(target)
    if name != "latency":
        return None
    found = _number(share, _Kept)
    if found is None:
        raise TargetError(f"target latency={share} is no share of the dense time; use a number in (0, 1].")
    return found


def parse_target(target: Mapping[str, float] | None) -> Budget | None:
    """`{"macs": 0.5}` or `{"params": 0.3}` to a budget; None is the papers' free mode.

    Raises:
        TargetError: not a mapping with one of these two names, or a share outside (0, 1].
    """
    metric, share = _only(target)
    if metric is None:
        return None
    if metric not in ("macs", "params"):
        raise TargetError(f"target {metric!r} is unknown here; use macs or params.")
    found = _number(share, _Kept)
    if found is None:
        raise TargetError(f"target {metric}={share} is no share of the dense {metric}; use a number in (0, 1].")
    return Budget("macs" if metric == "macs" else "params", found)


def _only(target: Mapping[str, float] | None) -> tuple[str | None, float]:
    """Name and number of a target; (None, 1) of the free mode."""
    if target is None:
        return None, 1.0
    if not isinstance(target, Mapping):
        raise TargetError(f'target {target!r} is no mapping; write {{"macs": 0.5}} for half of the multiply-adds.')
    if len(target) != 1:
        raise TargetError(f"target {dict(target)} must name exactly one of {', '.join(NAMES)}.")
    name, value = next(iter(target.items()))
    if name not in NAMES:
        raise TargetError(f"target {name!r} is unknown; use {', '.join(NAMES)} or free.")
    return name, value


def _number(value: object, kind: Any) -> float | None:
    """A number of the kind; None where the value is none."""
    try:
        return float(checked("target", value, kind))
    except ConfigError:
        return None
