"""The task's loss: labels, and the original model as a teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import DataError
from ..inputs import logits_of, split_batch, tensors_in
from ..labels import check_logits, targets_of
from ..losses import LossFunction, own_loss
from .compiling import compiler_errors

AUXILIARY = 0.3


class TaskLoss:
    """Loss of a model on one batch.

    `(1 - distill) x cross-entropy + distill x T^2 KL(teacher || student)` at temperature T (Hinton et
    al. 2015, section 2). Labels are classes or class probabilities (`labels.read_labels`). The alternating
    learning adds no sparsity term: a budget acts through the threshold alone. Batches without labels learn
    from the teacher alone. Auxiliary classifiers that run in training (GoogLeNet, Inception) count with a
    weight of 0.3 (Szegedy et al. 2014, section 5).

    Args:
        teacher: the original model; None for labels alone.
        distill: weight of the teacher, in [0, 1].
        temperature: softens both outputs.
        precision: `bfloat16` lets networks and loss run under `torch.autocast`.
        compile: compile the teacher.
        loss_fn: a loss of the user's own, called as `loss_fn(model, batch)`; replaces all of this.
    """

    def __init__(
        self,
        teacher: nn.Module | None,
        *,
        distill: float,
        temperature: float,
        precision: str = "float32",
        compile: bool = False,
        loss_fn: LossFunction | None = None,
    ) -> None:
        self.teacher = teacher if distill > 0 and loss_fn is None else None
        self.distill, self.temperature, self.loss_fn = distill, temperature, loss_fn
        self.precision = precision
        self._teach = torch.compile(self.teacher) if compile and self.teacher is not None else self.teacher

    def __call__(self, model: Callable[..., Any], batch: Any) -> Tensor:
        """A scalar, differentiable in the model's weights and scales.

        Raises:
            DataError: labels or outputs are of no use to it, or a batch is too small for batch norm.
        """
        try:
            return self._cast(model, batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise DataError(
                "a batch holds a single input, of which batch norm cannot learn. Let the training loader leave "
                "out such a last batch (drop_last=True), take another batch size, or set freeze_norm=True."
            ) from error

    def _cast(self, model: Callable[..., Any], batch: Any) -> Tensor:
        if self.precision == "float32":
            return self._at(model, batch)
        where = next((tensor.device.type for tensor in tensors_in(batch)), "cpu")
        with torch.autocast(where, getattr(torch, self.precision)):
            return self._at(model, batch)

    def _at(self, model: Callable[..., Any], batch: Any) -> Tensor:
        if self.loss_fn is not None:
            return own_loss(self.loss_fn, model, batch)
        images, labels = split_batch(batch)
        logits, auxiliary = logits_of(model(images))
        check_logits(logits)
        if labels is not None:
            labels = targets_of(logits, labels)
        elif self.teacher is None:
            raise DataError("the batches hold no labels; set distill > 0 to learn from the original model.")
        target: Tensor | None = None
        if self._teach is not None:
            with torch.no_grad(), compiler_errors():
                target = logits_of(self._teach(images))[0]
        total = self._of(logits, labels, target)
        for extra in auxiliary:
            total = total + AUXILIARY * self._of(extra, labels, target)
        return total

    def hard(self, model: Callable[..., Any], batch: Any) -> Tensor:
        """The loss without the teacher, for the first look at a model that is its own teacher.

        There the distillation has no gradient. Batches without labels get labels drawn from the model's
        own outputs, for which the mean squared gradient is the Fisher information as defined.
        """
        if self.loss_fn is not None:
            return own_loss(self.loss_fn, model, batch)
        images, labels = split_batch(batch)
        logits, auxiliary = logits_of(model(images))
        check_logits(logits)
        if labels is None:
            labels = torch.distributions.Categorical(logits=logits.detach()).sample()
        labels = targets_of(logits, labels)
        total = F.cross_entropy(logits, labels)
        for extra in auxiliary:
            total = total + AUXILIARY * F.cross_entropy(extra, labels)
        return total

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
