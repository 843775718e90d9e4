"""What is said of times that were measured. A figure that is not to be believed is a question mark with a reason.

Times are those of `Compared.to_dict()`, also as a file holds them: then a spread that nothing is known of is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..shown import cut
from ..timing.compared import Compared

# Two times are comparable where these are alike.
CONDITIONS = ("engine", "version", "device", "batch", "precision", "threads")
OPEN = "?"
_NAME = 60  # characters of a name


def trial_times(found: Compared | None) -> dict[str, Any]:
    """Entries of a trial, or of a point of a curve: `latency` (share of the dense time), both times, spread."""
    if found is None:
        return {}
    spread = found.spread if math.isfinite(found.spread) else None
    entries = {
        "latency": found.share,
        "dense_ms": found.dense_ms,
        "compact_ms": found.compact_ms,
        "spread": spread,
    }
    return entries if found.refused is None else {**entries, "refused": found.refused}


def conditions_of(times: Mapping[str, Any] | Compared) -> dict[str, Any]:
    """What was timed on what."""
    whole = times.to_dict() if isinstance(times, Compared) else times
    return {name: whole[name] for name in CONDITIONS}


def served_by(times: Mapping[str, Any]) -> str:
    """Engine, batch size, precision, threads and device in words; names from files are cut."""
    engine, version, device, precision = (
        cut(times[name], _NAME) for name in ("engine", "version", "device", "precision")
    )
    threads = f"{times['threads']} CPU thread{'s' if times['threads'] > 1 else ''}"
    return f"{engine} ({version}), batch {times['batch']}, {precision}, {threads}, {device}"


def digits(value: float | None, unit: str = "") -> str:
    """Three digits, all of them before the point of a larger number; `?` for what is not known."""
    if value is None:
        return OPEN
    return f"{value:,.0f}{unit}" if value >= 100 else f"{value:.3g}{unit}"


def per_second(times: Mapping[str, Any], model: str) -> float | None:
    """Inputs a second of the `dense` or the `compact` model."""
    ms = times[f"{model}_ms"]
    return None if ms is None else 1000 * times["batch"] / ms


def speed_up(times: Mapping[str, Any], *, spread: bool = False) -> str:
    """How many times as fast the compact model is, such as `1.93x`."""
    share = times.get("latency", times.get("share"))
    if share is None:
        return OPEN
    text = f"{1 / share:.2f}x"
    return f"{text} as fast, {varies(times['spread'])}" if spread else text


def varies(spread: float | None) -> str:
    """A spread in words."""
    return "spread unknown" if spread is None or not math.isfinite(spread) else f"+- {spread:.1%}"


def time_rows(times: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The first rows of a table: (what, dense, compact, change)."""
    where = f"batch {times['batch']}, {cut(times['engine'], _NAME)}"
    dense, compact = (digits(times[f"{model}_ms"], " ms") for model in ("dense", "compact"))
    slow, fast = (digits(per_second(times, model)) for model in ("dense", "compact"))
    return [
        (f"time ({where})", dense, compact, speed_up(times, spread=True)),
        ("inputs a second", slow, fast, ""),
    ]


def remarks(times: Mapping[str, Any]) -> list[str]:
    """What has to be known of those rows: what served, what else went on, and why something is a question mark."""
    load = cut(times["load"], 200) if times["load"] else ""
    found = [f"timed with {served_by(times)}{f'; {load}' if load else ''}"]
    if times["refused"] is not None:
        found.append(f"not to be believed, hence ?: {cut(times['refused'])}")
    return found


def marks(every: Sequence[Mapping[str, Any] | None]) -> tuple[list[str], list[str]]:
    """Marks for times that stand side by side, and sentences on what they are.

    Args:
        every: times, or None where there are none.

    Returns:
        A mark for each, and what they mean. All marks are empty where all times were taken alike; else times of
        different marks are not comparable, which is said.
    """
    kinds: dict[tuple[Any, ...], str] = {}
    for times in every:
        if times is not None:
            kinds.setdefault(_kind(times), served_by(times))
    if len(kinds) < 2:
        return [""] * len(every), [f"timed with {words}" for words in kinds.values()]
    letters = {kind: f"[{at}]" for at, kind in enumerate(kinds, 1)}
    said = [f"{letters[kind]} timed with {words}" for kind, words in kinds.items()]
    said.append(
        "times and speed-ups of different marks are not comparable: devices, engines, batches or the like differ"
    )
    return ["" if times is None else letters[_kind(times)] for times in every], said


def _kind(times: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(conditions_of(times).values())
