"""The search: switcher and network learn together, or in turn (Algorithm 1 of arXiv 2110.05954)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..batches import inputs_in
from ..inputs import map_tensors
from ..losses import backward
from ..measures import Measure
from ..metrics import evaluate
from ..ranks import current
from ..switching import Phase, Switched
from .checkpoint import Checkpoint
from .config import PruneConfig
from .events import Callback
from .loop import run_stage
from .loss import TaskLoss
from .modes import TrainingMode
from .optim import can_fuse, clip_gradients, cosine, make_optimizer
from .watch import figures_of, may_go_on

STEPS_AT_FULL_RATE = 60


def scorer_pace(config: PruneConfig, total: int) -> float:
    """What the scorer's learning rates are multiplied with in a search of so many steps, in (0, 1].

    After a post-training start all values lie within a few per cent of each other, and an adaptive optimiser
    moves each by about its learning rate at every step, however little the gradient says. Over a long search
    that adds up to many times the distance between neurons: then they trade places at every step, faster than the
    network learns. So under a budget the sum of the rates over the scorer's steps is bounded.

    Args:
        config: target, start, and how often the scorer learns.
        total: steps of the search.
    """
    if config.target is None or config.search.start == "fresh":
        return 1.0
    steps = total / (config.search.hold if config.search.alternate == "together" else 2)
    return min(1.0, STEPS_AT_FULL_RATE / max(1.0, steps))


class SearchStage:
    """Search of one gated model: its switcher and its network learn.

    With `alternate="together"` both move at every step, from the gradients of one pass: no batch is spent on one
    of them alone; with `hold` the scorer does so at some steps, and its scales are held between them. Else they
    take turns. In even blocks the network is fixed and the scorer learns; in odd ones the scorer is fixed and the
    network learns, with its gradient through the scorer or with held scales. Under a budget the threshold moves at
    every step of the scorer, on a ramp that ends at the target.
    """

    name = "search"

    def __init__(
        self,
        gated: Switched,
        loss: TaskLoss,
        config: PruneConfig,
        *,
        total: int,
        per_epoch: int,
        val: Any,
        extra: dict[str, Any],
        metric: Measure | None = None,
    ) -> None:
        self.gated, self.loss, self.config = gated, loss, config
        self.total, self.step, self.per_epoch = total, 0, per_epoch
        self.val, self.extra, self.metric = val, extra, metric
        self.block = config.search.alternate if isinstance(config.search.alternate, int) else per_epoch
        self.best, self.waited = math.inf, 0
        self.ranks = current()
        self.mode = TrainingMode(gated.model, freeze_norm=config.freeze_norm)
        assert gated.scorer is not None
        scorer = gated.scorer
        pace = scorer_pace(config, total)
        groups = [
            {"params": scorer.switcher_parameters(), "lr": pace * config.search.switcher_lr},
            {"params": scorer.offset_parameters(), "lr": pace * config.search.offset_lr},
        ]
        chosen = [g for g in groups if g["params"]]
        self.learned = gated.scorer_parameters(), gated.network_parameters()  # listing them takes time
        self.scorer_optimizer = make_optimizer(
            config.search.switcher_optimizer,
            chosen,
            config.search.switcher_lr,
            momentum=0.0,
            weight_decay=0.0,
            fused=can_fuse(self.learned[0]) or None,
        )
        self.optimizer = make_optimizer(
            config.optimizer,
            [{"params": self.learned[1]}] if self.learned[1] else [],
            config.lr,
            momentum=config.recovery.momentum,
            weight_decay=config.weight_decay,
            fused=can_fuse(self.learned[1], gated.model) or None,
        )

    def train_step(self, batch: Any) -> Tensor:
        """One step of whoever's turn it is; returns the loss and the norm of each mover's gradients."""
        config, gated = self.config, self.gated
        phase = self._phase()
        self.mode.set()
        holding = phase == "network" and config.search.alternate == "together"
        if not holding:
            gated.set_phase(phase, gradient=config.search.gradient)
        if config.target is not None and not holding:
            self._set_budget(self.step + 1)
        movers = []
        if phase != "network" and self.scorer_optimizer is not None:
            movers.append((self.scorer_optimizer, self.learned[0], config.search.switcher_clip))
        if phase != "switcher" and self.optimizer is not None:
            movers.append((self.optimizer, self.learned[1], config.recovery.clip))
        for optimizer, _, _ in movers:
            optimizer.zero_grad(set_to_none=True)
        with gated.running() as model:
            loss = self.loss(model, batch)
            value, share = self.ranks.mean(loss.detach(), inputs_in(batch))
            going = may_go_on(value)
            if going:
                backward(loss)  # in here, because checkpointed parts run once more in it
        norms: list[Tensor] = []
        if going:
            for _, parameters, limit in movers:
                self.ranks.average_gradients_(parameters, share)
                norms.append(clip_gradients(parameters, limit))
            for optimizer, _, _ in movers:
                self._schedule(optimizer)
                optimizer.step()
        if phase == "both" and config.search.hold > 1:
            gated.hold()
        self.ranks.average_statistics_(gated.model, share)
        return figures_of(value, norms)

    def check(self, batch: Any) -> None:
        """Raise where a batch is of no use for learning."""
        self.loss.check(batch)

    def _phase(self) -> Phase:
        if self.optimizer is None:
            return "switcher"
        if self.config.search.alternate == "together":
            return "both" if self.step % self.config.search.hold == 0 else "network"
        return "switcher" if (self.step // self.block) % 2 == 0 else "network"

    def _set_budget(self, step: int) -> None:
        ramp = max(1.0, self.config.search.ramp * self.total)
        self.gated.set_budget(self.config.target, progress=step / ramp)

    def _schedule(self, optimizer: torch.optim.Optimizer) -> None:
        if self.config.search.decay:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * cosine(self.step, self.total, 0.0)

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Count, and validate."""
        counts = {c.id: [c.kept, c.weakened, c.strengthened] for c in self.gated.counts()}
        if self.val is None:
            return {"counts": counts}
        found = evaluate(self.gated, self.val, metric=self.metric, ranks=self.ranks)
        if self.config.search.patience is not None and self.config.target is None:
            # The loss tells of progress sooner than accuracy; a metric of the user's own has none beside it.
            figure = found.metric.lost(0.0, found.value) if found.loss is None else found.loss
            self.waited = 0 if figure < self.best - 1e-4 else self.waited + 1
            self.best = min(self.best, figure)
            if self.waited >= self.config.search.patience:
                self.total = self.step
        return {**found.validated(), "counts": counts}

    def values(self) -> dict[str, Any]:
        """What to show of the present step."""
        budget = self.gated.budget
        return {"budget": budget.share, "cost": budget.metric} if budget else {}

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        self.gated.settle()  # nothing that has gone wrong is written
        return {
            "step": self.step,
            "total": self.total,
            "best": self.best,
            "waited": self.waited,
            "held": self.gated.held_state(),
            **self.gated.state_dict(),
            "scorer_optimizer": self.scorer_optimizer.state_dict() if self.scorer_optimizer else None,
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            **self.extra,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned."""
        assert self.gated.scorer is not None
        self.step, self.total = state["step"], state["total"]
        self.best, self.waited = state["best"], state["waited"]
        self.gated.load_state_dict(state)
        if self.scorer_optimizer:
            self.scorer_optimizer.load_state_dict(state["scorer_optimizer"])
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        if state["budget"] is not None and self.config.target is not None:  # for a validation that is due
            self._set_budget(self.step)
        if state["held"] is not None:
            device = next(iter(self.gated.model.parameters())).device
            self.gated.hold(map_tensors(lambda x: x.to(device), state["held"]))


def search(
    gated: Switched,
    train: Any,
    loss: TaskLoss,
    config: PruneConfig,
    *,
    total: int,
    per_epoch: int,
    val: Any = None,
    metric: Measure | None = None,
    callbacks: Iterable[Callback] = (),
    checkpoint: Checkpoint | None = None,
    resume: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
) -> int:
    """Learn scales and weights, in place; afterwards the budget stands at the target.

    Args:
        gated: a model with gates and a scorer.
        train: batches of (inputs, labels).
        loss: the task's loss.
        config: learning rates, alternation, target.
        total: number of steps.
        per_epoch: batches per epoch.
        val: validation batches, for progress and for the stop rule.
        metric: what they are measured by; by default the accuracy.
        callbacks: told about every step.
        checkpoint: where to write the state.
        resume: a checkpoint's content to go on from.
        extra: goes into the checkpoint, for whoever resumes.

    Returns:
        The number of steps done: `total`, or fewer when the stop rule ended the search.

    Raises:
        DivergedError: a loss, gradient or scale is not finite.
        CollapsedLayerError: in free mode, a whole layer was switched off.
    """
    stage = SearchStage(
        gated, loss, config, total=total, per_epoch=per_epoch, val=val, extra=extra or {}, metric=metric
    )
    device = next(iter(gated.model.parameters())).device
    run_stage(
        stage,
        train,
        seed=config.seed,
        device=device,
        callbacks=callbacks,
        checkpoint=checkpoint,
        resume=resume,
    )
    gated.set_phase("both")
    if config.target is not None:
        gated.set_budget(config.target)
    gated.model.eval()
    return stage.step
