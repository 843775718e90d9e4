"""Params, MACs and time of a model as a function of the kept neurons, and the selection that meets a share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import streams
from ..errors import ConfigError, ExactnessError, TargetError
from ..graph import NeuronGroup
from ..inputs import Inputs
from ..layers import attention
from ..macs import price, warn_of_unpriced
from ..metrics import count_params
from .blocks import parts_of
from .costs import COUNTED, Kept, Metric, layer_costs
from .demands import blocks_of, members_of
from .lookup import timed_terms
from .refusal import too_little
from .selector import Selector
from .stairs import stair_steps
from .terms import Terms, terms_of
from .times import TimedPart
from .uniform import check_uniform, uniform_of
from .widths import bounds_of, part_floor, widths_of

NeuronScores = Mapping[str, "NDArray[np.floating[Any]] | Tensor"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which neurons stay, and what that costs.

    Attributes:
        kept: group id -> (size,) boolean.
        threshold: the highest score of those that go; minus infinity where all stay.
        cost: of the metric, as a share of the dense cost.
    """

    kept: dict[str, NDArray[np.bool_]]
    threshold: float
    cost: float


class CostModel:
    """Params and MACs of a model as a function of the kept neurons, and its time once that was measured.

    Args:
        model: the network (shapes and types are read, nothing is kept of it).
        groups: its groups.
        example_inputs: what its forward takes.
        width: what is asked of the widths of groups, as `read_widths` gives it; every selection keeps to it.
        uniform: patterns of module names; groups that one of them names keep the same share in every selection.

    Attributes:
        dense: cost of the whole model, by metric: `macs`, `params`, and `latency` in milliseconds if it is known.
        times: of its parts; see `add_times`.
        parts: group id -> neurons of every layer that holds only some of the group's.
        unpriced: operations that take weights and whose multiply-adds are not counted.
        widths: group id -> the widths that name it.
        uniform: group id -> the pattern of those that keep the same share.
        stairs: group id -> neurons in a stair of the time; see `stair_steps`.
        inputs_of: layer -> its inputs, and which neurons they need.

    Raises:
        ConfigError: widths or uniform patterns that no selection can keep to; see `widths_of`, `uniform_of`.
        ExactnessError: a layer's multiply-adds as counted and as its sizes say differ.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[NeuronGroup],
        example_inputs: Inputs,
        *,
        width: Sequence[str] = (),
        uniform: Sequence[str] = (),
    ) -> None:
        self.widths, self.uniform = widths_of(groups, width), uniform_of(groups, uniform)
        self.groups = {group.id: group for group in groups if group.prunable}
        check_uniform(self.groups, self.widths, self.uniform)
        self.parts = {name: parts_of(group) for name, group in self.groups.items()}
        for name in self.widths.keys() & self.parts.keys():
            most = bounds_of(self.groups[name], self.widths[name], 1).high
            part_floor(self.groups[name], self.parts[name], most, 0.0)
        with attention.opened(model), streams.kept():
            streams.seed_all(0)  # a network that draws its way takes the same one twice
            counted = price(model, example_inputs)
            streams.seed_all(0)
            self.layers = layer_costs(model, groups, example_inputs, counted)
        self.dense: dict[Metric, float] = {"macs": counted.total, "params": count_params(model)}
        self.times: tuple[TimedPart, ...] = ()
        self.stairs: dict[str, tuple[int, int]] = {}
        self.unpriced = counted.unpriced
        warn_of_unpriced(counted)
        # Cost that no group touches: attention products, embeddings, layers outside the groups.
        self.inputs_of = {layer.name: layer.inputs for layer in self.layers if layer.inputs is not None}
        self._terms: dict[Metric, Terms] = {}
        self._selectors: dict[tuple[Metric, float, int, torch.device], Selector] = {}
        self._rest: dict[Metric, float] = {m: self.dense[m] - self._sum(m, {}) for m in COUNTED}
        for metric, rest in self._rest.items():
            # A layer inside attention may be priced by heads: once with their products, once as a layer.
            rest += sum(group.macs * group.size for group in self.groups.values()) if metric == "macs" else 0
            if rest < -max(1.0, 1e-9 * self.dense[metric]):
                raise ExactnessError(
                    f"the layers of the model add up to {self.dense[metric] - rest:.0f} {metric}, but only "
                    f"{self.dense[metric]} are there: a mistake in snnprune; please report the model."
                )

    def add_times(self, parts: Sequence[TimedPart]) -> None:
        """Tell the time of every part of the model; from then on `latency` is a metric like the others.

        Blocks of neurons under a budget of time are whole stairs of it. Called again, it replaces what was told;
        a gated model that has a budget of time then needs `forget()`.

        Args:
            parts: all of them, also those whose time is constant; together they are the dense time.

        Raises:
            ConfigError: a part depends on a group that is none of the model's, or all take no time.
        """
        parts = tuple(parts)
        for part in parts:
            sides = [side for side in (part.inputs, part.outputs) if side is not None]
            unknown = {name for side in sides for name, *_ in side.parts} - self.groups.keys()
            if unknown:
                raise ConfigError(
                    f"times of {part.name} depend on {min(unknown)}, which is no prunable group of this model. "
                    "Make them anew for its groups."
                )
        dense = math.fsum(part.dense for part in parts)
        if not dense > 0:
            raise ConfigError("the times of all parts are 0 ms, so there is nothing to save. Measure them again.")
        self.times, self.dense["latency"], self._rest["latency"] = parts, dense, 0.0
        self.stairs = stair_steps(parts, self.groups)
        self._terms.pop("latency", None)
        self._selectors = {key: found for key, found in self._selectors.items() if key[0] != "latency"}

    def check_known(self, metric: Metric) -> None:
        """Refuse a metric of which nothing is known.

        Raises:
            TargetError: `latency`, and no times were added.
        """
        if metric not in self.dense:
            raise TargetError(
                f"the {metric} of this model is not known: nobody has measured its parts. Add their times with "
                "CostModel.add_times, or ask for macs=... or params=...."
            )

    def cost(self, metric: Metric, kept: Kept) -> float:
        """Absolute cost when only the neurons in `kept` stay; groups not named stay whole.

        Raises:
            TargetError: see `check_known`; so do all methods that take a metric.
        """
        self.check_known(metric)
        return self._rest[metric] + self._sum(metric, kept)

    def share(self, metric: Metric, kept: Kept) -> float:
        """The cost as a share of the dense cost, in (0, 1]."""
        return self.cost(metric, kept) / self.dense[metric]

    def prunable_share(self, metric: Metric) -> float:
        """Share of the dense cost that lies in layers which lose something when neurons go, in [0, 1]."""
        self.check_known(metric)
        if metric == "latency":
            return math.fsum(part.dense for part in self.times if part.reached) / self.dense[metric]
        touched = 0.0
        for layer in self.layers:
            if layer.outputs.parts or (layer.inputs is not None and layer.inputs.parts):
                width = 1 if layer.inputs is None else layer.inputs.read
                touched += layer.cost(metric, width, layer.outputs.read)
        return touched / self.dense[metric]

    def _sum(self, metric: Metric, kept: Kept) -> float:
        """Cost of everything that neurons can change."""
        if metric == "latency":
            return math.fsum(part.cost(kept) for part in self.times)
        total = 0.0
        for layer in self.layers:
            inputs = 1 if layer.inputs is None else layer.inputs.count(kept)
            total += layer.cost(metric, inputs, layer.outputs.count(kept))
        return total

    def selector(
        self, metric: Metric, *, floor: float = 0.1, round_to: int = 1, device: torch.device | str = "cpu"
    ) -> Selector:
        """What chooses neurons for a share of this metric; built once for the same arguments.

        Args:
            metric: `macs`, `params` or `latency`.
            floor: least kept share of every group (at least one neuron).
            round_to: keep multiples of this many channels in channel groups; of a smaller power of two where a
                group is less than four times as wide, and of fewer where the cost would else end more than
                `SLACK` below the target. Where stairs of the time are wider, whole stairs are kept.
            device: where scores will be.
        """
        self.check_known(metric)
        where = torch.device(device)
        key = (metric, floor, round_to, where)
        if key not in self._selectors:
            first = dict(zip(self.groups, np.cumsum([0, *(g.size for g in self.groups.values())]), strict=False))
            if metric not in self._terms:
                self._terms[metric] = (
                    timed_terms(self.times, first)
                    if metric == "latency"
                    else terms_of(self.layers, metric, first, self.dense[metric])
                )
            members = members_of(self, metric, first, floor, round_to)
            finer = (round_to, max(1, round_to // 2), 1)
            steps = list(dict.fromkeys(blocks_of(self, metric, r, finer=i) for i, r in enumerate(finer)))
            self._selectors[key] = Selector(self._terms[metric], members, steps, floor=floor, device=where)
        return self._selectors[key]

    def select(
        self, metric: Metric, share: float, scores: NeuronScores, *, floor: float = 0.1, round_to: int = 1
    ) -> Selection:
        """The neurons with the highest scores whose cost just fits into `share` of the dense cost.

        One threshold for all groups. It is met from below; where one block of neurons is a large part of the
        model, cheaper ones just below the threshold fill what is left.

        Args:
            metric: `macs`, `params` or `latency`.
            share: kept share of the dense cost, in (0, 1].
            scores: group id -> (size,) finite scores; higher is better.
            floor: see `selector`.
            round_to: see `selector`.

        Raises:
            TargetError: even with every group at its floor the cost is higher.
        """
        selector = self.selector(metric, floor=floor, round_to=round_to)
        flat = self._flat(scores)
        mask, fits = selector(flat, share)
        if not bool(fits):
            least = self._by_group(selector.floors(flat))
            raise TargetError(too_little(self, metric, share, least, floor, round_to))
        kept = self._by_group(mask)
        gone = flat[~mask]
        return Selection(kept, float(gone.max()) if len(gone) else -math.inf, self.share(metric, kept))

    def _flat(self, scores: NeuronScores) -> Tensor:
        """Scores of all groups one after another."""
        found = [torch.as_tensor(scores[name], dtype=torch.float64).detach().cpu() for name in self.groups]
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.float64)

    def _by_group(self, mask: Tensor) -> dict[str, NDArray[np.bool_]]:
        parts = mask.split([group.size for group in self.groups.values()])
        return {name: part.numpy() for name, part in zip(self.groups, parts, strict=True)}

    def floor_share(self, metric: Metric, scores: NeuronScores, *, floor: float = 0.1, round_to: int = 1) -> float:
        """The smallest share of the dense cost that the floors allow, for these scores."""
        selector = self.selector(metric, floor=floor, round_to=round_to)
        return self.share(metric, self._by_group(selector.floors(self._flat(scores))))

    def saving_per_neuron(self, metric: Metric, group: str) -> float:
        """Share of the dense cost that goes with one neuron of a group, on average, all else being whole.

        The average is over half of the neurons. A time may not fall at all before more are gone, and counts by the
        part of the way down on which most goes with each.
        """
        size = self.groups[group].size
        found = []
        for gone in (max(1, size // 2), *([3 * size // 4, size - 1] if metric == "latency" and size > 1 else [])):
            found.append((1 - self.share(metric, {group: np.arange(size) >= gone})) / gone)
        return max(found)
