"""The clock: how long calls take beside each other, how far that is certain, and when it is not to be believed.

On a machine that does other things too, times are anything from the call's own upwards: whatever else runs takes
the core for a while, empties the caches, or lowers the frequency. Three things are done about it.

- Where one thread of the CPU computes, its time is the time for which it *had* the core. On a machine that is
  otherwise idle that is all the time that passes. On a busy one, time that passes cannot be used at all: a long
  call is interrupted every time and a short one only now and then, so that even the least times of both have a
  wrong ratio.
- A *time* is a low quantile of many calls, as what is above it is mostly the doing of others. The least of all
  would be worse: it never settles, it falls the longer one waits.
- Calls take turns, so that a slow moment meets them all, and a *ratio* is one of two such times.

The *spread* says how far a figure would be another one, were it measured again. What was timed is cut into eight
stretches. Each of the 70 ways to choose four of them gives the figure anew, from half of the timings; the one that
is farthest off says the spread. (Half of a sample lies as far from the whole as the whole from the truth, and the
farthest of 70 about two standard deviations off.) A figure on which most of the stretches do not agree has a large
spread, and as the stretches stay eight and only grow longer, no number of calls makes a drift look steady. But a
mood of the machine that outlasts the whole measurement cannot be seen in it.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import ConfigError, TimingError
from ..options import Count, CountOrZero, NotNegative, Part, Positive, checked
from .load import Load, Watch, others_seconds

QUANTILE = 0.1  # of the timings, that is the time
STRETCHES = 8
_FEWEST = 6  # stretches, and so timings: fewer have too few halves
_ROUNDS = 6 * STRETCHES  # before it is first looked whether the figures have settled
_GROWTH = 1.25  # from one look to the next, as who looks all the time stops in a lucky moment
_SHORT = 1e-3  # seconds: a shorter call is repeated, so that reading the clock does not count
_MOST_REPEATS = 1000
REFUSED = 2.5  # times the spread that was aimed at: a ratio that varies more is not to be believed
_TIMES_REFUSED = 10  # likewise: a core's frequency moves times much farther than ratios, and is said beside them
_RAN = 0.7  # of the time: who has a core for less begins too often with empty caches to have the time of its own
_COMPUTES = 0.9  # of the time, where cores are free
own_time = None if sys.platform == "win32" else time.thread_time  # Windows counts it in steps of 16 ms


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a call takes.

    Attributes:
        ms: milliseconds, the 10 % quantile of all timings: the time of the call itself.
        median_ms: half of the timings were longer.
        p90_ms: a tenth of the timings was longer.
        spread: of `ms`, as a share of it: it is `ms` times (1 +- spread).
        calls: timings; each is of several calls in a row where one takes less than a millisecond.
        ran: share of the time that passed for which the calling thread had a core; None where that says nothing (a
            GPU, several threads), and times are of the time that passed.
        halves: `ms` by each half of the timings that was looked at.
    """

    ms: float
    median_ms: float
    p90_ms: float
    spread: float
    calls: int
    ran: float | None
    halves: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Measured:
    """Calls that were timed beside each other.

    Attributes:
        times: by name, in the order in which they took turns.
        load: what else the machine did.
        aim: spread at which it was to end.
        limit: seconds for each call at most, in all.
        steady_times: whether the times themselves count, and not only their ratios.
    """

    times: Mapping[str, Timing]
    load: Load
    aim: float
    limit: float
    steady_times: bool = True

    def __getitem__(self, name: str) -> Timing:
        return self.times[name]

    @property
    def first(self) -> str:
        """The name to which ratios refer where no other is given."""
        return next(iter(self.times))

    def ratio(self, name: str, base: str | None = None) -> float:
        """Time of a call over that of another one, by default the first."""
        return self.times[name].ms / self.times[base or self.first].ms

    def ratio_spread(self, name: str, base: str | None = None) -> float:
        """Of that ratio, as a share of it. Slow moments that meet both calls do not count; 0 for a call itself."""
        one, other = self.times[name], self.times[base or self.first]
        return _spread(one.ms / other.ms, [a / b for a, b in zip(one.halves, other.halves, strict=True)])

    def refused(self, name: str) -> str | None:
        """Why the time of a call is not to be believed; None where it is."""
        ran = self.times[name].ran
        spread, most = self.times[name].spread, _TIMES_REFUSED * self.aim
        if (reason := self._reason((name,), spread, most, "its time")) is not None:
            return reason
        if ran is not None and ran < _RAN:
            return f"it had a core for only {ran:.0%} of the time{self._busy}"
        return None

    def ratio_refused(self, name: str, base: str | None = None) -> str | None:
        """Why the ratio of two calls is not to be believed; None where it is."""
        base = base or self.first
        return self._reason((name, base), self.ratio_spread(name, base), REFUSED * self.aim, "its ratio")

    def _reason(self, names: Sequence[str], spread: float, most: float, what: str) -> str | None:
        calls, others = self.times[names[0]].calls, self.load.others
        if calls < _FEWEST:
            return f"it was timed {calls} times only, and how far a time varies shows from {_FEWEST} on"
        if spread > most:
            return f"{what} varies by {spread:.1%} from one half of the timings to another{self._busy}"
        least = min((ran for n in names if (ran := self.times[n].ran) is not None), default=1.0)
        if least < _COMPUTES and others is not None and others + 1.5 < self.load.cores:
            return f"the calling thread ran for only {least:.0%} of the time though cores were free{self._busy}"
        return None

    @property
    def _busy(self) -> str:
        return f"; {self.load}" if str(self.load) else ""

    @property
    def why(self) -> str | None:
        """The first reason not to believe what was asked for: the ratios to the first, and the times."""
        for name in self.times:
            found = self.ratio_refused(name) if len(self.times) > 1 else None
            if found is None and (self.steady_times or len(self.times) == 1):
                found = self.refused(name)
            if found is not None:
                return f"{name}: {found}" if len(self.times) > 1 else found
        return None

    @property
    def trusted(self) -> bool:
        """Whether all that was asked for is to be believed."""
        return self.why is None

    def require(self) -> Measured:
        """Itself.

        Raises:
            TimingError: something that was asked for is not to be believed; the message says why.
        """
        if (why := self.why) is not None:
            raise TimingError(
                f"what was timed cannot be trusted. {why[0].upper()}{why[1:]}. Stop what else runs on this "
                f"machine, or allow more time (limit, now {self.limit:g} s for each) or a larger spread (now "
                f"{self.aim:g})."
            )
        return self


