"""One run of torch-pruning's own pruner: what it learns before, its removal, and the recovery that all have."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..budget import parse_target
from ..criteria import needs
from ..criteria.gradients import put_gradients_
from ..errors import CriterionError
from ..inputs import map_tensors
from ..learner import Checkpoint, recover
from ..learner.loop import epoch_batches, first_batches
from ..macs import price
from ..metrics import count_params
from ..pipeline.identity import environment
from ..pipeline.setting import Setting
from .entrants import Entrant
from .theirs import Way, fit, inexactness, learn_sparsely_

SPARSE_SHARE = 0.2  # of the steps, spent on sparse learning
_EXACT = 1e-6


class Bout:
    """A run of torch-pruning's own pruner.

    It is gone on with from the last checkpoint of its recovery. What comes before that is done again, which gives
    the same cut on a CPU.

    Args:
        setting: model, data and options.
        entrant: which of its criteria, and how.
        place: for checkpoints; None keeps none.
        resume: go on from the one that lies there.

    Attributes:
        steps: by stage.
        inexact: how far the cut is from the network with masked channels.
        note: what is to be said of it.
    """

    def __init__(self, setting: Setting, entrant: Entrant, place: Path | None, *, resume: bool) -> None:
        self.setting, self.entrant, self.resume = setting, entrant, resume
        self.store: Checkpoint | None = None
        if place is not None:
            identity = {**setting.identity(setting.config), "entrant": entrant.name}
            self.store = Checkpoint(place, identity, environment=environment(setting.where))
        self.steps: dict[str, int] = {}
        self.inexact: float | None = None
        self.note = ""

    def run(self) -> nn.Module:
        """The pruned network, recovered.

        Raises:
            CriterionError: torch-pruning fails on this network.
            DivergedError: the learning diverged.
        """
        setting, config = self.setting, self.setting.config
        setting.begin()
        total = setting.steps(config).total
        model = copy.deepcopy(setting.dense)
        sparse = round(SPARSE_SHARE * total) if self.entrant.sparse is not None else 0
        way = Way(
            self.entrant.importance(),
            self.entrant.scope or "local",
            _ignored(setting),
            self.entrant.sparse,
            seed=config.seed,
        )
        if sparse:
            setting.tell("search", total=sparse)
            batches = _batches(setting, sparse)
            learn_sparsely_(way, model, setting.example, batches, setting.loss.hard, lr=config.lr, steps=sparse)
        gradients, looks = self._gradients(model, total)
        budget = parse_target(config.target)
        assert budget is not None
        compact, left = fit(
            way,
            model,
            setting.example,
            lambda small: _cost(setting, small, budget.metric),
            budget.share * _cost(setting, setting.dense, budget.metric),
            gradients,
        )
        setting.tell("check")
        sample = map_tensors(lambda x: x.to(setting.where), setting.sample)
        self.inexact = inexactness(model, compact, left, sample)
        if self.inexact > _EXACT:
            self.note = (
                f"its removal is not exact: the outputs differ by up to {self.inexact:.2g} of their spread from "
                "those of the network in which nothing sees the removed channels"
            )
            self.inexact = min(self.inexact, 1e300)
        self.steps = {"probe": looks, "sparse": sparse, "recover": total - looks - sparse}
        flags = {name: p.requires_grad for name, p in setting.dense.named_parameters()}
        for name, parameter in compact.named_parameters():
            parameter.requires_grad_(flags.get(name, True))
        recover(
            compact,
            setting.train,
            setting.loss,
            config,
            total=self.steps["recover"],
            val=setting.val,
            metric=setting.metric,
            callbacks=setting.callbacks,
            checkpoint=self.store,
            resume=self.store.load() if self.store is not None and self.resume else None,
        )
        return compact.eval()

    def _gradients(self, model: nn.Module, total: int) -> tuple[dict[str, Tensor] | None, int]:
        """Gradients that its importance looks at, and the steps that they take."""
        setting, config = self.setting, self.setting.config
        asked = "weights" if self.entrant.sparse is not None else needs(self.entrant.scores)
        if asked == "weights":
            return None, 0
        looks = min(config.search.probe, setting.per_epoch, total // 4)
        if not looks:
            raise CriterionError("it looks at gradients of the loss, and there is no step to look in.")
        setting.tell("probe")
        twin = copy.deepcopy(model)
        batches = first_batches(setting.train, config.seed, "probe", looks)
        put_gradients_(twin, batches, setting.loss.hard, squares=asked == "squares")
        zeros = {n: torch.zeros_like(p) for n, p in twin.named_parameters()}
        return {n: zeros[n] if p.grad is None else p.grad for n, p in twin.named_parameters()}, looks


def _batches(setting: Setting, steps: int) -> Any:
    """The first batches of the seed, in the order in which the recovery sees them."""
    for epoch in range(-(-steps // setting.per_epoch)):
        for at, batch in enumerate(epoch_batches(setting.train, epoch, 0)):
            if epoch * setting.per_epoch + at == steps:
                return
            yield batch


def _ignored(setting: Setting) -> tuple[str, ...]:
    """Layers that make the outputs, or that the user wants kept."""
    stay = ("it is an output of the model", "kept by request")
    groups = [g for g in setting.groups if g.reason is not None and g.reason.startswith(stay)]
    return tuple(dict.fromkeys(member.module for group in groups for member in group.producers))


def _cost(setting: Setting, model: nn.Module, metric: str) -> float:
    return count_params(model) if metric == "params" else price(model, setting.example).total


def priced(setting: Setting, compact: nn.Module) -> dict[str, float]:
    """Shares of the dense MACs and params."""
    return {
        "macs": price(compact, setting.example).total / setting.price.total,
        "params": count_params(compact) / count_params(setting.dense),
    }
