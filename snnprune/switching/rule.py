"""From a scorer's values to scales: their unit and their gradient; and what scales say in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import CollapsedLayerError, DivergedError
from ..graph import NeuronGroup
from .segments import Segments

LEAST_SCALE = 0.01  # of what is kept: at 0 removal would take it along


def soft_and_hard(values: Tensor, mask: Tensor, segments: Segments, *, normalize: bool) -> tuple[Tensor, Tensor]:
    """Scales twice: those whose gradient is used, and those whose values are.

    Forward: the value where it is kept, divided by the mean over the kept ones of its group (normalised), and
    exactly 0 elsewhere. Backward: as if everything were on, so that what is at 0 still learns and may come back.

    Args:
        values: (switched,) values u of a scorer.
        mask: (switched,) boolean, what is kept.
        segments: the groups.
        normalize: divide by the mean, through which no gradient flows. Scales are defined only up to a factor per
            layer; without this they drift. The papers do not.

    Returns:
        `soft`, differentiable in the values, and `hard`, without a graph.
    """
    soft = values
    if normalize:
        kept = torch.where(mask, values.detach().clamp_min(LEAST_SCALE), 0.0)
        both = segments.sums(torch.stack([kept, mask.to(kept.dtype)], 1))
        mean = both[:, 0] / both[:, 1].clamp_min(1)
        soft = values / mean.index_select(0, segments.group)
    hard = torch.where(mask, soft.detach().clamp_min(LEAST_SCALE if normalize else 0.0), 0.0)
    return soft, hard


def diverged() -> DivergedError:
    """What to say of values that are not finite."""
    return DivergedError(
        "the switcher's values are not finite, because weights have grown beyond all bounds. Lower the learning "
        "rate (--lr), or check the data for values that are not finite."
    )


def collapsed(name: str, count: int, what: str) -> CollapsedLayerError:
    """What to say of a layer of which nothing is left in the free mode."""
    return CollapsedLayerError(
        f"{name}: the switcher turned off all {count} {what}, so the network is cut. "
        "Lower the learning rates, or give a target instead of `free`."
    )


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """What the scales of one group say: how many are kept, weakened (< 1) and strengthened (>= 1)."""

    id: str
    size: int
    kept: int
    weakened: int
    strengthened: int


def counted(name: str, scales: np.ndarray) -> GroupCounts:
    """Counts of one group."""
    kept, strong = int((scales > 0).sum()), int((scales >= 1).sum())
    return GroupCounts(name, scales.size, kept, kept - strong, strong)


def count_groups(groups: Sequence[NeuronGroup], scales: Mapping[str, Tensor]) -> list[GroupCounts]:
    """Counts per prunable group.

    A flattened unit counts as kept when its own scale and that of its channel are both positive, and
    its strength is their product.
    """
    columns: dict[str, np.ndarray] = {}
    numbers = {name: scale.detach().cpu().double().numpy() for name, scale in scales.items()}
    for group in groups:
        if group.kind == "channel" and group.id in numbers:
            for member in group.consumers:
                width = 1 + max(member.channels)
                have = columns.get(member.module, np.ones(0))
                total = np.ones(max(width, len(have)))
                total[: len(have)] = have
                total[list(member.channels)] *= numbers[group.id][list(member.neurons)]
                columns[member.module] = total
    found = []
    for group in groups:
        if group.id not in numbers:
            continue
        scale = numbers[group.id]
        if group.kind == "input":
            strongest = np.zeros(group.size)  # of the layers that read the same inputs by one weight
            for member in group.consumers:
                outer = columns.get(member.module, np.ones(0))
                padded = np.ones(max(len(outer), 1 + max(member.channels)))
                padded[: len(outer)] = outer
                strongest = np.maximum(strongest, padded[list(member.channels)])
            scale = scale * strongest
        found.append(counted(group.id, scale))
    return found
