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
from torch.utils.flop_counter import FlopCounterMode

from . import attention
from .errors import DataError
from .inputs import Inputs, batch_size, call, device_of, logits_of, split_batch
from .loaders import loader_of
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


def count_macs(model: nn.Module, example_inputs: Inputs) -> int:
    """Multiply-adds of one forward pass, for one input.

    Args:
        model: the network; its mode is left alone.
        example_inputs: a batch of any size; the count is divided by it.
    """
    modes = {module: module.training for module in model.modules()}
    flags = {p: p.requires_grad for p in model.parameters()}
    counter = FlopCounterMode(display=False)
    try:
        model.eval().requires_grad_(False)  # the counter trips over parameters passed to modules otherwise
        with torch.no_grad(), attention.unfused(), counter:
            call(model, example_inputs)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
    return round(counter.get_total_flops() / 2 / batch_size(example_inputs))


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
        loader: batches of images and integer labels.
        device: where to run; by default where the model is.
        on_batch: called after every batch, for progress.
        ranks: the processes that call this together; each takes every so many-th batch, and all get the same
            result. By default this process takes all.

    Returns:
        `accuracy` in [0, 1], `loss` (mean cross-entropy in nats) and `count` of inputs.

    Raises:
        AttachError: `model` is a module that has gates attached; give what `attach` returned.
        ConfigError: `model` cannot be called.
        DataError: the loader is empty, has no labels, or one that is not among the model's classes.

    Example:
        >>> snnprune.evaluate(model, test).count
        360
    """
    module = _module_of(model)
    loader = loader_of(loader, "evaluate()'s data")
    where = torch.device(device) if device is not None else device_of(module) if module else None
    modes = {m: m.training for m in module.modules()} if module else {}
    if module:
        module.eval()
    correct = total = 0
    loss = 0.0
    ranks = ranks or Ranks()
    try:
        for batch in itertools.islice(loader, ranks.rank, None, ranks.world):
            images, labels = split_batch(batch)
            if labels is None:
                raise DataError("a batch holds no labels, so there is nothing to evaluate against.")
            images, labels = images.to(where), labels.to(where)
            logits = logits_of(model(images))[0]
            check_labels(logits, labels)
            loss += float(F.cross_entropy(logits.float(), labels, reduction="sum"))
            correct += int((logits.argmax(1) == labels).sum())
            total += len(labels)
            if on_batch:
                on_batch()
    finally:
        for m, mode in modes.items():
            m.training = mode
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


def check_logits(logits: Any) -> None:
    """Refuse outputs that are no tensor, which the built-in loss cannot use.

    Raises:
        DataError: the model returned something else.
    """
    if not isinstance(logits, Tensor):
        raise DataError(
            f"the model returned {type(logits).__name__} where one tensor of logits is needed. Give loss_fn, or "
            "switch off its auxiliary outputs."
        )


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Refuse labels that the model has no output for.

    Raises:
        DataError: the outputs are not (batch, classes), or a label is out of range or not finite.
    """
    check_logits(logits)
    if logits.dim() != 2 or len(logits) != len(labels):
        raise DataError(
            f"the model's output has shape {tuple(logits.shape)} for {len(labels)} labels; "
            "a classifier's (batch, classes) is needed."
        )
    if labels.is_floating_point() and not bool(labels.isfinite().all()):
        raise DataError("there are labels that are not finite. Mend or leave out those inputs.")
    if len(labels) and (int(labels.max()) >= logits.shape[1] or int(labels.min()) < 0):
        raise DataError(
            f"the data has labels up to {int(labels.max())}, but the model has {logits.shape[1]} outputs. "
            "Use the data set that the model was trained on, or give --num-classes."
        )
