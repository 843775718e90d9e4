"""Recovery: the compact model trains on with a fixed structure."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import streams
from ..batches import inputs_in
from ..errors import CompilerError
from ..inputs import device_of, moved
from ..losses import backward
from ..measures import Measure
from ..metrics import evaluate
from ..ranks import Ranks, current
from .checkpoint import Checkpoint
from .compiling import begin_step, compiled, compiler_errors
from .config import PruneConfig
from .events import Callback
from .loop import first_batches, run_stage
from .loss import TaskLoss
from .modes import TrainingMode
from .optim import can_fuse, clip_gradients, cosine, make_optimizer
from .speed import Speed, candidates, channels_last_, choose, is_open, now, seconds_of, speed_of
from .watch import figures_of, may_go_on

logger = logging.getLogger(__name__)


class RecoverStage:
    """Plain training of a compact model with a fresh cosine schedule.

    What is `auto` in the options is measured on a GPU with the first batch, on copies; nothing of the run itself
    changes by that, neither its weights nor its random numbers. The choice goes into the checkpoint.

    Args:
        model: the compact model; it learns in place.
        loss: of the task.
        config: learning rate, optimiser, schedule, and what may be chosen.
        total: number of steps.
        val: validation batches, or None.
        extra: goes into the checkpoint.
        sparse: names of parameters whose exact zeros stay zeros.
        speed: what it computes in, where that is known already.
        clock: for measuring: the time in seconds, after the device has done all that it was asked for.
        metric: what validation measures; by default the accuracy.

    Attributes:
        speed: what it computes in; None before it is measured.
    """

    name = "recover"

    def __init__(
        self,
        model: nn.Module,
        loss: TaskLoss,
        config: PruneConfig,
        *,
        total: int,
        val: Any,
        extra: dict[str, Any],
        sparse: Sequence[str],
        speed: Speed | None = None,
        clock: Callable[[], float] = now,
        metric: Measure | None = None,
    ) -> None:
        self.model, self.task, self.config = model, loss, config
        self.device, self.clock = device_of(model), clock
        self.sparse = {name: model.get_parameter(name) for name in sparse}
        self._find_zeros()
        self.ranks = current()
        self.total, self.step, self.val, self.extra = total, 0, val, extra
        self.metric = metric
        self.mode = TrainingMode(model, freeze_norm=config.freeze_norm)
        trainable = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(
            config.optimizer,
            [{"params": trainable}] if trainable else [],
            config.lr,
            momentum=config.recovery.momentum,
            weight_decay=config.weight_decay,
            fused=can_fuse(trainable, model) or None,
        )
        self.trainable = trainable
        self.speed: Speed | None = None
        self.forward: Callable[..., Any] = model
        self.loss = loss
        if speed is None and not is_open(config, self.device):
            speed = speed_of(config)
        if speed is not None:
            self._use(speed)

    # -- precision, memory format, compiler ----------------------------------------------------

    def _use(self, speed: Speed) -> None:
        if speed.channels_last:
            channels_last_(self.model)
        if speed.compile and self.config.compile == "auto":  # what was compiled before counts against a limit
            torch.compiler.reset()
        self.forward = compiled(self.model) if speed.compile else self.model
        self.loss = self.task.at(speed)
        self.speed = speed

    def _measure(self, batch: Any) -> Speed:
        """The choice among what is `auto`, made with copies of model and optimiser."""
        found = candidates(self.config, self.model)
        drawn = streams.rng_state()

        def seconds(candidate: Speed) -> float:
            def make() -> Callable[[], Tensor]:
                streams.set_rng_state(drawn)
                twin = RecoverStage(
                    copy.deepcopy(self.model),
                    self.task,
                    self.config,
                    total=self.total,
                    val=None,
                    extra={},
                    sparse=tuple(self.sparse),
                    speed=candidate,
                )
                twin.ranks = Ranks()  # every process measures alone
                return lambda: twin.train_step(batch)

            return seconds_of(make, self.clock, candidate.name)

        with streams.kept():
            return choose(
                found,
                seconds,
                left=self.total - self.step,
                may_compile=self.config.compile == "auto",
                ranks=self.ranks,
            )

    # -- a step --------------------------------------------------------------------------------

    def train_step(self, batch: Any) -> Tensor:
        """One optimiser step; returns the loss and the norm of the gradients."""
        if self.speed is None:
            self._use(self._measure(batch))
        self.mode.set()
        if self.optimizer is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.lr * cosine(self.step, self.total, self.config.recovery.warmup)
            self.optimizer.zero_grad(set_to_none=True)
        try:
            value, share, going = self._pass(batch)
        except CompilerError as error:
            if self.config.compile != "auto" or self.speed is None:
                raise
            logger.warning("%s. The recovery goes on without it", str(error).split(". ")[0])
            self._use(replace(self.speed, compile=False))
            value, share, going = self._pass(batch)
        norms: list[Tensor] = []
        if self.optimizer is not None and going:
            self.ranks.average_gradients_(self.trainable, share)
            norms.append(clip_gradients(self.trainable, self.config.recovery.clip))
            self.optimizer.step()
            self._keep_zeros()
        self.ranks.average_statistics_(self.model, share)
        return figures_of(value, norms)

    def _pass(self, batch: Any) -> tuple[Tensor, Tensor | float, bool]:
        """Gradients; returns the mean loss, this process's share of the inputs, and whether the step goes on."""
        compiling = self.speed is not None and self.speed.compile
        if compiling:
            begin_step(self.device)
        with compiler_errors() if compiling else contextlib.nullcontext():
            loss = self.loss(self.forward, batch)
            value, share = self.ranks.mean(loss.detach(), inputs_in(batch))
            going = may_go_on(value)
            if self.optimizer is not None and going:
                backward(loss)
        return value, share, going

    def check(self, batch: Any) -> None:
        """Raise where a batch is of no use for learning."""
        self.loss.check(batch)

    def _find_zeros(self) -> None:
        self.zeros = {name: parameter.detach() == 0 for name, parameter in self.sparse.items()}

    @torch.no_grad()
    def _keep_zeros(self) -> None:
        for name, parameter in self.sparse.items():
            parameter.masked_fill_(self.zeros[name], 0.0)

    def after_epoch(self, epoch: int) -> dict[str, Any]:
        """Validate."""
        if self.val is None:
            return {}
        return evaluate(self.model, self.val, metric=self.metric, ranks=self.ranks).validated()

    def values(self) -> dict[str, Any]:
        """What to show of the present step."""
        return {}

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "speed": None if self.speed is None else self.speed.to_dict(),
            **self.extra,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned."""
        self.step = state["step"]
        known = state.get("speed")
        if known is not None:
            speed = Speed.read(known)
            if self.config.compile != "auto":  # a run may go on with another compiler than it began with
                speed = replace(speed, compile=self.config.compile)
            elif not _was_measured(speed):
                speed = replace(speed, compile=False)
            self._use(speed)
        self.model.load_state_dict(state["model"])
        self._find_zeros()
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])


def recover(
    model: nn.Module,
    train: Any,
    loss: TaskLoss,
    config: PruneConfig,
    *,
    total: int,
    val: Any = None,
    metric: Measure | None = None,
    callbacks: Iterable[Callback] = (),
    checkpoint: Checkpoint | None = None,
    resume: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
    sparse: Sequence[str] = (),
    speed: Speed | None = None,
    clock: Callable[[], float] = now,
) -> Speed | None:
    """Train a compact model in place for `total` steps.

    Args:
        model: the compact model.
        train: batches of (inputs, labels).
        loss: the task's loss.
        config: learning rate, optimiser, schedule.
        total: number of steps.
        val: validation batches, for progress.
        metric: what they are measured by; by default the accuracy.
        callbacks: told about every step.
        checkpoint: where to write the state.
        resume: a checkpoint's content to go on from.
        extra: goes into the checkpoint, for whoever resumes (the scales that made the model).
        sparse: names of parameters whose exact zeros stay zeros.
        speed: what it computes in, where that is known already.
        clock: for measuring, see `RecoverStage`.

    Returns:
        What it computed in; None where it did no step. The model is in eval mode afterwards.

    Raises:
        DivergedError: a loss or gradient is not finite.
    """
    stage = RecoverStage(
        model, loss, config, total=total, val=val, extra=extra or {}, sparse=sparse, speed=speed, clock=clock,
        metric=metric,
    )  # fmt: skip
    run_stage(
        stage,
        train,
        seed=config.seed,
        device=next(iter(model.parameters())).device,
        callbacks=callbacks,
        checkpoint=checkpoint,
        resume=resume,
    )
    model.eval()
    return stage.speed


def settled(
    model: nn.Module,
    train: Any,
    loss: TaskLoss,
    config: PruneConfig,
    *,
    total: int,
    clock: Callable[[], float] = now,
) -> Speed | None:
    """What recoveries that are compared with each other all compute in: measured once, with the dense network.

    Each of their networks might choose another precision by itself.

    Args:
        model: the dense network, which stays as it is.
        train: batches of (inputs, labels).
        loss: the task's loss.
        config: what may be chosen.
        total: steps of a recovery.
        clock: for measuring, see `RecoverStage`.

    Returns:
        None where nothing is left to be measured on this device.
    """
    where = device_of(model)
    if not is_open(config, where):
        return None
    twin = copy.deepcopy(model)
    stage = RecoverStage(twin, loss, config, total=total, val=None, extra={}, sparse=(), clock=clock)
    with streams.kept():
        (batch,) = first_batches(train, config.seed, "speed", 1)
        return stage._measure(moved(batch, where))


def _was_measured(speed: Speed) -> bool:
    """Whether the compiler was chosen by a measurement, not by an option of the run that began."""
    return speed.name in speed.measured
