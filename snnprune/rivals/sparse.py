"""Sparse learning by torch-pruning's own regularisers, before its pruner removes anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ..criteria import Loss
from ..errors import CriterionError
from ..inputs import Inputs, moved
from ..learner.config import PruneConfig
from ..learner.modes import TrainingMode
from ..learner.optim import clip_gradients, cosine, make_optimizer
from .theirs import Sparse, Way, failing

GROWTHS = 100  # how often a growing regulariser grows: once per epoch of its own script
SPARSE_SHARE: dict[Sparse, float] = {  # of the steps
    "bn": 0.2,
    "group": 0.2,
    "growing": 0.5,  # as its own script has it
}


def learn_sparsely_(
    way: Way,
    model: nn.Module,
    example: Inputs,
    batches: Iterable[Any],
    loss: Loss,
    config: PruneConfig,
    *,
    steps: int,
) -> None:
    """Train with the pruner's own regulariser, in place, at half the peak rate of the recovery.

    Optimiser and options are those of the recovery, without weight decay, as torch-pruning's own script has it.
    A growing regulariser grows as often as there are epochs in that script, at even distances, so that it becomes
    as strong however few the steps are.

    Args:
        way: how its pruner is asked.
        model: learns in place.
        example: what its forward takes.
        batches: as many as there are steps.
        loss: `loss(model, batch)`.
        config: the recovery's optimiser, its rates and limits.
        steps: how many.

    Raises:
        CriterionError: torch-pruning fails on this network, or nothing of it learns.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    if not learning:
        raise CriterionError("nothing of this network learns (requires_grad), so it cannot become sparse.")
    device = next(iter(model.parameters())).device
    pruner = way.pruner(model, example, (0.5, 0.5, 0))
    recovery, groups = config.recovery, [{"params": learning}]
    optimizer = make_optimizer(config.optimizer, groups, config.lr, momentum=recovery.momentum, weight_decay=0.0)
    assert optimizer is not None
    mode = TrainingMode(model, freeze_norm=config.freeze_norm)
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * config.lr * cosine(step, steps, recovery.warmup)
        mode.set()
        value = loss(model, moved(batch, device))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        frozen = [p for p in model.parameters() if p.grad is None and p.is_floating_point()]
        for parameter in frozen:  # its regularisers add to the gradient of every layer
            parameter.grad = torch.zeros_like(parameter)
        with failing("fails on this network"):
            pruner.regularize(model)
        for parameter in frozen:
            parameter.grad = parameter.grad if parameter.requires_grad else None
        clip_gradients(learning, recovery.clip)
        optimizer.step()
        if way.sparse == "growing":
            for _ in range(step * GROWTHS // steps, (step + 1) * GROWTHS // steps):
                with failing("fails on this network"):
                    pruner.update_reg()
    model.eval()
