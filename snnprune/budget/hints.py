"""What somebody who wrote a target that is none probably meant."""

from __future__ import annotations

import difflib
import math
import re

_OTHERS = {
    "flops": "macs",
    "flop": "macs",
    "gflops": "macs",
    "gmacs": "macs",
    "ops": "macs",
    "madds": "macs",
    "parameters": "params",
    "weights": "params",
    "size": "params",
    "time": "latency",
    "ms": "latency",
    "runtime": "latency",
    "speedup": "speed-up",
    "accuracy": "drop",
    "acc": "drop",
    "loss": "drop",
}
_NAMES = ("macs", "params", "drop", "latency", "speed-up")
_PERCENT = 2  # what is that large was meant to be one; a little above 1 nothing is known of
_VALUE = re.compile(r"\s*([0-9]*\.?[0-9]+|[0-9]+\.)\s*(%|x|ms)?\s*")


def meant(text: str) -> str | None:
    """The target that a text such as `macs=50%`, `flops=0.5`, `0.5` or `latency=3` was probably to be.

    Args:
        text: `name=value`, or one of the two.

    Returns:
        A target as it is written, or None where nothing comes to mind.
    """
    if len(text) > 40:
        return None
    name, equals, value = text.strip().lower().partition("=")
    if not equals and _VALUE.fullmatch(name):
        name, value = "", name
    name = name.strip().lstrip("-")
    found = _VALUE.fullmatch(value)
    if not found:
        return "free" if not equals and difflib.get_close_matches(name, ["free", "none"], 1) else None
    number, unit = float(found[1]), found[2]
    if not name:
        name = {"x": "speed-up", "ms": "latency"}.get(unit or "", "macs")
    near = [_OTHERS.get(name, name)]
    if near[0] not in _NAMES:
        near = [_OTHERS.get(n, n) for n in difflib.get_close_matches(name, [*_NAMES, *_OTHERS], 1)]
    if not near:
        return None
    return _written(near[0], number, unit)


def _written(name: str, number: float, unit: str | None) -> str | None:
    if name == "speed-up":
        return f"latency={1 / number:.3g}" if unit in (None, "x") and 1 < number < math.inf else None
    if unit == "ms" or (name == "latency" and unit is None and number > 1):
        return f"latency={number:g}ms" if name == "latency" and number > 0 else None
    if unit == "x":
        return None
    if unit == "%" or number >= _PERCENT or (name == "drop" and number >= 1):
        number /= 100
    fits = 0 <= number < 1 if name == "drop" else 0 < number <= 1
    return f"{name}={number:g}" if fits else None


def hint(text: str) -> str:
    """` Did you mean macs=0.5?`, or nothing."""
    found = meant(text)
    return f" Did you mean {found}?" if found and found != text else ""
