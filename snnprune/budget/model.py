"""The threshold on the scores that meets a target.

The cost of a layer is a product of counts: `coefficient x inputs that stay x outputs that stay`. A
column stays when every group that gates it keeps it, so its score is the least of its groups' scores,
and "how many stay above a threshold" is a search in a sorted list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from .. import streams
from ..errors import ExactnessError, TargetError
from ..graph import NeuronGroup
from ..inputs import Inputs
from ..layers import attention
from ..macs import price, warn_of_unpriced
from ..metrics import count_params
from .blocks import at_least, blocks_of, parts_of, rounding_step
from .costs import ALWAYS, Curve, Metric, Scores, Side, layer_costs

TOLERANCE = 0.01
LEAST_SAVING = 0.002  # groups whose removal would save less than this share of the cost stay whole


@dataclass(frozen=True, slots=True)
class Selection:
    """Which neurons stay, and what that costs.

    Attributes:
        kept: group id -> (size,) boolean.
        threshold: neurons above it stay, before floors and rounding.
        cost: of the metric, as a share of the dense cost.
    """

    kept: dict[str, NDArray[np.bool_]]
    threshold: float
    cost: float


class CostModel:
    """Params and MACs of a model as a function of the kept neurons.

    Args:
        model: the network (shapes and types are read, nothing is kept of it).
        groups: its groups.
        example_inputs: what its forward takes.

    Attributes:
        dense: cost of the whole model, by metric.
        parts: group id -> neurons of every layer that holds only some of the group's.
        unpriced: operations that take weights and whose multiply-adds are not counted.

    Raises:
        ExactnessError: a layer's multiply-adds as counted and as its sizes say differ.
    """

    def __init__(self, model: nn.Module, groups: Sequence[NeuronGroup], example_inputs: Inputs) -> None:
        self.groups = {group.id: group for group in groups if group.prunable}
        self.parts = {name: parts_of(group) for name, group in self.groups.items()}
        with attention.opened(model), streams.kept():
            streams.seed_all(0)  # a network that draws its way takes the same one twice
            counted = price(model, example_inputs)
            streams.seed_all(0)
            self.layers = layer_costs(model, groups, example_inputs, counted)
        self.dense = {"macs": counted.total, "params": count_params(model)}
        self.unpriced = counted.unpriced
        warn_of_unpriced(counted)
        everything = {name: np.full(g.size, ALWAYS) for name, g in self.groups.items()}
        # Cost that no group touches: attention products, embeddings, layers outside the groups.
        self._inputs_of = {layer.name: layer.inputs for layer in self.layers if layer.inputs is not None}
        self._savings: dict[tuple[Metric, str], float] = {}
        self._rest = {m: self.dense[m] - self._sum(m, everything, 0.0) for m in ("macs", "params")}
        for metric, rest in self._rest.items():
            # A layer inside attention may be priced by heads: once with their products, once as a layer.
            rest += sum(group.macs * group.size for group in self.groups.values()) if metric == "macs" else 0
            if rest < -max(1.0, 1e-9 * self.dense[metric]):
                raise ExactnessError(
                    f"the layers of the model add up to {self.dense[metric] - rest:.0f} {metric}, but only "
                    f"{self.dense[metric]} are there: a mistake in snnprune; please report the model."
                )

    def cost(self, metric: Metric, kept: Mapping[str, NDArray[np.bool_]]) -> float:
        """Absolute cost when only the neurons in `kept` stay; groups not named stay whole."""
        scores = {name: np.where(mask, ALWAYS, -ALWAYS) for name, mask in kept.items()}
        return self._rest[metric] + self._sum(metric, scores, 0.0)

    def share(self, metric: Metric, kept: Mapping[str, NDArray[np.bool_]]) -> float:
        """The cost as a share of the dense cost, in (0, 1]."""
        return self.cost(metric, kept) / self.dense[metric]

    def _unreached(self, metric: Metric) -> str:
        share = 1 - self.prunable_share(metric)
        if share < 0.01:
            return ""
        return f" Nothing can be removed from {share:.0%} of them; `snnprune inspect` lists what is kept and why."

    def prunable_share(self, metric: Metric) -> float:
        """Share of the dense cost that lies in layers which lose something when neurons go, in [0, 1]."""
        touched = 0.0
        for layer in self.layers:
            if layer.outputs.parts or (layer.inputs is not None and layer.inputs.parts):
                width = 1 if layer.inputs is None else len(layer.inputs.scores({}))
                touched += layer.cost(metric, width, len(layer.outputs.scores({})))
        return touched / self.dense[metric]

    def _sum(self, metric: Metric, scores: Scores, threshold: float) -> float:
        return self._curve(metric, scores)(threshold)

    def _curve(self, metric: Metric, scores: Scores) -> Curve:
        cache: dict[int, NDArray[np.float64]] = {}

        def ranked(side: Side) -> NDArray[np.float64]:
            if id(side) not in cache:
                cache[id(side)] = np.sort(side.scores(scores))
            return cache[id(side)]

        rows = [
            (layer, None if layer.inputs is None else ranked(layer.inputs), ranked(layer.outputs))
            for layer in self.layers
        ]
        return Curve(metric, rows)

    def select(
        self, metric: Metric, share: float, scores: Scores, *, floor: float = 0.1, round_to: int = 1
    ) -> Selection:
        """The neurons with the highest scores whose cost just fits into `share` of the dense cost.

        One threshold for all groups. It is met from below; where one neuron is a large part of the
        model, cheaper neurons just below the threshold fill what is left.

        Args:
            metric: `macs` or `params`.
            share: kept share of the dense cost, in (0, 1].
            scores: group id -> (size,) finite scores; higher is better.
            floor: least kept share of every group (at least one neuron).
            round_to: keep multiples of this many channels in channel groups; of a smaller power of two where a
                group is less than four times as wide, and of half as many, in as few groups as it takes, where
                the cost would else end more than the tolerance below the target.

        Raises:
            TargetError: even with every group at its floor the cost is higher.
        """
        blocks = self._all_blocks(metric, scores, floor, round_to)
        curve = self._curve(metric, blocks)
        limit = share * self.dense[metric] - self._rest[metric] + 1e-6
        values = np.unique(np.concatenate([b[np.isfinite(b)] for b in blocks.values()] or [np.empty(0)]))
        # candidates[i] keeps everything above values[i - 1]; the last one keeps the floors alone
        candidates = np.concatenate([[-ALWAYS], values])
        low, high = 0, len(candidates) - 1
        if curve(candidates[high]) > limit:
            least = (curve(candidates[high]) + self._rest[metric]) / self.dense[metric]
            raise TargetError(
                f"{metric}={share:g} is below what the floors allow: with {floor:.0%} of every group kept, "
                f"{least:.3f} of the dense {metric} remain. Ask for {metric}={math.ceil(least * 1000) / 1000:.3f} "
                "or more, or lower the floor." + self._unreached(metric)
            )
        while low < high:
            middle = (low + high) // 2
            if curve(candidates[middle]) <= limit:
                high = middle
            else:
                low = middle + 1
        threshold = float(candidates[high])
        kept = {name: b > threshold for name, b in blocks.items()}
        if share < 1.0:
            kept = self._fill(metric, limit, blocks, kept, round_to)
            while round_to > 1 and self.share(metric, kept) < share - TOLERANCE:
                round_to //= 2  # whole blocks are too coarse for this model: as few odd widths as it takes
                finer = self._all_blocks(metric, scores, floor, round_to)
                wide = {name: b for name, b in finer.items() if self.groups[name].kind == "channel"}
                kept = self._fill(metric, limit, wide, kept, round_to)
        return Selection(kept, threshold, self.share(metric, kept))

    def _all_blocks(
        self, metric: Metric, scores: Scores, floor: float, round_to: int
    ) -> dict[str, NDArray[np.float64]]:
        """Scores of all groups with the floors lifted out of reach.

        At least one single input of an FC layer stays that belongs to a channel which stays.
        """
        blocks: dict[str, NDArray[np.float64]] = {}
        for name, group in sorted(self.groups.items(), key=lambda item: item[1].kind):
            least = self._least(metric, group, floor, round_to)
            block = blocks_of(scores[name], self.parts[name], least, floor, rounding_step(group, round_to))
            if group.kind == "input":
                for member in group.consumers:
                    safe = np.isinf(self._inputs_of[member.module].raw(blocks))[list(member.channels)]
                    if safe.any():
                        block[np.where(safe, scores[name], -ALWAYS).argmax()] = ALWAYS
            blocks[name] = block
        return {name: blocks[name] for name in self.groups}

    def _fill(
        self,
        metric: Metric,
        limit: float,
        blocks: dict[str, NDArray[np.float64]],
        kept: dict[str, NDArray[np.bool_]],
        round_to: int,
    ) -> dict[str, NDArray[np.bool_]]:
        """Add the best blocks that are not kept and still fit, until half the tolerance is left."""
        enough = limit - 0.5 * TOLERANCE * self.dense[metric]
        cost = self.cost(metric, kept) - self._rest[metric]
        if cost >= enough:
            return kept
        below = sorted({(float(v), name) for name, b in blocks.items() for v in b[~kept[name]]}, reverse=True)
        for value, name in below[:256]:
            trial = {**kept, name: kept[name] | (blocks[name] == value)}
            odd = int(trial[name].sum()) % rounding_step(self.groups[name], round_to)
            if odd and not trial[name].all():
                continue  # the last block of a width that is no multiple
            new = self.cost(metric, trial) - self._rest[metric]
            if new <= limit:
                kept, cost = trial, new
            if cost >= enough:
                break
        return kept

    def floor_share(self, metric: Metric, scores: Scores, *, floor: float = 0.1, round_to: int = 1) -> float:
        """The smallest share of the dense cost that the floors allow, for these scores."""
        blocks = self._all_blocks(metric, scores, floor, round_to)
        return self.share(metric, {name: np.isinf(b) for name, b in blocks.items()})

    def _least(self, metric: Metric, group: NeuronGroup, floor: float, round_to: int) -> int:
        """Neurons that a group must keep: its floor, or all where removing them saves next to nothing.

        A network's last few inputs cost accuracy and are worth a thousandth of its MACs; a threshold
        on scores alone does not know that.
        """
        if self._saving(metric, group) < LEAST_SAVING:
            return group.size
        least = at_least(floor, group.size)
        step = rounding_step(group, round_to)
        least = math.ceil(least / step) * step
        return min(group.size, least)

    def saving_per_neuron(self, metric: Metric, group: str) -> float:
        """Share of the dense cost that goes with one neuron of a group, on average, all else being whole."""
        mask = np.ones(self.groups[group].size, dtype=bool)
        mask[: max(1, len(mask) // 2)] = False
        return (1 - self.share(metric, {group: mask})) / (len(mask) - int(mask.sum()))

    def _saving(self, metric: Metric, group: NeuronGroup) -> float:
        """Share of the dense cost that goes when only one neuron of the group stays."""
        key = (metric, group.id)
        if key not in self._savings:
            mask = np.zeros(group.size, dtype=bool)
            mask[0] = True
            self._savings[key] = 1 - self.share(metric, {group.id: mask})
        return self._savings[key]
