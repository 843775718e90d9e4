"""Optimisers, the learning-rate curve, and gradients that are clipped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DivergedError
from .watch import BAD_GRADIENT, may_go_on


def make_optimizer(
    kind: str,
    groups: Sequence[dict[str, Any]],
    lr: float,
    *,
    momentum: float,
    weight_decay: float,
    fused: bool | None = None,
) -> torch.optim.Optimizer | None:
    """SGD or AdamW over parameter groups; None when there is nothing to learn.

    Each group remembers its learning rate as `initial_lr`, for schedules. `fused` is the optimiser's own option:
    one kernel for all parameters, which pays for many small ones.
    """
    if not groups:
        return None
    groups = [{**group, "initial_lr": group.get("lr", lr)} for group in groups]
    common: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "fused": fused}
    if kind == "sgd":
        return torch.optim.SGD(list(groups), momentum=momentum, nesterov=momentum > 0, **common)
    return torch.optim.AdamW(list(groups), **common)


def can_fuse(parameters: Iterable[Tensor], model: nn.Module | None = None) -> bool:
    """Whether one kernel can update them all, which takes a quarter of the time even on a CPU.

    Args:
        parameters: that learn.
        model: whose they are, where it may have embeddings with sparse gradients, which no such kernel takes.
    """
    if model is not None and any(getattr(module, "sparse", False) is True for module in model.modules()):
        return False
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)


def cosine(step: int, total: int, warmup: float) -> float:
    """Factor on the learning rate: linear rise over the warm-up, then half a cosine down to 0."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Scale gradients down to a norm.

    Args:
        parameters: with gradients, or without.
        limit: of the norm of all gradients together; > 0.

    Returns:
        The norm as it was before: a tensor of one number, which a GPU may still be about to compute.

    Raises:
        DivergedError: it is not finite. Where the CPU would have to wait to know, whoever reads the norm says so.
    """
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    if not may_go_on(norm):
        raise DivergedError(BAD_GRADIENT)
    return norm
