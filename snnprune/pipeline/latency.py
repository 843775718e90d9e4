"""The `latency` target: prices are milliseconds, and what the search has found is timed and corrected."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..budget import Latency
from ..errors import ConfigError, RunError, TargetError
from ..files import read_json, write_json
from ..learner import check_same_run
from ..ranks import current
from ..runs.places import LATENCY
from ..switching import Switched
from ..timing import Compared, Profile, profile_of
from ..timing.answers import answers_in
from .setting import Setting

logger = logging.getLogger(__name__)
_TRIES = 5  # cuts that are timed at the end of a search
_AIM = 0.97  # of the time that was asked for: where a correction aims
_LOW = 0.93  # of it: what is faster than this is more than was asked for
_OVER = 1.02  # of it: what may be left to the clock's own spread where no cut is nearer


class LatencySearch:
    """The time of a run: what neurons cost, and how long the result takes.

    The parts of the network are timed before anything is learned, so that the threshold knows what goes with a
    neuron. At the end of the search the cut itself is timed beside the dense model. Where prediction and clock
    disagree the budget is set anew by what the clock says, and the threshold chooses again.

    Args:
        setting: what the run has; its options have a `latency` target.
        wanted: share of the dense time, or milliseconds.
        folder: of the checkpoints; None keeps nothing.
        resume: take the times that lie there.

    Attributes:
        trials: what was predicted and measured of each cut.
        final: times of the result beside the dense model; None where nothing serves here.
    """

    def __init__(self, setting: Setting, wanted: Latency, folder: Path | None, *, resume: bool) -> None:
        config = setting.config
        if config.granularity == "connection":
            raise ConfigError("target latency=... has no meaning for connections: zeros save no time.")
        self.setting, self.wanted, self.ranks = setting, wanted, current()
        self.path = None if folder is None else folder / LATENCY
        self.identity: dict[str, Any] = {}
        self.trials: list[dict[str, Any]] = []
        self.final: Compared | None = None
        self.profile: Profile | None = None
        self._share: float | None = None  # of the predicted dense time, that the search begins with
        self._settled: float | None = None  # and that it ended with
        self._dense_ms = math.nan
        self._elsewhere = config.profile is not None
        if self.path is not None:
            self.identity = {**setting.identity(config), "latency": wanted.value}
            if resume and self.path.exists():
                self._read(self.path)

    @property
    def share(self) -> float:
        """Share of the predicted dense time that the search begins with.

        Raises:
            ExportError: the network cannot be exported, or the engine cannot run it.
            TimingError: the times are of another network, or the engine does not serve.
        """
        if self._share is None:
            profile = self.ready()
            self._share = min(1.0, self._wanted_ms() / profile.predicted_ms)
            self._write()
        return self._share

    def ready(self) -> Profile:
        """Tell the cost model the time of every part; done once."""
        if self.profile is not None:
            return self.profile
        setting, config, ranks = self.setting, self.setting.config, self.ranks
        setting.prepare()
        kept = self.path if self._share is not None else None
        self.profile = profile_of(
            setting.dense,
            setting.groups,
            setting.cost,
            setting.sample,
            config.serving,
            answers=kept or config.profile,
            tell=lambda done, total: setting.tell("latency", step=done, total=total),
            times=ranks.first,
            agree=None if ranks.world == 1 else lambda values: ranks.same_values(*values),
        )
        self._dense_ms = self.profile.dense_ms
        setting.cost.add_times(self.profile.parts)
        return self.profile

    def settle(self, gated: Switched) -> None:
        """Time what the search has found, and set its budget anew until it takes what was asked for.

        Args:
            gated: the model at the end of its search.

        Raises:
            TargetError: it is too slow, however much of it goes.
        """
        profile, share = self.ready(), self.share
        if self._settled is not None:  # another look at the clock could choose another cut
            gated.set_budget({"latency": self._settled})
            return
        self.trials.clear()
        floor = min(1.0, self.setting.least_share("latency") * (1 + 1e-9))
        seen: dict[float, float] = {}  # share of the predicted time -> of what was asked for
        of_target: float | None = None
        for attempt in range(_TRIES):
            self.setting.tell("settle", step=attempt + 1, total=_TRIES)
            gated.set_budget({"latency": share})
            predicted = gated.predicted()["latency"][0]
            of_target = self._try(gated.compact(), share, predicted)
            if of_target is None:
                break
            seen[share] = of_target
            if _LOW <= of_target <= 1:
                break
            following = max(floor, min(1.0, _next(seen, share)))
            if following in seen:  # at the floor, or whole
                break
            share = following
        fast = [s for s, of_target in seen.items() if of_target <= 1]
        if fast:
            share = max(fast, key=lambda s: seen[s])
        elif of_target is not None:  # else the clock gave no last answer, and what it said before led here
            share = min(seen, key=lambda s: seen[s])
            if seen[share] > _OVER:
                raise self._too_slow(profile, floor)
        self._settled = share
        gated.set_budget({"latency": share})
        self._write()

    def note(self, compact: nn.Module) -> None:
        """Time the result."""
        if self._elsewhere:
            return
        settled = None if self._settled is None else round(self._settled, 6)
        predicted = next((t["predicted_ms"] for t in self.trials if t.get("share") == settled), None)
        got = self._compared(compact, predicted) if self.ranks.first else None
        self.final = got
        if got is not None:
            self.trials.append({"final": True, **_figures(got)})

    def _wanted_ms(self) -> float:
        """Milliseconds that were asked for."""
        return self.wanted.ms if self.wanted.ms is not None else self.wanted.of(self._dense_ms) * self._dense_ms

    def _try(self, compact: nn.Module, share: float, predicted: float) -> float | None:
        """What a cut takes by the clock, as a share of what was asked for; None where no clock is to be had."""
        found = None if self._elsewhere or not self.ranks.first else self._compared(compact, predicted)
        of_target = math.nan
        if found is not None and self.wanted.share is not None and found.share is not None:
            of_target = found.share / self.wanted.share
        elif found is not None and self.wanted.ms is not None and found.compact_ms is not None:
            of_target = found.compact_ms / self.wanted.ms
        (of_target,) = self.ranks.same_values(of_target)
        passed = {} if math.isnan(of_target) else {"passed": of_target <= _OVER}
        told = {} if found is None else _figures(found)
        self.trials.append({"share": round(share, 6), "predicted_ms": predicted, **told, **passed})
        return None if math.isnan(of_target) else of_target

    def _compared(self, compact: nn.Module, predicted: float | None) -> Compared | None:
        found = self.setting.timer(compact, predicted_ms=predicted)
        if found is not None and found.share is None and found.compact_ms is None:
            logger.warning("the time of the cut is not to be believed, and was left out: %s", found.refused)
        return found

    def _too_slow(self, profile: Profile, floor: float) -> TargetError:
        timed = [t for t in self.trials if t.get("compact_ms") is not None]  # none in processes that have no clock
        fastest = min(timed, key=lambda t: t["compact_ms"], default={})
        took = f"that takes {fastest['compact_ms']:.3g} ms" if fastest else "of unknown time"
        share = f", {fastest['latency']:.2f} of the dense time" if fastest.get("latency") is not None else ""
        slow = sorted(profile.parts, key=lambda part: -part.dense)[:3]
        holders = ", ".join(f"{part.name} ({part.dense:.3g} ms)" for part in slow)
        return TargetError(
            f"latency={self.wanted} was not reached: the fastest cut is one {took}{share}. At its floor the model "
            f"is predicted to take {floor * profile.predicted_ms:.3g} ms. What takes longest in the dense model "
            f"is {holders}. Ask for more, or lower the floor; on a GPU try larger batches with `snnprune bench`."
        )

    def _write(self) -> None:
        """Keep what is known, so that a run that goes on prices neurons by the same times."""
        if self.path is None or not self.ranks.first:
            return
        profile = self.ready()
        kept: dict[str, Any] = {
            "identity": self.identity,
            "share": self._share,
            "settled": self._settled,
            "dense_ms": self._dense_ms,
            "trials": self.trials,
        }
        write_json(self.path, {**answers_in(profile.answers, profile.key), **kept})

    def _read(self, path: Path) -> None:
        """Take what an interrupted run has written down.

        Raises:
            RunError: it is of another run, or malformed.
        """
        content = read_json(path)
        try:
            check_same_run(path, content["identity"], self.identity)
            share, settled, dense = content["share"], content["settled"], content["dense_ms"]
            trials = list(content["trials"])
            shares = [share, *([] if settled is None else [settled])]
            numbers = all(type(v) in (int, float) and v > 0 for v in (*shares, dense))
            if not numbers or max(shares) > 1 or not all(type(t) is dict for t in trials):
                raise ValueError("a share, the dense time or a trial is none")
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is malformed ({error!r}). Remove its folder to start anew.") from error
        self._share, self._dense_ms, self.trials = float(share), float(dense), trials
        self._settled = None if settled is None else float(settled)


def _next(seen: Mapping[float, float], last: float) -> float:
    """The share to try after those that were timed: where the line through the two nearest meets the aim.

    A first correction has one point alone, and takes prediction and clock to be proportional.
    """
    near = sorted(seen, key=lambda share: abs(seen[share] - _AIM))[:2]
    bounds = 0.5 * last, 2 * last
    if len(near) == 2:
        slope = (seen[near[1]] - seen[near[0]]) / (near[1] - near[0])
        if slope > 0:
            return min(bounds[1], max(bounds[0], near[0] + (_AIM - seen[near[0]]) / slope))
    return min(bounds[1], max(bounds[0], last * _AIM / seen[last]))


def _figures(found: Compared) -> dict[str, Any]:
    """What a trial says of times."""
    told = {"latency": found.share, "dense_ms": found.dense_ms, "compact_ms": found.compact_ms}
    return {**told, "spread": found.spread, "engine": found.engine, "refused": found.refused}
