"""Balancing: how high the threshold of each group lies, found by trial before anything is learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..inputs import inputs_in
from ..ranks import current
from ..streams import kept, seed_all, seed_of
from ..switching import GatedModel
from .checkpoint import Checkpoint
from .config import PruneConfig
from .events import Callback
from .loop import run_stage
from .loss import TaskLoss
from .modes import TrainingMode
from .watch import figures_of

LOOKS = 3  # batches that all trials share
_WIDTH, _WIDER, _NARROWER = 0.3, 1.3, 0.93  # of a trial in spreads of the values; after a gain, and after none


class BalanceStage:
    """Search of the groups' shifts, a trial at every step, by what the cut network makes of a few batches.

    What the loss says of single neurons does not say how much of a whole layer can go. So shifts are drawn around
    the best ones known, and are kept where the loss of the network, cut to its target and not yet recovered, is
    smaller on the same batches: a (1+1) evolution strategy (Rechenberg 1973) whose width follows its success.
    Batch norm takes the statistics of these batches, without which a cut network's loss says little of what it
    recovers to (Li et al. 2020, EagleEye, arXiv 2007.02491, section 3.3). All trials draw the same random numbers,
    so that a network with dropout is compared by nothing but its shifts. No weight changes.

    Args:
        gated: a model with gates and a scorer on neurons.
        loss: of the task.
        config: the target, and whether batch norm is frozen.
        total: number of trials; the first is of the shifts as they are.
        extra: goes into the checkpoint.

    Attributes:
        best: least loss so far, of `shifts`.
    """

    name = "balance"

    def __init__(
        self, gated: GatedModel, loss: TaskLoss, config: PruneConfig, *, total: int, extra: dict[str, Any]
    ) -> None:
        self.scorer: Any = gated.scorer
        self.gated, self.loss, self.config, self.extra = gated, loss, config, extra
        self.total, self.step = total, 0
        self.ranks = current()
        self.mode = TrainingMode(gated.model, freeze_norm=config.freeze_norm)
        self.shifts, self.best = self.scorer.shifts.clone(), float("inf")
        with torch.no_grad():
            spread = float((self.scorer(gated.model) + self.scorer.lifts).std())
        (self.unit,) = self.ranks.same_values(spread)
        self.width = _WIDTH
        self.drawn = torch.Generator().manual_seed(seed_of(config.seed, self.name))

    @torch.no_grad()
    def train_step(self, batch: Any) -> Tensor:
        """One trial on the batches that all share; returns the least loss so far."""
        tried = self.shifts
        if self.step:
            drawn = torch.randn(len(tried), generator=self.drawn, dtype=tried.dtype)
            tried = tried + self.width * self.unit * drawn.to(tried.device)
        found = self._loss(tried, batch)
        if not self.step or found < self.best:  # a loss that is not finite is no smaller one
            self.shifts, self.best = tried, found
            self.width *= _WIDER if self.step else 1.0
        else:
            self.width *= _NARROWER
        return figures_of(torch.tensor(self.best), [])

    def _loss(self, shifts: Tensor, batches: Sequence[Any]) -> float:
        self._apply(shifts)
        self.mode.set()
        total, count = 0.0, 0
        with kept():
            seed_all(seed_of(self.config.seed, self.name, "trial"))
            for batch in batches:
                with self.gated.running() as model:
                    own = self.loss(model, batch)
                mean, _ = self.ranks.mean(own, inputs_in(batch))
                total, count = total + float(mean), count + 1
        return total / count

    def _apply(self, shifts: Tensor) -> None:
        self.scorer.shifts.copy_(shifts)
        self.gated.forget()

    def check(self, batch: Any) -> None:
        """Raise where a batch is of no use."""
        for one in batch:
            self.loss.check(one)

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Nothing is validated: no weight has changed."""
        return {}

    def values(self) -> dict[str, Any]:
        """What to show of the present step."""
        return {}

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {
            "step": self.step,
            "shifts": self.shifts,
            "best": self.best,
            "unit": self.unit,
            "width": self.width,
            "drawn": self.drawn.get_state(),
            **self.extra,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned."""
        self.step, self.best = state["step"], state["best"]
        self.unit, self.width = state["unit"], state["width"]
        self.shifts = state["shifts"].to(self.shifts)
        self.drawn.set_state(state["drawn"].cpu())

    def end(self) -> None:
        """Leave the best shifts in the model."""
        self._apply(self.shifts)


class _Shared:
    """A loader of `count` equal items: the same few batches, which are a process's own already."""

    def __init__(self, pool: list[Any], count: int) -> None:
        self.pool, self.count = pool, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return self.batches(0)

    def batches(self, epoch: int, start: int = 0, *, part: Any = None) -> Iterator[Any]:
        """From `start` on; every epoch is alike."""
        yield from (self.pool for _ in range(start, self.count))


def balance(
    gated: GatedModel,
    batches: Iterable[Any],
    loss: TaskLoss,
    config: PruneConfig,
    *,
    total: int,
    callbacks: Iterable[Callback] = (),
    checkpoint: Checkpoint | None = None,
    resume: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
) -> None:
    """Find shifts of the groups' thresholds, in place; afterwards there is no budget, as before.

    Args:
        gated: a model with gates and a scorer on neurons.
        batches: a few of the training batches, the same ones whenever a run is gone on with.
        loss: the task's loss.
        config: options of the run.
        total: number of trials.
        callbacks: told about every step.
        checkpoint: where to write the state.
        resume: a checkpoint's content to go on from.
        extra: goes into the checkpoint, for whoever resumes.

    Raises:
        DivergedError: the loss of the cut network is not finite.
    """
    stage = BalanceStage(gated, loss, config, total=total, extra=extra or {})
    statistics = [(value, value.clone()) for value in gated.model.buffers()]
    gated.set_phase("both")
    gated.set_budget(config.target)
    device = next(iter(gated.model.parameters())).device
    shared = _Shared(list(batches), total)
    try:
        run_stage(
            stage,
            shared,
            seed=config.seed,
            device=device,
            callbacks=callbacks,
            checkpoint=checkpoint,
            resume=resume,
        )
    finally:
        with torch.no_grad():
            for value, before in statistics:
                value.copy_(before)
    stage.end()
    gated.model.eval()
    gated.set_budget(None)
