"""What a model costs and how good it is.

MACs are multiply-adds of convolutions and matrix products for one input, as PyTorch's own counter
sees them (half its floating-point operations). Biases, norms, activations and pooling are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from .loaders import loader_of
from .losses import LossFunction, check_loss
from .macs import count_macs as count_macs
from .measures import Accuracy, Evaluation, measure_of
from .ranks import Ranks


def count_params(model: nn.Module) -> int:
    """Number of parameters, shared ones once; buffers are not counted."""
    return sum(p.numel() for p in model.parameters())


def count_nonzero(model: nn.Module) -> int:
    """Number of parameters that are not 0."""
    return sum(int(torch.count_nonzero(p)) for p in model.parameters())


def evaluate(
    model: Callable[..., Any],
    loader: Iterable[Any],
    *,
    metric: Any = None,
    loss_fn: LossFunction | None = None,
    device: torch.device | str | None = None,
    on_batch: Callable[[], None] | None = None,
    ranks: Ranks | None = None,
) -> Evaluation:
    """How good a model is on a loader: by default its accuracy and mean cross-entropy over (images, labels).

    A module is put into eval mode and back again.

    Args:
        model: maps (batch, ...) images to (batch, classes) logits: a module, a gated model, or any function.
        loader: batches of images and labels: integers of shape (batch,) or (batch, 1), one-hot rows, or class
            probabilities (batch, classes), whose likeliest class then counts as the right one. With a metric or a
            loss of your own, batches of any form that it takes.
        metric: instead of the accuracy a `Metric`, a function of (model, loader) that returns a number, or an
            object with `update`, `compute` and `reset`, as those of `torchmetrics`.
        loss_fn: `loss_fn(model, batch)`, the mean loss of a batch; its mean over all inputs is the value where no
            metric is given.
        device: where to run; by default where the model is.
        on_batch: called after every batch, for progress; by a function of (model, loader) never.
        ranks: the processes that call this together; all get the same result. By default this process is alone.

    Returns:
        The `value` of the metric and what it means (`metric.name`, `metric.higher_is_better`), `accuracy` in
        [0, 1] where it is that, `loss` (mean cross-entropy in nats, or the mean of `loss_fn`) and `count` of
        inputs.

    Raises:
        AttachError: `model` is a module that has gates attached; give what `attach` returned.
        ConfigError: `model` cannot be called, `device` is none that can be used, or the metric or loss is none.
        DataError: the loader is empty, has no labels, or some that are neither classes of the model nor
            probabilities of them.
        MetricError: the metric fails, or gives no finite number.

    Example:
        >>> snnprune.evaluate(model, test).count
        360
    """
    check_loss(loss_fn)
    measure = measure_of(metric, loss_fn) or Accuracy()
    return measure.measure(
        model, loader_of(loader, "evaluate()'s data"), device=device, on_batch=on_batch, ranks=ranks
    )