def measure(
    calls: Mapping[str, Callable[[], object]],
    *,
    spread: float = 0.02,
    limit: float = 20.0,
    most: int | None = None,
    warm_up: int = 10,
    least: float = 2.0,
    steady_times: bool = True,
    now: Callable[[], float] = time.perf_counter,
    cpu: Callable[[], float] | None = own_time,
    used: Callable[[], float | None] = others_seconds,
) -> Measured:
    """Time calls beside each other until the figures have settled.

    Every round calls each once, in the order given. It ends when the spread of every ratio to the first call is at
    most `spread` and the times themselves can be believed; for a single call when its time's spread is that small.

    Args:
        calls: by name; what they start has to have ended when they return.
        spread: aimed at, of a ratio as a share of it, such as 0.02 for 2 %. In the end a ratio that varies 2.5
            times as much is refused, and a time that varies 10 times as much.
        limit: seconds for each of the calls at most, in all its turns.
        most: timings of each call at most; None sets no bound but `limit`.
        warm_up: rounds before those that count; fewer where they would take a tenth of the limit, one at least.
        least: seconds for all together at least. Slow moments of a machine last for tenths of a second; within
            one, everything looks steady.
        steady_times: False ends when the ratios have settled, and refuses no time that goes up and down.
        now: the clock, in seconds.
        cpu: seconds for which the calling thread has had a core so far, of which times are made. None where the
            work is done elsewhere (a GPU, several threads): then times are of the time that passes.
        used: seconds of CPU that other processes have used so far, None if unknown.

    Returns:
        The times, also where they are not to be believed: `Measured.require()` insists.

    Raises:
        ConfigError: there is nothing to time, or an option makes no sense.
    """
    spread, limit = checked("spread", spread, Part), checked("limit", limit, Positive)
    most, warm_up = checked("most", most, Count | None), checked("warm_up", warm_up, CountOrZero)
    least, steady_times = checked("least", least, NotNegative), checked("steady_times", steady_times, bool)
    if not calls:
        raise ConfigError("there is nothing to time.")
    seconds = limit * len(calls)
    repeats = _warmed(calls, warm_up, seconds / 10, now)
    walls: dict[str, list[float]] = {name: [] for name in calls}
    rans: dict[str, list[float]] = {name: [] for name in calls}
    watch, began, rounds, look = Watch(now, used), now(), 0, _ROUNDS
    while True:
        for name, call in calls.items():
            _turn(call, repeats[name], now, cpu, walls[name], rans[name])
        rounds, taken = rounds + 1, now() - began
        over = taken >= seconds or rounds == most
        if over or (rounds >= look and taken >= least):
            times = {name: _timing(walls[name], rans[name] if cpu else None) for name in calls}
            found = Measured(times, watch.load(), spread, limit, steady_times)
            if over or _settled(found):
                return found
            look = math.ceil(_GROWTH * rounds)


