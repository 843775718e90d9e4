"""Progress of a run in lines of text, for programs that have no display of their own."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, TextIO

from ..errors import ConfigError
from ..options import NotNegative, checked
from ..shown import brief_repr, cut
from .events import Event

logger = logging.getLogger("snnprune.progress")
TITLES = {
    "trace": "tracing groups",
    "dense": "testing the dense model",
    "latency": "timing layers",
    "settle": "timing the cut",
    "probe": "probing neurons",
    "search": "searching",
    "check": "proving exactness",
    "recover": "recovering",
    "test": "testing",
}


class Progress:
    """A callback for `optimize` that tells in lines what a run does: stages, epochs with their figures, trials.

    Args:
        stream: where lines are written to, such as `sys.stderr`; without one they go to the logger
            `snnprune.progress` at the level INFO, which shows nothing unless the program has set that up.
        seconds: least time between two lines of steps; stages, epochs and trials are always told.

    Raises:
        ConfigError: `stream` cannot be written to, or `seconds` is below 0.

    Example:
        >>> import sys
        >>> tell = snnprune.Progress(sys.stderr)
        >>> config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=1)
        >>> result = snnprune.optimize(model, train, val, config, callbacks=[tell])
    """

    def __init__(self, stream: TextIO | None = None, *, seconds: float = 10.0) -> None:
        if stream is not None and not callable(getattr(stream, "write", None)):
            raise ConfigError(f"stream={brief_repr(stream)} must be a file that is open for text, or None.")
        self.stream, self.seconds = stream, checked("seconds", seconds, NotNegative)
        self._stage, self._last = "", 0.0

    def __call__(self, event: Event) -> None:
        """Tell of an event, if it is worth a line."""
        values, title = event.values or {}, TITLES.get(event.stage, event.stage)
        if event.stage == "trial":
            self._stage = ""
            self._tell(f"{begun(event)}{_ended(values)}")
            return
        if event.stage == "entrant":
            self._stage = ""
            self._tell(entered(event))
            return
        if event.stage != self._stage:
            self._stage, self._last = event.stage, time.monotonic()
            if not event.step:
                self._tell(title)
                return
        now, judged = time.monotonic(), "val_value" in values
        if event.total and (judged or now - self._last >= self.seconds):
            self._last = now
            figures = [*noted(values), *([validated(values)] if judged else [])]
            self._tell("  ".join([f"{title} {event.step}/{event.total}", *figures]))

    def _tell(self, line: str) -> None:
        if self.stream is None:
            logger.info("%s", line)
            return
        self.stream.write(f"{line}\n")
        if callable(getattr(self.stream, "flush", None)):
            self.stream.flush()


def noted(values: Mapping[str, Any]) -> list[str]:
    """What is known at every step."""
    parts = []
    if isinstance(values.get("loss"), float) and values["loss"] == values["loss"]:
        parts.append(f"loss {values['loss']:.4f}")
    if "budget" in values:
        parts.append(f"{values['cost']} {values['budget']:.2f}")
    return parts


def validated(values: Mapping[str, Any], percent: bool = False) -> str:
    """Figures of validation data; an accuracy is always shown in per cent."""
    value, name = values["val_value"], cut(values["val_metric"], 60)
    if "val_accuracy" in values or percent:
        return f"val {name} {value:.2%}"
    return f"val {name} {value:.4g}"


def begun(event: Event) -> str:
    """Which trial it is, and what it keeps."""
    values = event.values or {}
    cost = "macs" if "macs" in values else "params"
    return f"trial {event.step} of {event.total}: {cost}={values[cost]:.3g}"


def entered(event: Event) -> str:
    """Which run of a contest it is, and how it ended."""
    values = event.values or {}
    text = f"run {event.step} of {event.total}: {cut(values['method'], 60)}, seed {values['seed']}"
    row = values.get("ended")
    if row is None:
        return text
    return f"{text}: failed ({row['failed']})" if row["failed"] else f"{text}: {row['value']:.4g}"


def _ended(values: Mapping[str, Any]) -> str:
    if "passed" not in values:
        return ""
    if values["drop"] is None:
        return f": failed ({values['why']})"
    return f", {validated(values)}, drop {values['drop']:.4f}: {'kept' if values['passed'] else 'too much'}"
