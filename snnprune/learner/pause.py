"""Ctrl-C and SIGTERM wait until a training step is done."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Pause:
    """Holds Ctrl-C back until a training step is done, so that a checkpoint never holds half a step.

    SIGTERM too, where the program has a handler for it. A second Ctrl-C within the step is let through. Outside
    the main thread nothing is held back.

    Args:
        terminable: hold back SIGTERM, too.

    Attributes:
        inside: a step is under way, or was left by an exception.
        wanted: a signal came during a step.
    """

    def __init__(self, *, terminable: bool) -> None:
        self.inside = self.wanted = False
        self._terminable, self._terminated = terminable, False
        self._before: dict[signal.Signals, Any] = {}

    def _interrupt(self, _signal: int, _frame: Any) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True

    def _terminate(self, _signal: int, _frame: Any) -> None:
        self.wanted = self._terminated = True

    def __enter__(self) -> None:
        self.inside = True
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
            if self._terminable and callable(signal.getsignal(signal.SIGTERM)):
                self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._terminate)

    def __exit__(self, kind: Any, *_rest: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())
        self.inside = kind is not None
        if kind is not None and issubclass(kind, Exception) and self.wanted:
            self.act()  # compilers and workers of data hear the signal themselves, and the step fails

    def act(self) -> None:
        """Do what the signal asked for: Ctrl-C stops; of SIGTERM the program's own handler decides."""
        if not self.wanted:
            return
        self.wanted = False
        if not self._terminated:
            raise KeyboardInterrupt
        self._terminated = False
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler):
            handler(signal.SIGTERM, None)