def _warmed(
    calls: Mapping[str, Callable[[], object]], rounds: int, seconds: float, now: Callable[[], float]
) -> dict[str, int]:
    """How often each call is repeated within one timing, seen while the machine gets warm."""
    least = dict.fromkeys(calls, math.inf)
    began = now()
    for number in range(max(rounds, 1)):
        if number and now() - began > seconds:
            break
        for name, call in calls.items():
            start = now()
            call()
            least[name] = min(least[name], now() - start)
    return {
        name: 1 if took >= _SHORT else min(math.ceil(_SHORT / max(took, 1e-9)), _MOST_REPEATS)
        for name, took in least.items()
    }


def _turn(
    call: Callable[[], object],
    repeats: int,
    now: Callable[[], float],
    cpu: Callable[[], float] | None,
    walls: list[float],
    rans: list[float],
) -> None:
    """One timing of one call."""
    ran = cpu() if cpu else 0.0
    began = now()
    for _ in range(repeats):
        call()
    walls.append((now() - began) / repeats)
    rans.append(((cpu() if cpu else 0.0) - ran) / repeats)


def _timing(walls: Sequence[float], rans: Sequence[float] | None) -> Timing:
    every = 1000 * np.asarray(walls if rans is None else rans)
    ms, median, p90 = (float(v) for v in np.quantile(every, [QUANTILE, 0.5, 0.9]))
    parts = np.array_split(every, min(STRETCHES, len(every)))
    chosen = itertools.combinations(parts, len(parts) // 2) if len(parts) >= _FEWEST else ()
    halves = tuple(float(np.quantile(np.concatenate(half), QUANTILE)) for half in chosen)
    ran = None if rans is None else min(sum(rans) / sum(walls), 1.0)
    return Timing(ms, median, p90, _spread(ms, halves), len(every), ran, halves)


def _spread(figure: float, halves: Sequence[float]) -> float:
    """Distance to the half that is farthest off, as a share of the figure."""
    return max((abs(half - figure) for half in halves), default=math.inf) / figure


def _settled(found: Measured) -> bool:
    if len(found.times) == 1:
        return found[found.first].spread <= found.aim
    if any(found.ratio_spread(name) > found.aim for name in found.times):
        return False
    return not found.steady_times or all(t.spread <= REFUSED * found.aim for t in found.times.values())
