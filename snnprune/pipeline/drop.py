"""The `drop` target: the fewest MACs at which the metric on validation data gets worse by at most so much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ..budget import check_drop
from ..errors import CollapsedLayerError, ConfigError, DivergedError, RunError, TargetError
from ..files import read_json, write_json
from ..forms import with_value
from ..learner import PruneConfig, check_same_run
from ..measures import ACCURACY
from ..ranks import current
from ..runs.places import BOOK, remove_checkpoint
from ..runs.times import trial_times
from .job import Job
from .setting import Setting


class DropSearch:
    """Bisection of the kept share of MACs; every trial is a whole run with that share as its target.

    A metric gets worse with the share only roughly, so the answer is the smallest share that *was seen* to keep
    it, not a bound. Where connections are switched the share is one of params. Between trials only
    their figures and the best one's last checkpoint are kept.

    Args:
        setting: what the trials share; its options have a `drop` target.
        drop: by how much the metric may get worse, in its own units: of accuracy a fraction.
        folder: for checkpoints; None keeps none.
        resume: go on with what lies there.

    Attributes:
        trials: what each trial kept and lost, so far.
    """

    def __init__(self, setting: Setting, drop: float, folder: Path | None, *, resume: bool) -> None:
        self.setting, self.config, self.drop = setting, setting.config, drop
        self.cost = "params" if self.config.granularity == "connection" else "macs"
        self.folder, self.resume = folder, resume
        self.identity: dict[str, Any] = {}
        self.trials: list[dict[str, Any]] = []
        self.best: tuple[Job, nn.Module] | None = None

    def run(self) -> tuple[Job, nn.Module]:
        """The trial of the smallest share that keeps the metric, and its compact model.

        Raises:
            ConfigError: there are no validation data to judge by.
            TargetError: no trial kept the metric, or that much of it cannot be lost.
            RunError: the trials on file belong to another run.
        """
        metric = self.setting.metric.info
        if self.setting.val is None:
            raise ConfigError(
                f"target drop=... is judged by {metric.name} on validation data: give `val`, or a target macs=... "
                "or params=...."
            )
        check_drop(self.drop, metric.name if metric.percent else None)
        known = self.known()
        current().wait()  # until all have read what rank 0 is about to write
        self.setting.prepare()
        reference = self.setting.validated.value
        low, high = self.setting.least_share(), 1.0
        for at in range(self.config.trials):
            share = round((low + high) / 2, 6)
            self._tell(at, {self.cost: share})
            trial = known.get(share)
            self.trials.append(trial or self._try(share, reference))
            if trial is None:  # the book of a run that goes on is whole already, and stays so if it is killed
                self._note()
            trial = self.trials[-1]
            self._tell(at, trial)
            low, high = (low, share) if trial["passed"] else (share, high)
        passed = [trial[self.cost] for trial in self.trials if trial["passed"]]
        if not passed:
            last = self.trials[-1]
            lost = (
                f"lost {last['drop']:.4f} of" if last["drop"] is not None else "failed, so that nothing is left of"
            )
            raise TargetError(
                f"no trial kept the {metric.name}: even {self.cost}={last[self.cost]:.3g} {lost} the validation "
                f"{metric.name} ({reference:.4f}), and {self.drop:g} is allowed. Allow a larger drop, more epochs "
                "or trials, or tune the learning rate."
            )
        return self.best or self._run(min(passed))  # its checkpoint holds the end of the run

    def known(self) -> dict[float, dict[str, Any]]:
        """Trials that an interrupted run has written down, by their share.

        Raises:
            RunError: they are of another run, or malformed.
        """
        if self.folder is not None and self.resume and (self.folder / "state.pt").exists():
            raise RunError(
                f"{self.folder} holds a run with another kind of target. Repeat the command of the interrupted "
                "run, or remove its folder to start anew."
            )
        if self.folder is None:
            return {}
        self.identity = {
            **self.setting.identity(self._at(1.0)),
            "drop": self.drop,
            "trials": self.config.trials,
        }
        path = self.folder / BOOK
        if not self.resume or not path.exists():
            return {}
        content = read_json(path)
        check_same_run(path, content.get("identity") if isinstance(content, dict) else None, self.identity)
        try:
            trials = list(content["trials"])
            for t in trials:
                lost = t["drop"]
                numbers = type(t[self.cost]) is float and (lost is None or type(lost) in (int, float))
                if any(type(value) not in (int, float, bool, str, type(None)) for value in t.values()):
                    raise ValueError("an entry of a trial is none")
                if not numbers or type(t["passed"]) is not bool:
                    raise ValueError("a trial is none")
            return {t[self.cost]: with_value(t) for t in trials}
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is malformed ({error!r}). Remove its folder to start anew.") from error

    def _try(self, share: float, reference: float) -> dict[str, Any]:
        """One trial; one in which a layer collapses or the learning diverges has not kept the metric."""
        metric = self.setting.metric.info
        try:
            job, compact = self._run(share)
        except (CollapsedLayerError, DivergedError) as error:
            nothing = dict.fromkeys(("val_value", *(("val_accuracy",) if metric == ACCURACY else ()), "drop"))
            return {self.cost: share, "val_metric": metric.name, **nothing, "passed": False, "why": str(error)}
        found = self.setting.validate(compact)
        lost = found.metric.lost(reference, found.value)
        passed = lost <= self.drop + 1e-9 * max(1.0, abs(reference))
        if passed:
            self.best = job, compact
        times = trial_times(self.setting.timer(compact)) if current().first else {}
        return {self.cost: share, **found.validated(), "drop": lost, "passed": passed, **times}

    def _run(self, share: float) -> tuple[Job, nn.Module]:
        job = Job(self.setting, self._at(share))
        job.open(None if self.folder is None else self._place(share), resume=self.resume)
        return job, job.run()

    def _at(self, share: float) -> PruneConfig:
        return replace(self.config, target={self.cost: share})

    def _place(self, share: float) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.cost}-{share:.6f}"

    def _tell(self, at: int, values: dict[str, Any]) -> None:
        self.setting.tell("trial", step=at + 1, total=self.config.trials, **values)

    def _note(self) -> None:
        """Write the book, then remove the checkpoints of trials that are not the best."""
        if self.folder is None or not current().first:
            return
        write_json(self.folder / BOOK, {"identity": self.identity, "trials": self.trials})
        passed = [t[self.cost] for t in self.trials if t["passed"]]
        for other in self.trials:
            if not passed or other[self.cost] != min(passed):
                remove_checkpoint(self._place(other[self.cost]))
