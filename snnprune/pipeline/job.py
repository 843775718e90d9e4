"""Job: one trial of a run, from the dense model to a compact one."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from ..errors import RunError
from ..inputs import map_tensors
from ..learner import Callback, Checkpoint, PruneConfig, Speed, reading, recover, search
from ..learner.loop import first_batches
from ..ranks import current
from ..switching import Switched
from .attaching import switch
from .delivered import check_delivered, check_predicted
from .found import Found
from .identity import environment
from .setting import Setting

logger = logging.getLogger(__name__)


class Timer(Protocol):
    """Who knows the time of neurons, and looks at the clock."""

    def ready(self) -> Any:
        """Tell the cost model the time of every part."""

    def settle(self, gated: Switched) -> None:
        """Set the budget of a model at the end of its search by what its cut takes."""


class Job:
    """One trial: probe, search, prove, cut, recover.

    Args:
        setting: what all trials of the run share.
        config: options of this one, whose target is a share of MACs, params or time, or none.
        timer: of a target of time.

    Attributes:
        steps: training steps by stage.
        found: what the search has found, and what was told so far.
        seconds: that the run took before it was gone on with.
        speed: what the recovery computed in; None where there was none.
    """

    def __init__(self, setting: Setting, config: PruneConfig, timer: Timer | None = None) -> None:
        self.setting, self.config, self.timer = setting, config, timer
        self.steps = setting.steps(config)
        self.found = Found()
        self.store: Checkpoint | None = None
        self.saved: dict[str, Any] | None = None
        self.seconds = 0.0
        self.speed: Speed | None = None

    def open(self, place: Path | None, *, resume: bool) -> None:
        """Keep checkpoints in a folder, and with `resume` go on from the one that lies there.

        Raises:
            RunError: it cannot be read or is of another run. All of it can be known before the model is traced.
        """
        if place is None:
            return
        ranks = self.setting.ranks
        identity = self.setting.identity(self.config)
        self.store = Checkpoint(place, identity, writes=ranks.first, environment=environment(self.setting.where))
        self.saved = self.store.load() if resume else None
        _check_alike(self.saved)
        if self.saved is not None:
            self.seconds = self.store.seconds
            with reading():
                self.found = Found.read(self.saved["state"])

    def run(self) -> nn.Module:
        """The compact model, recovered.

        Raises:
            CollapsedLayerError: nothing would be left of a layer.
            DivergedError: the learning diverged.
            ExactnessError: the compact model does not compute what was learned, or costs something else.
            TargetError: the target is below what the floors allow, or the compact model is larger than that.
        """
        setting, ranks = self.setting, self.setting.ranks
        setting.begin()
        if self.config.compile is True:  # what other trials compiled counts against the limit of a model's class
            torch.compiler.reset()
        recovering = self.saved if self.saved is not None and self.saved["stage"] == "recover" else None
        if recovering is not None:
            with reading():
                compact = self.found.cut(copy.deepcopy(setting.dense), setting.groups)
        else:
            compact = self._search()
            less = check_delivered(
                self.config.target,
                setting.dense,
                compact,
                setting.example,
                sparse=self.found.sparse,
                priced=setting.price,
            )
            if less is not None:
                logger.warning("%s.", less)
        ranks.same_([*compact.state_dict().values(), *self.found.scales.values()])
        if self.steps.recover > 0:
            self.speed = recover(
                compact,
                setting.train,
                setting.loss,
                self.config,
                total=self.steps.recover,
                val=setting.val,
                metric=setting.metric,
                callbacks=self._observers(),
                checkpoint=self.store,
                resume=recovering,
                extra=self.found.state(),
                sparse=self.found.sparse,
                speed=setting.speed,
            )
        ranks.check_equal(compact.state_dict(), "weights")
        return compact.eval()

    def attach(self, model: nn.Module) -> Switched:
        """Gates and a fresh scorer on a model; the target is checked before anything is computed."""
        setting, look = self.setting, self._look if self.steps.probe else None
        return switch(model, setting.groups, lambda: setting.cost, self.config, setting.loss, look)

    def _look(self) -> Iterable[Any]:
        """The first batches, which tell how much the loss depends on what is switched."""
        self.setting.tell("probe")
        return first_batches(self.setting.train, self.config.seed, "probe", self.steps.probe)

    def _observers(self) -> list[Callback]:
        """Who is told of every step. What is told is noted first, because one of the others may press Ctrl-C."""
        return [self.found.remember, *self.setting.callbacks]

    def _search(self) -> nn.Module:
        """Learn the scales, prove the cut, and make it."""
        setting, found = self.setting, self.found
        if self.timer is not None:
            self.timer.ready()
        with self.attach(copy.deepcopy(setting.dense)) as gated:
            found.searched = search(
                gated,
                setting.train,
                setting.loss,
                self.config,
                total=self.steps.search,
                per_epoch=setting.per_epoch,
                val=setting.val,
                metric=setting.metric,
                callbacks=self._observers(),
                checkpoint=self.store,
                resume=self.saved,
                extra=found.state(),
            )
            setting.ranks.check_equal(gated.model.state_dict(), "weights after the search")
            if self.timer is not None:
                self.timer.settle(gated)
            setting.tell("check")
            inputs = map_tensors(lambda x: x.to(setting.where), setting.sample)
            found.exactness, found.sparse = gated.prove(inputs), gated.switched_off()
            found.counts = [asdict(count) for count in gated.counts()]
            found.scales = {name: scales.cpu() for name, scales in gated.scales.items()}
            found.kept = {n: (scales > 0).nonzero().flatten().tolist() for n, scales in found.scales.items()}
            compact = gated.compact()
            check_predicted(gated.predicted(), setting.dense, compact, setting.example, priced=setting.price)
            return compact


def _check_alike(saved: dict[str, Any] | None) -> None:
    """Several processes must go on from the same point."""
    ranks = current()
    own = -1.0 if saved is None else saved["state"]["step"] + (1e9 if saved["stage"] == "recover" else 0.0)
    (first,) = ranks.same_values(own)
    if ranks.any(own != first)[0]:
        raise RunError(
            "the processes of this run do not see the same checkpoint. Its folder has to lie on storage that all "
            "of them share; put --output there."
        )
