"""What the order of neurons has to know of every group: floors, blocks, widths, and who goes together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..graph import NeuronGroup
from .blocks import at_least, rounding_step, whole_blocks
from .costs import Kept, Metric
from .ranking import Members
from .stairs import widened
from .uniform import Demand, together
from .widths import bounds_of, part_floor

if TYPE_CHECKING:
    from .model import CostModel

LEAST_SAVING = 0.002  # groups whose removal would save less than this share of the cost stay whole


def members_of(
    cost: CostModel, metric: Metric, first: Mapping[str, int], floor: float, round_to: int
) -> list[Members]:
    """What the order has to know of every group.

    Args:
        cost: of the model.
        metric: of the budget.
        first: group id -> place of its first neuron among those of all groups.
        floor: least kept share of every group.
        round_to: multiples of so many channels.
    """
    demands = demands_of(cost, metric, floor, round_to)
    sets = {pattern: number for number, pattern in enumerate(dict.fromkeys(cost.uniform.values()))}
    found = []
    for name, group in cost.groups.items():
        parts, most = cost.parts[name], demands[name].bounds.high
        below = part_floor(group, parts, most, floor) if most < group.size and parts else None
        found.append(
            Members(
                group.size,
                demands[name].low,
                parts,
                _reads(cost, group, first),
                most=most,
                floor=below,
                set=sets.get(cost.uniform.get(name, "")),
            )
        )
    return found


def demands_of(cost: CostModel, metric: Metric, floor: float, round_to: int) -> dict[str, Demand]:
    """Group id -> how many of its neurons stay at least and at most; of sets, what is asked of all their groups.

    A network's last few inputs cost accuracy and are worth a thousandth of its MACs; a threshold on scores alone
    does not know that, so a group or a set that saves next to nothing stays whole.
    """
    found = {}
    for names in _units(cost):
        own = []
        worth = _saving(cost, metric, names) >= LEAST_SAVING
        for name in names:
            group = cost.groups[name]
            step = block_of(cost, metric, group, round_to)
            least = whole_blocks(at_least(floor, group.size), step, group.size) if worth else group.size
            bounds = bounds_of(group, cost.widths.get(name, ()), round_to)
            own.append(Demand(group.size, least, bounds, step))
        found |= zip(names, together(own) if len(own) > 1 else own, strict=True)
    return {name: found[name] for name in cost.groups}


def blocks_of(cost: CostModel, metric: Metric, round_to: int, *, finer: int = 0) -> tuple[int, ...]:
    """Neurons in a block of every group; of equally wide ones of a set, the same."""
    found = {}
    for names in _units(cost):
        widest: dict[int, int] = {}
        for name in names:
            group = cost.groups[name]
            step = block_of(cost, metric, group, round_to, finer=finer)
            widest[group.size] = max(widest.get(group.size, 1), step)
        found |= {name: widest[cost.groups[name].size] for name in names}
    return tuple(found[name] for name in cost.groups)


def block_of(cost: CostModel, metric: Metric, group: NeuronGroup, round_to: int, *, finer: int = 0) -> int:
    """Neurons in a block: as rounding asks, and of times a stair (half of it; the least that counts)."""
    step = rounding_step(group, round_to)
    if metric != "latency":
        return step
    stair, least = cost.stairs[group.id]
    return widened(step, (stair, max(least, stair // 2), least)[finer], least)


def _units(cost: CostModel) -> list[list[str]]:
    """The groups that are looked at together: those of every set, and each of the others alone."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in cost.groups:
        pattern = cost.uniform.get(name)
        found.setdefault(("", name) if pattern is None else (pattern, ""), []).append(name)
    return list(found.values())


def _saving(cost: CostModel, metric: Metric, names: list[str]) -> float:
    """Share of the dense cost that goes when only one neuron of each of these groups stays."""
    only: Kept = {name: np.arange(cost.groups[name].size) < 1 for name in names}
    return 1 - cost.share(metric, only)


def _reads(
    cost: CostModel, group: NeuronGroup, first: Mapping[str, int]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Of inputs of an FC layer, per layer that reads them the inputs and the channels that they belong to."""
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for member in group.consumers if group.kind == "input" else ():
        columns = cost.inputs_of[member.module]
        owners = tuple(part for part in columns.parts if cost.groups[part[0]].kind == "channel")
        if owners or cost.parts[group.id]:
            needs = replace(columns, parts=owners, index=None).gates(first)
            found.append((first[group.id] + np.asarray(member.neurons), needs[list(member.channels)].T))
    return found
