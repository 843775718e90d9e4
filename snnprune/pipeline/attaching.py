"""A job's model and its gates: on neurons or on connections, with the start that its data inform."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..budget import CostModel, parse_target
from ..graph import NeuronGroup
from ..inputs import Inputs, unwrap
from ..learner import PruneConfig, TaskLoss, speed_of
from ..learner.speed import channels_last_
from ..metrics import count_params
from ..switching import GatedModel, measure_sensitivity
from ..switching.connections import (
    ConnectionModel,
    ConnectionScorer,
    connections_for,
    measure_connections,
    switched_layers,
    weight_of,
)
from ..switching.encoding import Evidence, Scorer

Look = Callable[[], Iterable[Any]]  # the batches to look at


def working_copy(model: nn.Module, where: torch.device, config: PruneConfig) -> nn.Module:
    """What a run starts from: a copy of the caller's model in eval mode, on the run's device and in its format."""
    dense = copy.deepcopy(unwrap(model)).to(where).eval()
    return channels_last_(dense) if speed_of(config).channels_last else dense


def alike(cost: CostModel) -> dict[str, Any]:
    """Equal scores for all neurons."""
    return {name: np.zeros(group.size) for name, group in cost.groups.items()}


def gate_neurons(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    example: Inputs,
    config: PruneConfig,
    loss: TaskLoss,
    look: Look | None,
) -> GatedModel:
    """Gates and a fresh scorer on a model; the target is checked before anything is computed.

    Raises:
        TargetError: the target is below what the floors allow.
    """
    cost = CostModel(model, groups, example)
    budget = parse_target(config.target)
    evidence = None
    if budget is not None:
        cost.select(budget.metric, budget.share, alike(cost), floor=config.floor, round_to=config.round_to)
        if look is not None:
            found = measure_sensitivity(model, groups, look(), loss.hard)
            evidence = Evidence.weigh(found, cost, budget.metric, trust=config.trust, thrift=config.thrift)
    scorer = Scorer(
        model,
        groups,
        scores=config.scores,
        start=config.start,
        evidence=evidence,
        fresh_mean=config.fresh_mean,
        fresh_std=config.fresh_std,
        seed=config.seed,
    )
    return GatedModel(model, groups, cost=cost, scorer=scorer, floor=config.floor, round_to=config.round_to)


def switch_connections(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    config: PruneConfig,
    loss: TaskLoss,
    look: Look | None,
) -> ConnectionModel:
    """Scales on the connections of every fully connected layer.

    Raises:
        TargetError: the parameters that are no connections are more than the target.
        UnsupportedModelError: there is no fully connected layer.
    """
    names = switched_layers(model, config.keep)
    budget = parse_target(config.target)
    if budget is not None:
        present = sum(int(weight_of(model, name).count_nonzero()) for name in names)
        absent = sum(weight_of(model, name).numel() for name in names) - present
        connections_for(budget.share, dense=count_params(model) - absent, connections=present, layers=len(names))
    found = measure_connections(model, names, look(), loss.hard) if look is not None else None
    scorer = ConnectionScorer(
        model,
        names,
        scores=config.scores,
        start=config.start,
        sensitivity=found,
        trust=config.trust,
        fresh_mean=config.fresh_mean,
        fresh_std=config.fresh_std,
        seed=config.seed,
    )
    return ConnectionModel(model, groups, names, scorer=scorer, floor=config.floor)
