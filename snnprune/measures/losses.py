"""The mean loss on data, where a loss of one's own is all that says what is good."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from .. import streams
from ..batches import inputs_in
from ..errors import DataError
from ..inputs import moved
from ..losses import LossFunction, own_loss
from ..ranks import Ranks
from ..resting import evaluating
from .info import LOSS, Evaluation
from .metric import Measure, number_of
from .passes import Told, batches_of, module_of, place_of, running

_AT_REST = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
_NAMED_AT_REST = ("StochasticDepth", "DropPath")


class MeanLoss(Measure):
    """The mean of a loss over all inputs, each batch counted by its inputs; lower is better.

    It is taken in eval mode. Some models give their losses in training mode alone (torchvision's detectors). Where
    the loss of the first batch fails in eval mode, modes are those of training, but norms keep their statistics
    and dropout rests. What is drawn at random is the same for every batch of that number, whenever it is measured.

    Args:
        loss_fn: called as `loss_fn(model, batch)`; the mean loss of the batch.
    """

    info = LOSS

    def __init__(self, loss_fn: LossFunction) -> None:
        self.loss_fn = loss_fn

    def measure(
        self,
        model: Callable[..., Any],
        loader: Iterable[Any],
        *,
        device: torch.device | str | None = None,
        on_batch: Told = None,
        ranks: Ranks | None = None,
    ) -> Evaluation:
        """See `evaluate`."""
        module, ranks = module_of(model), ranks or Ranks()
        where, total, count = place_of(module, device), 0.0, 0
        with streams.kept(), evaluating(module):
            for number, batch in batches_of(loader, ranks):
                batch = batch if where is None else moved(batch, where)
                if count or module is None:
                    value = self._of(model, batch, number)
                else:
                    value = self._first(model, module, batch, number)
                size = inputs_in(batch)
                total, count = total + size * value, count + size
                if on_batch:
                    on_batch()
        total, inputs = ranks.total(total, count)
        if not inputs:
            raise DataError("the data loader yields no batch, so there is nothing to evaluate on.")
        loss = total / inputs
        return Evaluation(loss, loss, int(inputs), self.info)

    def _first(self, model: Callable[..., Any], module: nn.Module, batch: Any, number: int) -> float:
        """The loss of the first batch; the model stays in the modes in which there is one."""
        try:
            return self._of(model, batch, number)
        except Exception as error:
            _learn(module)
            try:
                return self._of(model, batch, number)
            except Exception:
                raise error from None  # in eval mode a reader can do something about it

    def _of(self, model: Callable[..., Any], batch: Any, number: int) -> float:
        streams.seed_all(streams.seed_of(0, "validation", number))
        with running(model) as network:
            return number_of(own_loss(self.loss_fn, network, batch), self.info.name)


def _learn(module: nn.Module) -> None:
    """The modes of training, but for what would change with every pass."""
    module.train()
    for part in module.modules():
        if isinstance(part, _AT_REST) or type(part).__name__ in _NAMED_AT_REST:
            part.eval()
