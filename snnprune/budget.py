"""What a set of kept neurons costs, and the threshold on the scores that meets a target.

The cost of a layer is a product of counts: `coefficient x inputs that stay x outputs that stay`. A
column stays when every group that gates it keeps it, so its score is the least of its groups' scores,
and "how many stay above a threshold" is a search in a sorted list.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from . import layers
from .errors import TargetError
from .graph import LayerShapes, NeuronGroup, layer_shapes
from .inputs import Inputs
from .metrics import count_macs, count_params

logger = logging.getLogger(__name__)

Metric = Literal["macs", "params"]
Scores = Mapping[str, NDArray[np.float64]]
TOLERANCE = 0.01
LEAST_SAVING = 0.002  # groups whose removal would save less than this share of the cost stay whole
_ALWAYS = math.inf
_Parts = list[tuple[str, NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class _Side:
    """Inputs or outputs of a layer: its width and the groups that own some of it."""

    width: int
    parts: tuple[tuple[str, NDArray[np.int64], NDArray[np.int64]], ...]
    index: NDArray[np.int64] | None = None

    def scores(self, scores: Scores) -> NDArray[np.float64]:
        """Score of every channel of the weight; infinite where nothing can remove it."""
        total = self.raw(scores)
        return total if self.index is None else total[self.index]

    def raw(self, scores: Scores) -> NDArray[np.float64]:
        """Score of every channel that arrives, before any index selection."""
        total = np.full(self.width, _ALWAYS)
        for group, channels, neurons in self.parts:
            if group in scores:
                total[channels] = np.minimum(total[channels], scores[group][neurons])
        return total


@dataclass(frozen=True, slots=True)
class _Layer:
    """Cost coefficients of one layer."""

    name: str
    inputs: _Side | None  # None: the cost depends on the outputs alone (depthwise, norms)
    outputs: _Side
    macs: float  # per pair of input and output channel, for one input
    params: float  # per pair
    params_out: float  # per output channel

    def cost(self, metric: Metric, inputs: float, outputs: float) -> float:
        if metric == "macs":
            return self.macs * inputs * outputs
        return self.params * inputs * outputs + self.params_out * outputs


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
    """

    def __init__(self, model: nn.Module, groups: Sequence[NeuronGroup], example_inputs: Inputs) -> None:
        self.groups = {group.id: group for group in groups if group.prunable}
        self.dense = {"macs": count_macs(model, example_inputs), "params": count_params(model)}
        self.layers = _layers(model, groups, example_inputs)
        everything = {name: np.full(g.size, _ALWAYS) for name, g in self.groups.items()}
        # Cost that no group touches: attention products, embeddings, layers outside the groups.
        self._inputs_of = {layer.name: layer.inputs for layer in self.layers if layer.inputs is not None}
        self._savings: dict[tuple[Metric, str], float] = {}
        self._rest = {m: self.dense[m] - self._sum(m, everything, 0.0) for m in ("macs", "params")}

    def cost(self, metric: Metric, kept: Mapping[str, NDArray[np.bool_]]) -> float:
        """Absolute cost when only the neurons in `kept` stay; groups not named stay whole."""
        scores = {name: np.where(mask, _ALWAYS, -_ALWAYS) for name, mask in kept.items()}
        return self._rest[metric] + self._sum(metric, scores, 0.0)

    def share(self, metric: Metric, kept: Mapping[str, NDArray[np.bool_]]) -> float:
        """The cost as a share of the dense cost, in (0, 1]."""
        return self.cost(metric, kept) / self.dense[metric]

    def _sum(self, metric: Metric, scores: Scores, threshold: float) -> float:
        return self._curve(metric, scores)(threshold)

    def _curve(self, metric: Metric, scores: Scores) -> _Curve:
        cache: dict[int, NDArray[np.float64]] = {}

        def ranked(side: _Side) -> NDArray[np.float64]:
            if id(side) not in cache:
                cache[id(side)] = np.sort(side.scores(scores))
            return cache[id(side)]

        rows = [
            (layer, None if layer.inputs is None else ranked(layer.inputs), ranked(layer.outputs))
            for layer in self.layers
        ]
        return _Curve(metric, rows)

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
            round_to: keep multiples of this many neurons in channel groups, where they are that wide.

        Raises:
            TargetError: even with every group at its floor the cost is higher.
        """
        blocks = self._all_blocks(metric, scores, floor, round_to)
        curve = self._curve(metric, blocks)
        limit = share * self.dense[metric] - self._rest[metric] + 1e-6
        values = np.unique(np.concatenate([b[np.isfinite(b)] for b in blocks.values()] or [np.empty(0)]))
        # candidates[i] keeps everything above values[i - 1]; the last one keeps the floors alone
        candidates = np.concatenate([[-_ALWAYS], values])
        low, high = 0, len(candidates) - 1
        if curve(candidates[high]) > limit:
            least = (curve(candidates[high]) + self._rest[metric]) / self.dense[metric]
            raise TargetError(
                f"{metric}={share:g} is below what the floors allow: with {floor:.0%} of every group kept, "
                f"{least:.3f} of the dense {metric} remain. Ask for {metric}={math.ceil(least * 100) / 100:.2f} "
                "or more, or lower the floor."
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
            kept = self._fill(metric, limit, blocks, kept, threshold)
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
            block = _blocks(scores[name], group, least, round_to)
            if group.kind == "input":
                member = group.consumers[0]
                safe = np.isinf(self._inputs_of[member.module].raw(blocks))[list(member.channels)]
                if safe.any():
                    block[np.where(safe, scores[name], -_ALWAYS).argmax()] = _ALWAYS
            blocks[name] = block
        return {name: blocks[name] for name in self.groups}

    def _fill(
        self,
        metric: Metric,
        limit: float,
        blocks: dict[str, NDArray[np.float64]],
        kept: dict[str, NDArray[np.bool_]],
        threshold: float,
    ) -> dict[str, NDArray[np.bool_]]:
        """Add the best blocks below the threshold that still fit, until half the tolerance is left."""
        enough = limit - 0.5 * TOLERANCE * self.dense[metric]
        cost = self.cost(metric, kept) - self._rest[metric]
        if cost >= enough:
            return kept
        below = sorted({(float(v), name) for name, b in blocks.items() for v in b[b <= threshold]}, reverse=True)
        for value, name in below[:256]:
            trial = {**kept, name: kept[name] | (blocks[name] == value)}
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
        least = max(1, math.ceil(floor * group.size - 1e-9))
        if group.kind == "channel" and round_to > 1:
            least = math.ceil(least / round_to) * round_to
        return min(group.size, least)

    def _saving(self, metric: Metric, group: NeuronGroup) -> float:
        """Share of the dense cost that goes when only one neuron of the group stays."""
        key = (metric, group.id)
        if key not in self._savings:
            mask = np.zeros(group.size, dtype=bool)
            mask[0] = True
            self._savings[key] = 1 - self.share(metric, {group.id: mask})
        return self._savings[key]


class _Curve:
    """Cost against the threshold, for one set of scores."""

    def __init__(
        self,
        metric: Metric,
        rows: list[tuple[_Layer, NDArray[np.float64] | None, NDArray[np.float64]]],
    ) -> None:
        self.metric: Metric = metric
        self.rows = rows

    def __call__(self, threshold: float) -> float:
        """Cost of everything that scores above `threshold`."""
        total = 0.0
        for layer, inputs, outputs in self.rows:
            n_in = 1 if inputs is None else _above(inputs, threshold)
            total += layer.cost(self.metric, n_in, _above(outputs, threshold))
        return total


def _above(ranked: NDArray[np.float64], threshold: float) -> int:
    return len(ranked) - int(np.searchsorted(ranked, threshold, side="right"))


def _blocks(scores: NDArray[np.float64], group: NeuronGroup, least: int, round_to: int) -> NDArray[np.float64]:
    """Scores with the `least` best out of reach, and neurons tied in blocks of `round_to`.

    A block has the score of its best neuron, so that a threshold keeps whole blocks.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].copy()
    if group.kind == "channel" and round_to > 1:
        ranked = ranked[(np.arange(len(ranked)) // round_to) * round_to]
    ranked[:least] = _ALWAYS
    result = np.empty_like(ranked)
    result[order] = ranked
    return result


def _layers(model: nn.Module, groups: Sequence[NeuronGroup], example_inputs: Inputs) -> list[_Layer]:
    """Cost coefficients of every convolution, linear and per-channel layer that runs."""
    outs: dict[str, _Parts] = {}
    ins: dict[str, _Parts] = {}
    for group in groups:
        if not group.prunable:
            continue
        for member in group.members:
            part = (group.id, np.asarray(member.channels), np.asarray(member.neurons))
            (ins if member.role == "consumer" else outs).setdefault(member.module, []).append(part)
    found = []
    for name, shape in layer_shapes(model, example_inputs).items():
        module = model.get_submodule(name)
        if layers.is_conv(module) or isinstance(module, nn.Linear):
            found.append(_weighted(name, module, shape, ins.get(name, []), outs.get(name, [])))
        elif isinstance(module, layers.PER_CHANNEL):
            count = layers.channel_count(module)
            params = sum(p.numel() for p in module.parameters())
            side = _Side(count, tuple(outs.get(name, [])))
            found.append(_Layer(name, None, side, 0.0, 0.0, params / count))
    return found


def _weighted(name: str, module: nn.Module, shape: LayerShapes, ins: _Parts, outs: _Parts) -> _Layer:
    """Coefficients of a convolution or a linear layer."""
    out_side = _Side(layers.out_width(module), tuple(outs))
    in_side = _Side(layers.in_width(module), tuple(ins))
    if isinstance(module, nn.Linear):
        positions, kernel, conv_groups = math.prod(shape.output[1:-1]), 1, 1
        if isinstance(module, layers.IndexedLinear):
            in_side = _Side(in_side.width, in_side.parts, module.index.cpu().numpy())
    else:
        assert layers.is_conv(module)
        # A transposed convolution spends its kernel at every input position, a plain one at every output.
        seen = shape.input if layers.input_dim(module) == 0 else shape.output
        positions, kernel = math.prod(seen[2:]), math.prod(module.kernel_size)
        conv_groups = module.groups
    bias = 0.0 if module.bias is None else 1.0
    macs = kernel * positions * shape.calls
    if layers.is_depthwise(module):
        return _Layer(name, None, out_side, macs, 0.0, kernel + bias)
    return _Layer(name, in_side, out_side, macs / conv_groups, kernel / conv_groups, bias)
