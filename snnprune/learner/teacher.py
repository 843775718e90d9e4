"""The original model as a teacher, which is asked once about every sample where samples are always the same."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..inputs import Batch, device_of, logits_of
from ..streams import kept, seed_all
from .compiling import compiled, compiler_errors
from .speed import Speed, in_format

KEPT_BYTES = 256 * 2**20


class Teacher:
    """Outputs of the original model for batches.

    Batches that say what samples they hold (`inputs.Batch`, from our own loaders without augmentation) are
    answered from outputs that are computed once: at first need, over all samples in the order in which they are
    stored, in the loader's batch size, without the compiler. So they depend on nothing but the sample, wherever a
    run stopped and went on. For all other batches the model runs.

    Args:
        model: the original, in evaluation mode; it stays as it is.
        precision: of the outputs that are kept.
        limit: bytes that they may take; 0 keeps none. They lie on the device of the data.

    Attributes:
        model: the original.
    """

    def __init__(self, model: nn.Module, *, precision: str = "float32", limit: int = KEPT_BYTES) -> None:
        self.model = model
        self._kept = _Kept(model, precision, limit)
        self._speed = Speed()
        self._run: Callable[..., Any] | None = model

    def at(self, speed: Speed) -> Teacher:
        """The same teacher, with the same outputs kept, whose model runs in this format and compiler."""
        other = copy.copy(self)
        other._speed, other._run = speed, None
        return other

    def keep(self, limit: int) -> None:
        """Let outputs that are kept take so many bytes; 0 keeps none from now on."""
        self._kept.limit = limit

    def __call__(self, batch: Any, inputs: Any) -> Tensor:
        """Logits (batch, classes), without a gradient.

        Args:
            batch: as the loader gave it.
            inputs: its inputs, for the model.

        Raises:
            CompilerError: the compiler does not take the model.
        """
        found = self._kept.of(batch)
        if found is not None:
            return found
        if self._run is None:
            model = in_format(self.model, self._speed)
            self._run = compiled(model) if self._speed.compile else model
        with torch.no_grad(), compiler_errors():
            return logits_of(self._run(inputs))[0]


class _Kept:
    """Outputs by sample, of one loader's data."""

    def __init__(self, model: nn.Module, precision: str, limit: int) -> None:
        self.model, self.precision, self.limit = model, precision, limit
        self._origin: object = None
        self._outputs: Tensor | None = None  # (samples, classes); None where they are too large

    def of(self, batch: Any) -> Tensor | None:
        """Outputs for the samples of a batch; None where they are not known."""
        if not self.limit or not isinstance(batch, Batch) or batch.places is None:
            return None
        if batch.source.origin is not self._origin:
            self._outputs = self._compute(batch.source)
            self._origin = batch.source.origin
        return None if self._outputs is None else self._outputs[batch.places]

    @torch.no_grad()
    def _compute(self, source: Any) -> Tensor | None:
        device = device_of(self.model)
        cast = contextlib.nullcontext()
        if self.precision != "float32":
            cast = torch.autocast(device.type, getattr(torch, self.precision))
        outputs: Tensor | None = None
        done = 0
        with kept(), torch.autocast(device.type, enabled=False), cast:
            seed_all(0)  # of models that draw at random even so
            for inputs in source.in_order():
                found = logits_of(self.model(inputs.to(device, non_blocking=True)))[0]
                if not isinstance(found, Tensor) or found.dim() != 2:
                    return None
                if outputs is None:
                    if len(source.images) * found[0].nbytes > self.limit:
                        return None
                    outputs = found.new_empty(len(source.images), found.shape[1])
                outputs[done : done + len(found)] = found
                done += len(found)
        return outputs
