"""Ours without one part of the recipe at a time, or with another value of an option."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest import mock

import torch

from snnprune.learner.recovering import RecoverStage
from snnprune.learner.searching import SearchStage, scorer_pace
from snnprune.switching.encoding.columns import Columns
from snnprune.switching.encoding.rows import StackedRows
from snnprune.switching.encoding.scorer import Scorer

# What each part of the recipe is worth: the default without it, or with another value.
ABLATIONS: dict[str, dict[str, Any]] = {
    "no offsets": {"search": {"scores": "switcher"}},
    "norm alone": {"search": {"probe": 0}},
    "norm alone, free scales": {"search": {"probe": 0, "scores": "free"}},
    "trust 1, thrift 1": {"search": {"trust": 1.0, "thrift": 1.0}},
    "trust 0, thrift 0.5": {"search": {"trust": 0.0}},
    "trust 0.5, thrift 0": {"search": {"thrift": 0.0}},
    "trust 0.5, thrift 1": {"search": {"thrift": 1.0}},
    "no search": {"search": {"share": 1e-9, "least": 1}},
    "search 0.1": {"search": {"share": 0.1}},
    "search 0.2": {"search": {"share": 0.2}},
    "search 0.2, no offsets": {"search": {"share": 0.2, "scores": "switcher"}},
    "search 0.2, free scales": {"search": {"share": 0.2, "scores": "free"}},
    "search 0.5": {"search": {"share": 0.5}},
    "search 0.5, free scales": {"search": {"share": 0.5, "scores": "free"}},
    "in turn": {"search": {"alternate": 2}},
    "in turn, search 0.1": {"search": {"alternate": 2, "share": 0.1}},
    "in turn, held gradient, search 0.1": {"search": {"alternate": 2, "share": 0.1, "gradient": "held"}},
    "hold 2": {"search": {"hold": 2}},
    "hold 4": {"search": {"hold": 4}},
    "hold 8": {"search": {"hold": 8}},
    "no ramp": {"search": {"ramp": 0.0}},
    "no recovery": {"search": {"share": 1.0}},
    "slow offsets": {"search": {"offset_lr": 5e-4}},
    "fast switcher": {"search": {"switcher_lr": 1e-3}},
    "search 0.2, full rates": {"search": {"share": 0.2}},
    "no recovery, full rates": {"search": {"share": 1.0}},
    "no floor": {"floor": 0.0},
    "multiples of 8": {"round_to": 8},
    "batch norm frozen": {"freeze_norm": True},
    "no distillation": {"distill": 0.0},
    "distillation alone": {"distill": 1.0},
    "temperature 1": {"recovery": {"temperature": 1.0}},
    "temperature 4": {"recovery": {"temperature": 4.0}},
    "no weight decay": {"weight_decay": 0.0},
    "search 0.02": {"search": {"share": 0.02}},
    "sixteen batches": {"search": {"probe": 16}},
}


def _frozen(part: str) -> AbstractContextManager[Any]:
    """A part of the scorer stays as it starts; its gradients are 0."""
    build = Scorer.__init__

    def build_frozen(scorer: Scorer, *args: Any, **options: Any) -> None:
        build(scorer, *args, **options)
        for parameter in getattr(scorer, part).parameters():
            parameter.register_hook(torch.zeros_like)

    return mock.patch.object(Scorer, "__init__", build_frozen)


def _weights_unseen() -> AbstractContextManager[Any]:
    """The switcher sees norms and sensitivities, but no features of the weights themselves."""
    matrix, gradient = Columns.matrix, Columns.gradient

    def zero(made: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda *args: torch.zeros_like(made(*args))

    return mock.patch.multiple(Columns, matrix=zero(matrix), gradient=zero(gradient))


def _unsorted() -> AbstractContextManager[Any]:
    """Rows and columns come as they lie in the model."""
    build = StackedRows.__init__

    def build_unsorted(rows: StackedRows, *args: Any, **options: Any) -> None:
        build(rows, *args, **options | {"sort": False})

    return mock.patch.object(StackedRows, "__init__", build_unsorted)


def _full_rates() -> AbstractContextManager[Any]:
    """The scorer's learning rates stay as they are, however long the search."""
    return mock.patch.object(sys.modules[scorer_pace.__module__], "STEPS_AT_FULL_RATE", sys.maxsize)


def _averaged(decay: float) -> AbstractContextManager[Any]:
    """The recovery ends with the running average of all its weights and statistics, not with the last ones."""
    step = RecoverStage.train_step

    def train_step(stage: RecoverStage, batch: Any) -> Any:
        found = step(stage, batch)
        now = {name: value for name, value in stage.model.state_dict().items() if value.is_floating_point()}
        if stage.step == 0:
            averages[stage] = {name: value.clone() for name, value in now.items()}
        with torch.no_grad():
            for name, value in averages[stage].items():
                value.lerp_(now[name], 1 - decay)
                if stage.step + 1 == stage.total:
                    now[name].copy_(value)
        return found

    averages: dict[RecoverStage, dict[str, torch.Tensor]] = {}
    return mock.patch.object(RecoverStage, "train_step", train_step)


def _network_at(factor: Callable[[float], float]) -> AbstractContextManager[Any]:
    """In the search the network's learning rate is that of the recipe times a factor of the share that is done."""
    schedule = SearchStage._schedule

    def _schedule(stage: SearchStage, optimizer: torch.optim.Optimizer) -> None:
        schedule(stage, optimizer)
        if optimizer is stage.optimizer:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor((stage.step + 1) / stage.total)

    return mock.patch.object(SearchStage, "_schedule", _schedule)


# Parts that no user has a reason to switch off, so that they are no options.
WITHOUT: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "U-Net frozen at 0": lambda: _frozen("switcher"),
    "row path frozen": lambda: _frozen("path"),
    "weights unseen": _weights_unseen,
    "rows unsorted": _unsorted,
    "search 0.2, full rates": _full_rates,
    "no recovery, full rates": _full_rates,
    "averaged 0.9": lambda: _averaged(0.9),
    "averaged 0.99": lambda: _averaged(0.99),
    "network still": lambda: _network_at(lambda _: 0.0),
    "network at 0.3": lambda: _network_at(lambda _: 0.3),
    "network warms up": lambda: _network_at(lambda done: done),
}


def without(method: str) -> AbstractContextManager[Any]:
    """What has to hold while this method runs."""
    return WITHOUT.get(method, nullcontext)()
