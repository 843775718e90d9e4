"""The task's loss: labels, and the original model as a teacher."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DataError
from ..inputs import logits_of, split_batch, tensors_in
from ..labels import check_logits, read_labels, targets_of, unread_targets
from ..late import runs_ahead
from ..losses import LossFunction, own_loss
from .config import PruneConfig
from .speed import Speed, speed_of
from .teacher import KEPT_BYTES, Teacher

AUXILIARY = 0.3


class TaskLoss:
    """Loss of a model on one batch.

    `(1 - distill) x cross-entropy + distill x T^2 KL(teacher || student)` at temperature T (Hinton et
    al. 2015, section 2). Labels are classes or class probabilities (`labels.read_labels`). The search adds no
    term for sparsity: a budget acts through the threshold alone. Batches without labels learn from the teacher
    alone. Auxiliary classifiers that run in training (GoogLeNet, Inception) count with a
    weight of 0.3 (Szegedy et al. 2014, section 5).

    Nothing in it makes the CPU wait for a GPU. So labels there are looked at only where their values have made the
    loss not finite: a label out of range does so, and `check` then says what is wrong with it.

    Args:
        teacher: the original model, or what already keeps outputs of it; None for labels alone.
        distill: weight of the teacher, in [0, 1].
        temperature: softens both outputs.
        precision: `bfloat16` lets networks and loss run under `torch.autocast`.
        compile: compile the teacher.
        loss_fn: a loss of the user's own, called as `loss_fn(model, batch)`; replaces all of this.
    """

    def __init__(
        self,
        teacher: nn.Module | Teacher | None,
        *,
        distill: float,
        temperature: float,
        precision: str = "float32",
        compile: bool = False,
        loss_fn: LossFunction | None = None,
    ) -> None:
        self.teaching: Teacher | None = None
        if teacher is not None and distill > 0 and loss_fn is None:
            whole = teacher if isinstance(teacher, Teacher) else Teacher(teacher, precision=precision)
            self.teaching = whole.at(Speed(compile=compile)) if compile else whole
        self.distill, self.temperature, self.loss_fn = distill, temperature, loss_fn
        self.precision = precision
        self._classes: int | None = None  # outputs of the model, once they were seen

    @classmethod
    def of(
        cls, config: PruneConfig, teacher: nn.Module | Teacher, loss_fn: LossFunction | None = None
    ) -> TaskLoss:
        """The loss of a run.

        Args:
            config: its options.
            teacher: the original model.
            loss_fn: the user's own.
        """
        speed = speed_of(config)
        if not isinstance(teacher, Teacher):
            # within a single epoch nothing is saved by asking it about every sample first
            limit = KEPT_BYTES if config.epochs > 1 else 0
            teacher = Teacher(teacher, precision=speed.precision, limit=limit)
        return cls(
            teacher,
            distill=config.distill,
            temperature=config.recovery.temperature,
            precision=speed.precision,
            compile=speed.compile,
            loss_fn=loss_fn,
        )

    @property
    def teacher(self) -> nn.Module | None:
        """The original model, where there is something to learn from it."""
        return None if self.teaching is None else self.teaching.model

    def at(self, speed: Speed) -> TaskLoss:
        """The same loss in another precision, format and compiler; what the teacher keeps is shared."""
        other = copy.copy(self)
        other.precision = speed.precision
        other.teaching = None if self.teaching is None else self.teaching.at(speed)
        return other

    def __call__(self, model: Callable[..., Any], batch: Any) -> Tensor:
        """A scalar, differentiable in the model's weights and scales.

        Raises:
            DataError: labels or outputs are of no use to it, or a batch is too small for batch norm.
        """
        try:
            return self._cast(self._at, model, batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise DataError(
                "a batch holds a single input, of which batch norm cannot learn. Let the training loader leave "
                "out such a last batch (drop_last=True), take another batch size, or set freeze_norm=True."
            ) from error

    def _cast(self, loss: Callable[..., Tensor], model: Callable[..., Any], batch: Any) -> Tensor:
        if self.precision == "float32":
            return loss(model, batch)
        where = next((tensor.device.type for tensor in tensors_in(batch)), "cpu")
        with torch.autocast(where, getattr(torch, self.precision)):
            return loss(model, batch)

    def _at(self, model: Callable[..., Any], batch: Any) -> Tensor:
        if self.loss_fn is not None:
            return own_loss(self.loss_fn, model, batch)
        images, labels = split_batch(batch)
        logits, auxiliary = logits_of(model(images))
        check_logits(logits)
        wrong: Tensor | None = None
        if labels is not None:
            labels, wrong = self._read(logits, labels)
        elif self.teaching is None:
            raise DataError("the batches hold no labels; set distill > 0 to learn from the original model.")
        target = None if self.teaching is None else self.teaching(batch, images)
        total = self._of(logits, labels, target)
        for extra in auxiliary:
            total = total + AUXILIARY * self._of(extra, labels, target)
        return total if wrong is None else total.masked_fill(wrong, math.nan)

    def _read(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Targets, and where nobody could wait for an answer, whether they are of no use."""
        if not runs_ahead(labels.device):
            return targets_of(logits, labels), None
        targets, wrong = unread_targets(logits, labels)
        self._classes = logits.shape[1]
        return targets, wrong

    def check(self, batch: Any) -> None:
        """Refuse labels that have made the loss not finite.

        Raises:
            DataError: they are of no use; the message says why.
        """
        if self.loss_fn is None and self._classes is not None:
            labels = split_batch(batch)[1]
            if labels is not None:
                read_labels(labels, self._classes)

    def hard(self, model: Callable[..., Any], batch: Any) -> Tensor:
        """The loss without the teacher, for the first look at a model that is its own teacher.

        There the distillation has no gradient. Batches without labels get labels drawn from the model's
        own outputs, for which the mean squared gradient is the Fisher information as defined. It is computed in
        the precision of the model's weights, whatever that of the run.
        """
        if self.loss_fn is not None:
            return own_loss(self.loss_fn, model, batch)
        images, labels = split_batch(batch)
        logits, auxiliary = logits_of(model(images))
        check_logits(logits)
        if labels is None:
            labels = torch.distributions.Categorical(logits=logits.detach()).sample()
        labels, wrong = self._read(logits, labels)
        total = F.cross_entropy(logits, labels)
        for extra in auxiliary:
            total = total + AUXILIARY * F.cross_entropy(extra, labels)
        return total if wrong is None else total.masked_fill(wrong, math.nan)

    def labelled(self, model: Callable[..., Any], batch: Any) -> Tensor:
        """The loss without the teacher, for learning: as `hard`, in the precision of the run."""
        return self._cast(self.hard, model, batch)

    def _of(self, logits: Tensor, labels: Tensor | None, target: Tensor | None) -> Tensor:
        """Loss of one classifier."""
        if target is None:
            assert labels is not None
            return F.cross_entropy(logits, labels)
        t = self.temperature
        soft = F.kl_div(
            F.log_softmax(logits / t, 1), F.log_softmax(target / t, 1), reduction="batchmean", log_target=True
        )
        if labels is None:
            return t * t * soft
        return (1 - self.distill) * F.cross_entropy(logits, labels) + self.distill * t * t * soft
