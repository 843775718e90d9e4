"""How much the loss depends on what is switched: the Fisher information of every scale, at scale 1."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..batches import inputs_in
from ..errors import DivergedError
from ..graph import NeuronGroup
from ..inputs import device_of, moved
from ..layers import attention
from ..ranks import current
from ..resting import kept_buffers, still
from ..surgery import ColumnMap, column_maps, scale_call

logger = logging.getLogger(__name__)
Loss = Callable[[Callable[..., Any], Any], Tensor]


class Probe(ABC):
    """Sums up squared gradients of one kind of scale while batches pass.

    Attributes:
        total: name -> sum so far.
        reached: names that a gradient has reached.
    """

    def __init__(self, total: dict[str, Tensor]) -> None:
        self.total = total
        self.reached: set[str] = set()

    @abstractmethod
    def hook(self, model: nn.Module) -> list[Any]:
        """Put hooks on the model; returns their handles."""

    @abstractmethod
    def begin(self, count: int) -> list[Tensor]:
        """A batch of so many inputs comes; returns what its gradient is asked of."""

    @abstractmethod
    def end(self, found: Sequence[Tensor | None]) -> None:
        """The gradients that were found."""


def look(model: nn.Module, probe: Probe, batches: Iterable[Any], loss: Loss) -> int:
    """Let batches pass a probe: norms and dropout rest, no weight changes, and buffers are put back.

    Args:
        model: without gates.
        probe: what looks.
        batches: what `loss` takes.
        loss: `loss(model, batch)`, a mean over the batch as a tensor without dimensions.

    Returns:
        How many inputs were seen, by all processes.

    Raises:
        DivergedError: the loss is not finite.
    """
    device = device_of(model)
    seen = 0
    with attention.opened(model), still(model), kept_buffers(model):
        handles = probe.hook(model)
        try:
            for batch in batches:
                batch = moved(batch, device)
                count = inputs_in(batch)
                leaves = probe.begin(count)
                with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
                    value = loss(model, batch) * count
                if not bool(torch.isfinite(value)):
                    raise DivergedError(
                        f"the loss became {float(value.detach()):g} before anything was learned. Check the "
                        "model and the data for values that are not finite."
                    )
                seen += count
                if value.requires_grad:  # else nothing that is looked at was reached
                    probe.end(torch.autograd.grad(value, leaves, allow_unused=True))
        finally:
            for handle in handles:
                handle.remove()
    probe.reached, seen = current().pool_(probe.total, probe.reached, seen)
    return seen


def measure_importance(
    model: nn.Module, groups: Sequence[NeuronGroup], batches: Iterable[Any], loss: Loss
) -> dict[str, Tensor]:
    """Mean square, over inputs, of the gradient of each input's loss by each neuron's scale, at scale 1.

    Every input has scales of its own, so that one backward pass gives the gradients of a whole batch
    apart; a batch of 64 tells as much as 64 batches would. (Theis et al. 2018, arXiv 1801.05787, section 2.2:
    half of it estimates by how much the loss rises when the neuron goes.) Inputs are told apart along the first
    dimension of what a layer reads; where that is no batch (sequences first), the estimate is coarser.

    Args:
        model: without gates.
        groups: its groups.
        batches: what `loss` takes.
        loss: `loss(model, batch)`, a mean over the batch as a tensor without dimensions.

    Returns:
        Group id -> (size,), for the prunable groups that the loss's gradient reaches; under reentrant
        checkpointing it reaches none inside.

    Raises:
        DivergedError: the loss is not finite.
    """
    probe = _NeuronProbe(model, groups)
    seen = look(model, probe, batches, loss)
    unknown = sorted(probe.total.keys() - probe.reached)
    if unknown and seen:
        logger.warning(
            "no gradient of the loss reaches %d groups, such as %s, so they are judged by their weights alone; "
            "reentrant checkpointing (use_reentrant=False cures it) or an output that the loss leaves out",
            len(unknown),
            unknown[0],
        )
    return {name: total / max(1, seen) for name, total in probe.total.items() if name in probe.reached}


class _NeuronProbe(Probe):
    """Scales per input on the inputs of every consumer."""

    def __init__(self, model: nn.Module, groups: Sequence[NeuronGroup]) -> None:
        self.device = device_of(model)
        self.maps = column_maps(model, groups)
        sizes = {group.id: group.size for group in groups if group.prunable}
        super().__init__({n: torch.zeros(s, device=self.device, dtype=torch.float32) for n, s in sizes.items()})
        self.leaves: dict[str, Tensor] = {}

    def hook(self, model: nn.Module) -> list[Any]:
        return [
            model.get_submodule(name).register_forward_pre_hook(_PerInput(columns, self.leaves), with_kwargs=True)
            for name, columns in self.maps.items()
        ]

    def begin(self, count: int) -> list[Tensor]:
        like: dict[str, Any] = {"device": self.device, "dtype": torch.float32, "requires_grad": True}
        self.leaves.update({n: torch.ones(count, len(total), **like) for n, total in self.total.items()})
        return list(self.leaves.values())

    def end(self, found: Sequence[Tensor | None]) -> None:
        for name, gradient in zip(self.leaves, found, strict=True):
            if gradient is not None:
                self.reached.add(name)
                self.total[name] += gradient.float().square().sum(0)


class _PerInput:
    """Forward pre-hook of one consumer: every input of the batch has scales of its own."""

    def __init__(self, columns: ColumnMap, leaves: dict[str, Tensor]) -> None:
        self.columns, self.leaves = columns, leaves

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        factor = self.columns(self.leaves)
        return None if factor is None else scale_call(module, args, kwargs, factor)
