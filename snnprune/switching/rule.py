"""From scores to scales: who is kept, and with which gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..budget import Budget, CostModel
from ..errors import CollapsedLayerError, DivergedError
from ..graph import NeuronGroup

_LEAST_SCALE = 0.01


def keep_masks(
    values: Mapping[str, Tensor],
    cost: CostModel,
    budget: Budget | None,
    *,
    levels: Mapping[str, float],
    floor: float,
    round_to: int,
) -> dict[str, Tensor]:
    """Which neurons stay, for values u per group.

    With a budget: the best by one global threshold that meets it. Without: those with u > 0, the
    papers' ReLU.

    Args:
        values: group id -> (size,) values u.
        cost: what neurons cost.
        budget: what is asked for; None for the papers' free mode.
        levels: group id -> what to add to the group's values before they are compared with others'.
        floor: least kept share of every group.
        round_to: keep multiples of this many channels.

    Raises:
        CollapsedLayerError: without a budget, every neuron of a group, or of a layer's part of it, is off.
        DivergedError: a value is not finite.
        TargetError: the budget is below what the floors allow.
    """
    if budget is None:
        masks = {name: u.detach() > 0 for name, u in values.items()}
        for name, mask in masks.items():
            if not bool(mask.any()):
                raise CollapsedLayerError(
                    f"{name}: the switcher turned off all {len(mask)} neurons, so the network is cut. "
                    "Lower the learning rates, or give a target instead of `free`."
                )
            for part in cost.parts[name]:
                if not bool(mask[torch.from_numpy(part).to(mask.device)].any()):
                    raise CollapsedLayerError(
                        f"{name}: the switcher turned off all {len(part)} neurons of one of its layers, so the "
                        "network is cut. Lower the learning rates, or give a target instead of `free`."
                    )
        return masks
    sizes = [len(u) for u in values.values()]
    flat = torch.cat([u.detach() for u in values.values()])
    here = flat.double().cpu()  # one transfer for all groups
    if not bool(torch.isfinite(here).all()):
        raise DivergedError(
            "the switcher's values are not finite, because weights have grown beyond all bounds. Lower the "
            "learning rate (--lr), or check the data for values that are not finite."
        )
    parts = here.split(sizes)
    scores = {name: u.numpy() + levels.get(name, 0.0) for name, u in zip(values, parts, strict=True)}
    chosen = cost.select(budget.metric, budget.share, scores, floor=floor, round_to=round_to)
    kept = torch.from_numpy(np.concatenate([chosen.kept[name] for name in values])).to(flat.device)
    return dict(zip(values, kept.split(sizes), strict=True))


def to_scales(values: Mapping[str, Tensor], masks: Mapping[str, Tensor], *, normalize: bool) -> dict[str, Tensor]:
    """Scales with a straight-through gradient.

    Forward: u where kept, divided by its mean over the kept (normalised), and exactly 0 elsewhere.
    Backward: as if every neuron were on, so that one at 0 still learns and may come back.

    Args:
        values: group id -> (size,) values u.
        masks: group id -> (size,) boolean.
        normalize: divide by the detached mean of the kept ones. Scales are defined only up to a factor
            per layer; without this they drift. The papers do not.
    """
    sizes = [len(u) for u in values.values()]
    u = torch.cat(list(values.values()))
    mask = torch.cat([masks[name] for name in values])
    soft = u
    if normalize:
        count = torch.tensor(sizes, device=u.device)
        group = torch.arange(len(sizes), device=u.device).repeat_interleave(count, output_size=len(u))
        kept = torch.where(mask, u.detach().clamp_min(_LEAST_SCALE), 0.0)
        zeros = u.new_zeros(len(sizes))
        mean = zeros.index_add(0, group, kept) / zeros.index_add(0, group, mask.to(u.dtype))
        soft = u / mean.index_select(0, group)
    hard = torch.where(mask, soft.detach().clamp_min(_LEAST_SCALE if normalize else 0.0), 0.0)
    scales = soft + (hard - soft.detach()) if u.requires_grad else hard  # value of `hard`, gradient of `soft`
    return dict(zip(values, scales.split(sizes), strict=True))


def exact_zeros(scales: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Detached scales whose off neurons are 0 to the bit (`a + (0 - a)` is, but say so)."""
    return {n: torch.where(masks[n], s.detach(), torch.zeros_like(s)) for n, s in scales.items()}


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """What the scales of one group say: neurons kept, weakened (< 1) and strengthened (>= 1)."""

    id: str
    size: int
    kept: int
    weakened: int
    strengthened: int


def count_groups(groups: Sequence[NeuronGroup], scales: Mapping[str, Tensor]) -> list[GroupCounts]:
    """Counts per prunable group.

    A flattened unit counts as kept when its own scale and that of its channel are both positive, and
    its strength is their product.
    """
    columns: dict[str, np.ndarray] = {}
    for group in groups:
        if group.kind == "channel" and group.id in scales:
            scale = scales[group.id].detach().cpu().double().numpy()
            for member in group.consumers:
                width = 1 + max(member.channels)
                have = columns.get(member.module, np.ones(0))
                total = np.ones(max(width, len(have)))
                total[: len(have)] = have
                total[list(member.channels)] *= scale[list(member.neurons)]
                columns[member.module] = total
    found = []
    for group in groups:
        if group.id not in scales:
            continue
        scale = scales[group.id].detach().cpu().double().numpy()
        if group.kind == "input":
            strongest = np.zeros(group.size)  # of the layers that read the same inputs by one weight
            for member in group.consumers:
                outer = columns.get(member.module, np.ones(0))
                padded = np.ones(max(len(outer), 1 + max(member.channels)))
                padded[: len(outer)] = outer
                strongest = np.maximum(strongest, padded[list(member.channels)])
            scale = scale * strongest
        kept = scale > 0
        strong = int((scale >= 1).sum())
        found.append(GroupCounts(group.id, group.size, int(kept.sum()), int(kept.sum()) - strong, strong))
    return found
