"""What weights alone do not say about neurons: how much the loss depends on them, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..budget import CostModel, Metric

_REACH = 3.0  # outliers, such as dead neurons, count this many standard deviations
_LEAST = 1e-12


@dataclass(frozen=True)
class Evidence:
    """Sensitivity and saving of every neuron of the prunable groups.

    Attributes:
        sensitivity: group id -> (size,), mean square of the loss's gradient by the neuron's scale: the
            Fisher information of its gate (Theis et al. 2018, arXiv 1801.05787, section 2.2).
        saving: group id -> share of the dense cost that goes with one neuron, in (0, 1].
        trust: how strongly the start leans on the sensitivity, against the norm's 1.
        thrift: how strongly it prefers neurons that cost little.
    """

    sensitivity: Mapping[str, Tensor]
    saving: Mapping[str, float]
    trust: float = 0.5
    thrift: float = 0.5

    @classmethod
    def weigh(
        cls,
        sensitivity: Mapping[str, Tensor],
        cost: CostModel,
        metric: Metric,
        *,
        trust: float = 0.5,
        thrift: float = 0.5,
    ) -> Evidence:
        """Sensitivities with the savings under a cost model; a group without any counts as average."""
        logs = [_log(values).mean() for values in sensitivity.values()]
        average = torch.stack(logs).mean().exp() if logs else torch.ones(())
        every = {
            name: sensitivity[name] if name in sensitivity else average.expand(group.size)
            for name, group in cost.groups.items()
        }
        saving = {name: cost.saving_per_neuron(metric, name) for name in every}
        return cls(every, saving, trust, thrift)

    def within(self, ids: Sequence[str]) -> list[Tensor]:
        """Log sensitivity relative to the group's mean, in one unit for all groups, (size,) each."""
        logs = [_log(self.sensitivity[name]) for name in ids]
        centred = [values - values.mean() for values in logs]
        unit = torch.cat(centred).clamp(-_REACH, _REACH).std(correction=0) + 1e-6
        return [(values / unit).clamp(-_REACH, _REACH) for values in centred]

    def levels(self, ids: Sequence[str]) -> Tensor:
        """What all neurons of a group have in common, (groups,).

        A neuron is worth keeping when the loss depends on it, and worth cutting when much is saved. Both
        enter as logarithms and damped: the loss's dependence on one neuron says little of what many
        cost together after the recovery.
        """
        sensitivity = torch.stack([_log(self.sensitivity[name]).mean() for name in ids])
        saving = torch.tensor([math.log(max(self.saving[name], _LEAST)) for name in ids])
        return self.trust * (sensitivity - sensitivity.mean()) - self.thrift * (saving - saving.mean())


def _log(values: Tensor) -> Tensor:
    return torch.log(values.detach().float().cpu() + _LEAST)
