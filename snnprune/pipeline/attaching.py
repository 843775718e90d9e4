"""A job's model and its scales: on neurons or on connections, with the start that its data inform."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..budget import CostModel, parse_target
from ..graph import NeuronGroup
from ..inputs import unwrap
from ..learner import PruneConfig, TaskLoss, speed_of
from ..learner.speed import channels_last_
from ..plain import copied
from ..switching import Look, Options, Switched, switch_connections, switch_neurons


def working_copy(model: nn.Module, where: torch.device, config: PruneConfig) -> nn.Module:
    """What a run starts from: a copy of the caller's model in eval mode, on the run's device and in its format."""
    dense = copied(unwrap(model)).to(where).eval()
    return channels_last_(dense) if speed_of(config).channels_last else dense


def switch(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    cost: Callable[[], CostModel],
    config: PruneConfig,
    loss: TaskLoss,
    look: Look | None,
) -> Switched:
    """Scales and a fresh scorer on a model, as the options say; the target is checked before anything is computed.

    Args:
        model: the network.
        groups: its groups.
        cost: gives its cost model, where neurons are switched.
        config: options of the run.
        loss: of the batches to look at.
        look: gives them; None for a start from the weights alone.

    Raises:
        TargetError: the target is below what the floors allow.
        UnsupportedModelError: connections are to be switched, and there is no fully connected layer.
    """
    budget = parse_target(config.target)
    options = Options(
        scores=config.search.scores,
        start=config.search.start,
        budget=budget,
        floor=config.floor,
        round_to=config.round_to,
        keep=config.keep,
        outputs=config.outputs,
        trust=config.search.trust,
        thrift=config.search.thrift,
        fresh_mean=config.search.fresh_mean,
        fresh_std=config.search.fresh_std,
        seed=config.seed,
    )
    if config.granularity == "connection":
        return switch_connections(model, groups, options, look=look, loss=loss.hard)
    return switch_neurons(
        model, groups, cost(), options, look=look if budget is not None else None, loss=loss.hard
    )
