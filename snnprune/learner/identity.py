"""Whether what lies on file of a run belongs to the run that goes on with it, and if not, what has changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RunError

OUTPUTS = "outputs"  # the one entry that is compared by value: last bits depend on the machine
SETTINGS, LEARNING = "settings of layers", "what learns"
_NEW = (SETTINGS, LEARNING)  # files of before the end of November 2026 do not hold them
_NEAR = 5e-3  # of the largest output
_SHOWN = 4


def check_same_run(path: Path, before: Any, now: Mapping[str, Any]) -> None:
    """Refuse a file of another run.

    Args:
        path: of the file.
        before: the identity that it holds, anything.
        now: the identity of the run that is to go on: what it depends on, by name, made of JSON's values.

    Raises:
        RunError: they differ; the message says in what.
    """
    known = before if isinstance(before, Mapping) else {}
    changed = differences(known, {name: value for name, value in now.items() if name in known or name not in _NEW})
    if not changed:
        return
    more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    raise RunError(
        f"{path} belongs to another model, data set or options ({'; '.join(changed[:_SHOWN])}{more}). Repeat the "
        "command of the interrupted run, or remove its folder to start anew."
    )


def differences(before: Mapping[str, Any], now: Mapping[str, Any], of: str = "") -> list[str]:
    """What differs between two identities, each as a few words."""
    found: list[str] = []
    for name in [*now, *(n for n in before if n not in now)]:
        old, new = before.get(name), now.get(name)
        where = f"{of}: {name}" if of and of != "options" else name
        if name == OUTPUTS:
            found += [] if _near(old, new) else ["what the model computes has changed"]
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, name)
        elif old != new:
            found.append(f"{where} {_change(old, new)}")
    return found


def _change(old: Any, new: Any) -> str:
    shown = [str(value) for value in (old, new)]
    if any(isinstance(value, Mapping) or len(text) > 60 for value, text in zip((old, new), shown, strict=True)):
        return "has changed"
    return f"was {shown[0]}, now {shown[1]}"


def _near(old: Any, new: Any) -> bool:
    if not isinstance(old, list) or not isinstance(new, list) or len(old) != len(new):
        return old == new
    if not all(type(value) in (int, float) for value in (*old, *new)):
        return old == new
    reach = max((abs(value) for value in new), default=0.0)
    return all(math.isclose(a, b, rel_tol=0, abs_tol=_NEAR * reach) for a, b in zip(old, new, strict=True))
