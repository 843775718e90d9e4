"""One run of torch-pruning's own pruner: what it learns before, its removal, and the recovery that all have."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..budget import parse_target
from ..criteria import needs
from ..criteria.gradients import put_gradients_
from ..data import BatchLoader
from ..errors import CriterionError
from ..graph import named_by, names_of
from ..inputs import map_tensors
from ..learner import recover
from ..learner.loop import epoch_batches, first_batches
from ..macs import price
from ..metrics import count_params
from ..pipeline.setting import Setting
from ..streams import seed_of
from ..ties import ties_of
from .ends import last_layers
from .entrants import Entrant
from .finish import finished, let_learn_, store_of
from .inexact import inexactness
from .later import later
from .rounds import in_rounds, lengths_of, shares_of
from .sparse import SPARSE_SHARE, learn_sparsely_
from .theirs import Way, fit

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
    """

    def __init__(self, setting: Setting, entrant: Entrant, place: Path | None, *, resume: bool) -> None:
        self.setting, self.entrant, self.resume = setting, entrant, resume
        self.store = store_of(setting, entrant, place)
        self.steps: dict[str, int] = {}
        self.inexact: float | None = None
        asked = [name for name in ("width", "uniform") if getattr(setting.config, name)]
        self._notes = [f"it is told nothing of {' and '.join(asked)}"] if asked else []

    def run(self) -> nn.Module:
        """The pruned network, recovered.

        Raises:
            CriterionError: torch-pruning fails on this network.
            DivergedError: the learning diverged.
        """
        setting, config = self.setting, self.setting.config
        setting.begin()
        total = setting.steps(config).total
        kind, rounds = self.entrant.sparse, max(1, min(self.entrant.rounds, total // 4))
        if rounds < self.entrant.rounds:
            self._notes.append(f"it has steps for {rounds} of its {self.entrant.rounds} rounds")
        model = copy.deepcopy(setting.dense)
        sparse = round(SPARSE_SHARE[kind] * total) if kind is not None else 0
        way = Way(
            self.entrant.importance(),
            self.entrant.scope or "local",
            _ignored(setting),
            kind,
            seed=config.seed,
            gradual=kind == "growing",
        )
        if sparse:
            setting.tell("search", total=sparse)
            batches = _batches(setting, total - sparse, sparse)
            loss = setting.loss if setting.speed is None else setting.loss.at(setting.speed)
            learn_sparsely_(way, model, setting.example, batches, loss.labelled, config, steps=sparse)
        budget = parse_target(config.target)
        assert budget is not None
        metric, whole = budget.metric, _cost(setting, setting.dense, budget.metric)
        looks = self._looks(total, rounds)
        if looks == 0 and self._asked() != "weights":
            raise CriterionError("it looks at gradients of the loss, and there is no step to look in.")
        lengths = lengths_of(total - sparse - looks * rounds, rounds)
        learned = 0

        def cut(network: nn.Module, share: float) -> nn.Module:
            gradients = self._gradients(network, looks, learned)
            small, left = fit(
                way, network, setting.example, lambda m: _cost(setting, m, metric), share * whole, gradients
            )
            self._look_at(network, small, left)
            if _unties(network, small):
                self._notes.append("its cut gives layers that share a weight one each, which are counted")
            return small

        def learn(network: nn.Module, at: int, steps: int) -> None:
            nonlocal learned
            let_learn_(network, setting.dense)
            train: Any = setting.train
            train = train.seeded("round", at) if isinstance(train, BatchLoader) else train
            train, learned = later(train, learned, setting.per_epoch), learned + steps
            recover(
                network,
                train,
                setting.loss,
                replace(config, seed=seed_of(config.seed, "round", at)),
                total=steps,
                callbacks=setting.callbacks,
                speed=setting.speed,
            )

        compact = in_rounds(model, shares_of(budget.share, rounds), lengths, cut, learn)
        self.steps = {"probe": looks * rounds, "sparse": sparse, "recover": lengths[-1]}
        if rounds > 1:
            self.steps["between"] = sum(lengths[:-1])
        return finished(setting, compact, self.steps["recover"], self.store, resume=self.resume, before=learned)

    @property
    def note(self) -> str:
        """What is to be said of it, in words; empty if nothing is."""
        found = self.inexact or 0.0
        wrong = (
            f"its removal is not exact: the outputs differ by up to {found:.2g} of their spread from those of the "
            "network in which nothing sees the removed channels"
        )
        return "; ".join([*dict.fromkeys(self._notes), *([wrong] if found > _EXACT else [])])

    def _look_at(self, model: nn.Module, compact: nn.Module, left: dict[str, list[int]]) -> None:
        """How far a cut is from exact; the worst of all cuts counts."""
        setting = self.setting
        setting.tell("check")
        sample = map_tensors(lambda x: x.to(setting.where), setting.sample)
        found = inexactness(model, compact, left, sample)
        self.inexact = max(self.inexact or 0.0, min(found, 1e300))

    def _asked(self) -> str:
        return "weights" if self.entrant.sparse is not None else needs(self.entrant.scores)

    def _looks(self, total: int, rounds: int) -> int:
        """Steps of each round in which its importance looks at gradients."""
        if self._asked() == "weights":
            return 0
        return min(self.setting.config.search.probe, self.setting.per_epoch, total // 4 // rounds)

    def _gradients(self, model: nn.Module, looks: int, learned: int) -> dict[str, Tensor] | None:
        """Gradients that its importance looks at, of the batches that come after those it has learned from."""
        if not looks:
            return None
        setting = self.setting
        setting.tell("probe")
        twin = copy.deepcopy(model)
        train = later(setting.train, learned, setting.per_epoch)
        batches = first_batches(train, setting.config.seed, "probe", looks)
        put_gradients_(twin, batches, setting.loss.hard, squares=self._asked() == "squares")
        zeros = {n: torch.zeros_like(p) for n, p in twin.named_parameters()}
        return {n: zeros[n] if p.grad is None else p.grad for n, p in twin.named_parameters()}


def _unties(model: nn.Module, compact: nn.Module) -> bool:
    """Whether layers that shared a parameter no longer do."""
    still = {tie.names for tie in ties_of(compact)}
    return any(tie.names not in still for tie in ties_of(model))


def _batches(setting: Setting, start: int, steps: int) -> Any:
    """`steps` batches of the seed from step `start` on: those that the recovery does not come to."""
    batches: Iterator[Any] = iter(())
    for step in range(start, start + steps):
        epoch, at = divmod(step, setting.per_epoch)
        if at == 0 or step == start:
            batches = epoch_batches(setting.train, epoch, at)
        yield next(batches)


def _ignored(setting: Setting) -> tuple[str, ...]:
    """Layers that make the outputs, also those that do not matter to us, or that the user wants kept."""
    keep = setting.config.keep
    groups = [
        group
        for group in setting.groups
        if (group.reason or "").startswith("it is an output of the model")
        or any(named_by(name, keep) for name in names_of(group))
    ]
    kept = [member.module for group in groups for member in group.producers]
    return tuple(dict.fromkeys([*kept, *last_layers(setting.dense, setting.example)]))


def _cost(setting: Setting, model: nn.Module, metric: str) -> float:
    return count_params(model) if metric == "params" else price(model, setting.example).total


def priced(setting: Setting, compact: nn.Module) -> dict[str, float]:
    """Shares of the dense MACs and params."""
    return {
        "macs": price(compact, setting.example).total / setting.price.total,
        "params": count_params(compact) / count_params(setting.dense),
    }
