"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from ..learner import Event
from ..learner.progress import TITLES, begun, entered, noted, validated
from ..runs.times import speed_up
from .show import console, say

_TITLES = {
    "data": "reading data",
    "load": "loading the model",
    "widths": "timing real cuts",
    "cuts": "measuring cuts",
    "export": "exporting to ONNX",
    "plan": "tracing groups, taking a few steps",
    "int8": "calibrating, measuring int8",
    "save": "timing and exporting to ONNX",
}


class Display:
    """Progress of a run: a live bar on a terminal, plain lines elsewhere.

    Args:
        percent: whether the metric is shown in per cent; accuracy always is.
    """

    def __init__(self, *, percent: bool = False) -> None:
        self.percent = percent
        self.live = console.is_terminal and not console.is_dumb_terminal  # which no line can be drawn anew on
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<18}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self.live,
        )
        self.tasks: dict[str, Any] = {}
        self.judged = ""
        self.last = 0.0

    @contextmanager
    def running(self) -> Iterator[Display]:
        """Show the bar for the length of a `with` block."""
        with self.progress:
            yield self

    def stage(self, name: str) -> None:
        """A stage without steps begins."""
        self(Event(name))

    def cuts(self, done: int, total: int) -> None:
        """Progress of measuring cuts."""
        self(Event("cuts", done, total))

    def on(self, stage: str) -> Callable[[int, int], None]:
        """A function that is told (done, in all) of a stage."""
        return lambda done, total: self(Event(stage, done, total))

    def reading(self, what: str, done: int, total: int) -> None:
        """Progress of reading data."""
        self(Event("data", done, total))

    def __call__(self, event: Event) -> None:
        """Show an event of the library."""
        title = {**TITLES, **_TITLES}.get(event.stage, event.stage)
        values = event.values or {}
        if event.stage == "trial":
            self._trial(event, values)
            return
        if event.stage == "entrant":
            if "ended" not in values:
                self._anew()
            say(entered(event))
            return
        begins = event.stage not in self.tasks
        if begins:
            self.judged = ""  # of the stage before, which ran another model
        if "val_value" in values:
            self.judged = validated(values, self.percent)
        note = self._note(values)
        if begins:
            for task in self.tasks.values():
                self.progress.update(task, visible=False)
            self.tasks[event.stage] = self.progress.add_task(title, total=event.total or None, note=note)
            if not self.live and not event.step:
                console.print(title)
        self.progress.update(self.tasks[event.stage], completed=event.step, total=event.total or None, note=note)
        now = time.monotonic()
        if not self.live and event.total and ("val_value" in values or now - self.last > 10):
            self.last = now
            console.print(f"{title} {event.step}/{event.total}  {note}")

    def _trial(self, event: Event, values: dict[str, Any]) -> None:
        """A run of its own begins, or ended."""
        text = begun(event)
        if "passed" in values:
            end = "kept" if values["passed"] else "too much"
            if values["drop"] is None:
                say(f"{text}: failed ({values['why']})")
            else:
                time = f", {speed_up(values)} as fast" if "latency" in values else ""
                say(f"{text}, {validated(values, self.percent)}, drop {values['drop']:.4f}{time}: {end}")
            return
        self._anew()
        say(text)

    def _anew(self) -> None:
        """Another run begins."""
        for task in self.tasks.values():
            self.progress.remove_task(task)
        self.tasks, self.judged = {}, ""

    def _note(self, values: dict[str, Any]) -> str:
        return "  ".join([*noted(values), *([self.judged] if self.judged else [])])
