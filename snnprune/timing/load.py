"""What else the machine does while something is timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
_WORK = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, and what other guests of the machine took


@dataclass(frozen=True, slots=True)
class Load:
    """Other work of the machine.

    Attributes:
        cores: of the machine.
        others: of them, busy with other things meanwhile, on average; None where the system does not tell.
    """

    cores: int
    others: float | None

    def __str__(self) -> str:
        """In words, for reasons and reports; empty where nothing is known."""
        if self.others is None:
            return ""
        return f"{self.others:.1f} of {self.cores} cores were busy with other things"


def others_seconds() -> float | None:
    """Seconds of CPU that other processes have used since the machine started, of all cores together.

    None where the system does not count them (it does on Linux).
    """
    try:
        fields = _STAT.read_text().split("\n", 1)[0].split()[1:]
        ticks = sum(int(fields[at]) for at in _WORK)
        return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()
    except (OSError, ValueError, IndexError, AttributeError):
        return None


class Watch:
    """Load since the watch was made.

    Args:
        now: seconds, from any start.
        used: seconds of CPU that others have used so far; None falls back to the system's mean over the last
            minute, from which one core is taken for what is timed.
    """

    def __init__(self, now: Callable[[], float], used: Callable[[], float | None] = others_seconds) -> None:
        self.now, self.used = now, used
        self.began, self.before = now(), used()

    def load(self) -> Load:
        """What others did until now."""
        cores, wall = os.cpu_count() or 1, self.now() - self.began
        after = self.used()
        if self.before is not None and after is not None and wall > 0:
            return Load(cores, min(max((after - self.before) / wall, 0.0), float(cores)))
        try:
            return Load(cores, min(max(os.getloadavg()[0] - 1.0, 0.0), float(cores)))
        except (AttributeError, OSError):  # Windows has none
            return Load(cores, None)
