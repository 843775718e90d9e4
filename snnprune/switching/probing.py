"""How much the loss depends on each neuron: the Fisher information of its gate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DivergedError
from ..graph import NeuronGroup
from ..inputs import inputs_in, kept_buffers, moved, still
from ..layers import attention
from ..ranks import current
from ..surgery import ColumnMap, column_maps, scale_call

logger = logging.getLogger(__name__)


def measure_sensitivity(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    batches: Iterable[Any],
    loss: Callable[[Callable[..., Any], Any], Tensor],
) -> dict[str, Tensor]:
    """Mean square, over inputs, of the gradient of each input's loss by each neuron's scale, at scale 1.

    Every input has scales of its own, so that one backward pass gives the gradients of a whole batch
    apart; a batch of 64 tells as much as 64 batches would. (Theis et al. 2018, arXiv 1801.05787, section 2.2:
    half of it estimates by how much the loss rises when the neuron goes.) Norms and dropout layers rest, no
    weight changes, and buffers are put back. Inputs are told apart along the first dimension of what a layer
    reads; where that is no batch (sequences first), the estimate is coarser.

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
    maps = column_maps(model, groups)
    sizes = {group.id: group.size for group in groups if group.prunable}
    device = next(iter(model.parameters())).device
    total = {name: torch.zeros(size, device=device, dtype=torch.float32) for name, size in sizes.items()}
    reached: set[str] = set()
    seen = 0
    leaves: dict[str, Tensor] = {}
    with attention.opened(model), still(model), kept_buffers(model):
        handles = [
            model.get_submodule(name).register_forward_pre_hook(_Probe(columns, leaves), with_kwargs=True)
            for name, columns in maps.items()
        ]
        try:
            for batch in batches:
                batch = moved(batch, device)
                count = inputs_in(batch)
                for n, size in sizes.items():
                    leaves[n] = torch.ones(count, size, device=device, dtype=torch.float32, requires_grad=True)
                with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
                    value = loss(model, batch) * count
                if not bool(torch.isfinite(value)):
                    raise DivergedError(
                        f"the loss became {float(value.detach()):g} before anything was learned. Check the "
                        "model and the data for values that are not finite."
                    )
                seen += count
                if not value.requires_grad:  # no gate was reached
                    continue
                found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
                for name, gradient in zip(leaves, found, strict=True):
                    if gradient is not None:
                        reached.add(name)
                        total[name] += gradient.float().square().sum(0)
        finally:
            for handle in handles:
                handle.remove()
    reached, seen = current().pool_(total, reached, seen)
    unknown = sorted(set(sizes) - reached)
    if unknown and seen:
        logger.warning(
            "no gradient of the loss reaches %d groups, such as %s, so they are judged by their weights alone; "
            "reentrant checkpointing (use_reentrant=False cures it) or an output that the loss leaves out",
            len(unknown),
            unknown[0],
        )
    return {name: total[name] / max(1, seen) for name in total if name in reached}


class _Probe:
    """Forward pre-hook of one consumer: every input of the batch has scales of its own."""

    def __init__(self, columns: ColumnMap, leaves: dict[str, Tensor]) -> None:
        self.columns, self.leaves = columns, leaves

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        factor = self.columns(self.leaves)
        return None if factor is None else scale_call(module, args, kwargs, factor)
