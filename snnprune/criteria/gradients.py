"""Gradients that criteria look at, put on a model's parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DivergedError
from ..inputs import device_of, inputs_in, moved, picked, still
from ..ranks import current

Loss = Callable[[Callable[..., Any], Any], Tensor]


def put_gradients_(model: nn.Module, batches: Iterable[Any], loss: Loss, *, squares: bool) -> None:
    """Fill `grad` of every parameter with the mean gradient of the loss over all inputs.

    Or with the mean square of the gradients of single inputs: the diagonal of the Fisher information. Norms and
    dropout rest meanwhile. What no gradient reaches gets zeros.

    Args:
        model: changed in its gradients alone; give a copy.
        batches: what `loss` takes.
        loss: `loss(model, batch)`, a mean over the batch.
        squares: of single inputs, squared.

    Raises:
        DivergedError: a loss is not finite.
    """
    device = device_of(model)
    named = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    total = {name: torch.zeros_like(p) for name, p in named.items()}
    seen = 0
    for p in named.values():
        p.requires_grad_(True)
    with still(model):
        for batch in batches:
            batch = moved(batch, device)
            count = inputs_in(batch)
            parts = [picked(batch, slice(at, at + 1)) for at in range(count)] if squares else [batch]
            for part in parts:
                weight = 1 if squares else count
                for name, gradient in zip(named, _gradients(model, part, loss, named), strict=True):
                    if gradient is not None:
                        total[name] += gradient.square() if squares else gradient * weight
                seen += weight
    _, seen = current().pool_(total, set(named), seen)
    for name, p in named.items():
        p.grad = total[name] / max(1, seen)


def _gradients(
    model: nn.Module, batch: Any, loss: Loss, named: dict[str, nn.Parameter]
) -> tuple[Tensor | None, ...]:
    with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
        value = loss(model, batch)
    if not bool(torch.isfinite(value)):
        raise DivergedError(
            f"the loss became {float(value.detach()):g} before anything was learned. Check the model and the "
            "data for values that are not finite."
        )
    if not value.requires_grad:
        return (None,) * len(named)
    return torch.autograd.grad(value, list(named.values()), allow_unused=True)
