"""What a model costs and how good it is.

MACs are multiply-adds of convolutions and matrix products for one input, as PyTorch's own counter
sees them (half its floating-point operations). Biases, norms, activations and pooling are not counted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import DataError
from .inputs import device_of, logits_of, split_batch, usable_device
from .labels import classes_of, read_labels, targets_of, unread_targets
from .late import runs_ahead
from .loaders import bounded, loader_of
from .macs import count_macs as count_macs
from .plain import Mark, plain
from .ranks import Ranks


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracy as a fraction in [0, 1], mean cross-entropy, and the number of inputs."""

    accuracy: float
    loss: float
    count: int


def count_params(model: nn.Module) -> int:
    """Number of parameters, shared ones once; buffers are not counted."""
    return sum(p.numel() for p in model.parameters())


def count_nonzero(model: nn.Module) -> int:
    """Number of parameters that are not 0."""
    return sum(int(torch.count_nonzero(p)) for p in model.parameters())


@torch.no_grad()
def evaluate(
    model: Callable[..., Any],
    loader: Iterable[Any],
    *,
    device: torch.device | str | None = None,
    on_batch: Callable[[], None] | None = None,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Accuracy and mean cross-entropy over a loader of (images, labels).

    A module is put into eval mode and back again.

    Args:
        model: maps (batch, ...) images to (batch, classes) logits: a module, a gated model, or any function.
        loader: batches of images and labels: integers of shape (batch,) or (batch, 1), one-hot rows, or class
            probabilities (batch, classes), whose likeliest class then counts as the right one.
        device: where to run; by default where the model is.
        on_batch: called after every batch, for progress.
        ranks: the processes that call this together; each takes every so many-th batch, and all get the same
            result. By default this process takes all.

    Returns:
        `accuracy` in [0, 1], `loss` (mean cross-entropy in nats) and `count` of inputs.

    Raises:
        AttachError: `model` is a module that has gates attached; give what `attach` returned.
        ConfigError: `model` cannot be called, or `device` is none that can be used.
        DataError: the loader is empty, has no labels, or some that are neither classes of the model nor
            probabilities of them.

    Example:
        >>> snnprune.evaluate(model, test).count
        360
    """
    module = _module_of(model)
    loader = loader_of(loader, "evaluate()'s data")
    where = usable_device(device) if device is not None else device_of(module) if module else None
    modes = {m: m.training for m in module.modules()} if module else {}
    if module:
        module.eval()
    total = 0
    hits: list[Tensor] = []  # numbers of all batches are read together at the end: each would make the CPU wait
    losses: list[Tensor] = []
    doubtful: list[tuple[Tensor, Tensor, Tensor]] = []
    ranks = ranks or Ranks()
    try:
        for batch in itertools.islice(bounded(loader, "the data to evaluate on"), ranks.rank, None, ranks.world):
            images, labels = split_batch(batch)
            if labels is None:
                raise DataError("a batch holds no labels, so there is nothing to evaluate against.")
            if not isinstance(images, Tensor):
                raise DataError(
                    f"the inputs of a batch are {type(images).__name__}, not one tensor. Give a loader of "
                    "(images, labels)."
                )
            images, labels = images.to(where), labels.to(where)
            logits = logits_of(model(images))[0]
            if isinstance(logits, Tensor) and runs_ahead(logits.device):
                targets, wrong = unread_targets(logits, labels)
                doubtful.append((wrong, logits[:0], labels))
            else:
                targets = targets_of(logits, labels)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            losses.append(F.cross_entropy(logits, targets, reduction="sum"))
            hits.append((logits.argmax(1) == classes_of(targets)).sum())
            total += len(labels)
            if on_batch:
                on_batch()
    finally:
        for m, mode in modes.items():
            m.training = mode
    if doubtful and any(torch.stack([wrong for wrong, _, _ in doubtful]).tolist()):
        for _, logits, labels in doubtful:
            read_labels(labels, logits.shape[1])
    correct, loss = (sum(torch.stack(found).tolist()) if found else 0 for found in (hits, losses))
    correct, loss, total = ranks.total(correct, loss, total)
    if not total:
        raise DataError("the data loader yields no batch, so there is nothing to evaluate on.")
    return Evaluation(correct / total, loss / total if math.isfinite(loss) else math.inf, int(total))


def _module_of(model: object) -> nn.Module | None:
    """What to put into eval mode: the model, or the one inside a gated model; None for other functions."""
    if isinstance(model, Mark) and not isinstance(model, nn.Module):
        return getattr(model, "model", None)
    if callable(model) and not isinstance(model, (nn.Module, type)):
        return None
    return plain(model, "evaluate()")
