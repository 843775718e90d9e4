"""Targets: what a user may ask for."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import TargetError
from .rule import Budget


def parse_drop(target: Mapping[str, float] | None) -> float | None:
    """The fraction of `{"drop": fraction}`; None for any other target.

    Raises:
        TargetError: a fraction outside [0, 1), or another target beside it.
    """
    if target is None or "drop" not in target:
        return None
    if len(target) != 1:
        raise TargetError(f"target {dict(target)} must name exactly one of macs, params and drop.")
    drop = target["drop"]
    if isinstance(drop, bool) or not isinstance(drop, (int, float)) or not 0 <= drop < 1:
        raise TargetError(f"target drop={drop} is no fraction of accuracy in [0, 1); 0.005 is half a point.")
    return float(drop)


def parse_latency(target: Mapping[str, float] | None) -> float | None:
    """The share of `{"latency": share}`; None for any other target.

    Raises:
        TargetError: a share outside (0, 1], or another target beside it.
    """
    if target is None or "latency" not in target:
        return None
    if len(target) != 1:
        raise TargetError(f"target {dict(target)} must name exactly one of macs, params, drop and latency.")
    share = target["latency"]
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise TargetError(f"target latency={share} is no share of the dense time; use a number in (0, 1].")
    return float(share)


def parse_target(target: Mapping[str, float] | None) -> Budget | None:
    """`{"macs": 0.5}` or `{"params": 0.3}` to a budget; None is the papers' free mode.

    Raises:
        TargetError: an unknown metric, several at once, or a share outside (0, 1].
    """
    if target is None:
        return None
    if len(target) != 1:
        raise TargetError(f"target {dict(target)} must name exactly one of macs and params.")
    metric, share = next(iter(target.items()))
    if metric not in ("macs", "params"):
        raise TargetError(f"target {metric!r} is unknown here; use macs, params, drop, latency or free.")
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise TargetError(f"target {metric}={share} is no share of the dense {metric}; use a number in (0, 1].")
    return Budget("macs" if metric == "macs" else "params", float(share))
