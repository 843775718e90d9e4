"""Recovery: the compact model trains on with a fixed structure."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from ..inputs import inputs_in
from ..losses import backward
from ..metrics import evaluate
from ..ranks import current
from .checkpoint import Checkpoint
from .compiling import compiler_errors
from .config import PruneConfig
from .events import Callback
from .loop import clip_gradients, run_stage
from .loss import TaskLoss
from .optim import cosine, freeze_norm_, make_optimizer


class RecoverStage:
    """Plain training of a compact model with a fresh cosine schedule."""

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
    ) -> None:
        self.model, self.loss, self.config = model, loss, config
        self.forward = torch.compile(model) if config.compile else model
        self.compiling = compiler_errors if config.compile else contextlib.nullcontext
        self.sparse = {name: model.get_parameter(name) for name in sparse}
        self._find_zeros()
        self.ranks = current()
        self.total, self.step, self.val, self.extra = total, 0, val, extra
        trainable = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(
            config.optimizer,
            [{"params": trainable}] if trainable else [],
            config.lr,
            momentum=config.recovery.momentum,
            weight_decay=config.weight_decay,
        )
        self.trainable = trainable

    def train_step(self, batch: Any) -> float:
        """One optimiser step; returns the loss."""
        self.model.train()
        if self.config.freeze_norm:
            freeze_norm_(self.model)
        with self.compiling():
            loss = self.loss(self.forward, batch)
        value, share = self.ranks.mean(float(loss.detach()), inputs_in(batch))
        if self.optimizer is None:
            self.ranks.average_statistics_(self.model, share)
            return value
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * cosine(self.step, self.total, self.config.recovery.warmup)
        self.optimizer.zero_grad(set_to_none=True)
        if math.isfinite(value):
            with self.compiling():
                backward(loss)
            self.ranks.average_gradients_(self.trainable, share)
            clip_gradients(self.trainable, self.config.recovery.clip)
            self.optimizer.step()
            self._keep_zeros()
        self.ranks.average_statistics_(self.model, share)
        return value

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
        result = evaluate(self.model, self.val, ranks=self.ranks)
        return {"val_accuracy": result.accuracy, "val_loss": result.loss}

    def values(self) -> dict[str, Any]:
        """What to show of the present step."""
        return {}

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            **self.extra,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Put back what `state` returned."""
        self.step = state["step"]
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
    callbacks: Iterable[Callback] = (),
    checkpoint: Checkpoint | None = None,
    resume: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
    sparse: Sequence[str] = (),
) -> nn.Module:
    """Train a compact model in place for `total` steps.

    Args:
        model: the compact model.
        train: batches of (inputs, labels).
        loss: the task's loss.
        config: learning rate, optimiser, schedule.
        total: number of steps.
        val: validation batches, for progress.
        callbacks: told about every step.
        checkpoint: where to write the state.
        resume: a checkpoint's content to go on from.
        extra: goes into the checkpoint, for whoever resumes (the scales that made the model).
        sparse: names of parameters whose exact zeros stay zeros.

    Returns:
        The same model, in eval mode.

    Raises:
        DivergedError: a loss or gradient is not finite.
    """
    stage = RecoverStage(model, loss, config, total=total, val=val, extra=extra or {}, sparse=sparse)
    run_stage(
        stage,
        train,
        seed=config.seed,
        device=next(iter(model.parameters())).device,
        callbacks=callbacks,
        checkpoint=checkpoint,
        resume=resume,
    )
    return model.eval()
