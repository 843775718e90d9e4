"""What weights alone do not say about neurons: how much the loss depends on them, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...budget import CostModel, Metric

_REACH = 3.0  # outliers, such as dead neurons, count this many standard deviations
_LEAST = 1e-12
_DEAD = 1e-6  # of the group's mean importance; below it a neuron is dead


@dataclass(frozen=True)
class Evidence:
    """Importance and saving of every neuron of the prunable groups.

    Attributes:
        importance: group id -> (size,), mean square of the loss's gradient by the neuron's scale: the
            Fisher information of its gate (Theis et al. 2018, arXiv 1801.05787, section 2.2).
        saving: group id -> share of the dense cost that goes with one neuron, in (0, 1].
        trust: how strongly the start leans on the importance, against the norm's 1.
        thrift: how strongly it prefers neurons that cost little.
    """

    importance: Mapping[str, Tensor]
    saving: Mapping[str, float]
    trust: float = 0.5
    thrift: float = 0.5

    @classmethod
    def weigh(
        cls,
        importance: Mapping[str, Tensor],
        cost: CostModel,
        metric: Metric,
        *,
        trust: float = 0.5,
        thrift: float = 0.5,
    ) -> Evidence:
        """Importances with the savings under a cost model; a group without any counts as average."""
        average = math.exp(_mean([m for m in map(_level, importance.values()) if m is not None]))
        every = {
            name: importance[name]
            if name in importance
            else torch.full((group.size,), average, dtype=torch.float32)
            for name, group in cost.groups.items()
        }
        saving = {name: cost.saving_per_neuron(metric, name) for name in every}
        return cls(every, saving, trust, thrift)

    def within(self, ids: Sequence[str]) -> list[Tensor]:
        """Log importance relative to the group's mean, in one unit for all groups, (size,) each.

        Mean and unit are those of the neurons that the loss depends on at all; the dead stand at the lower
        end, and however many they are, the rest is told apart as if they were not there. A group that is
        dead as a whole is a group of equals.
        """
        centred, alive = [], []
        for name in ids:
            values, live = _live(self.importance[name])
            logs = torch.log(values.clamp_min(torch.finfo(values.dtype).tiny))
            logs = logs - logs[live].mean() if bool(live.any()) else torch.zeros_like(logs)
            centred.append(torch.where(live, logs, -math.inf) if bool(live.any()) else logs)
            alive.append(logs[live])
        known = torch.cat(alive).clamp(-_REACH, _REACH)
        unit = known.std(correction=0) + 1e-6 if len(known) else 1.0
        return [(values / unit).clamp(-_REACH, _REACH).float() for values in centred]

    def shifts(self, ids: Sequence[str]) -> Tensor:
        """What all neurons of a group have in common, (groups,).

        A neuron is worth keeping when the loss depends on it, and worth cutting when much is saved. Both
        enter as logarithms and damped: the loss's dependence on one neuron says little of what many
        cost together after the recovery. A group that is dead as a whole is worth as little as the least
        of the others.
        """
        found = [_level(self.importance[name]) for name in ids]
        least = min((level for level in found if level is not None), default=0.0)
        importance = torch.tensor([least if level is None else level for level in found])
        saving = torch.tensor([math.log(max(self.saving[name], _LEAST)) for name in ids])
        return self.trust * (importance - importance.mean()) - self.thrift * (saving - saving.mean())


def _live(values: Tensor) -> tuple[Tensor, Tensor]:
    """Importances in float64, and which of them are no zeros beside the others of their group."""
    values = values.detach().double().cpu()
    return values, values > _DEAD * values.mean()


def _level(values: Tensor) -> float | None:
    """Mean log importance of a group's live neurons; None where all are dead."""
    values, live = _live(values)
    return float(torch.log(values[live]).mean()) if bool(live.any()) else None


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
