"""Times of a network's layers where an engine takes it as a whole: found by least squares over whole cuts.

PyTorch and TensorRT do not run a piece of a graph as they run it inside of a network, or take minutes to build
each. So a few cuts of the network are timed whole, and what they take is shared out: so much for every
multiply-add of a layer, so much for every number that it writes, so much for the network as such. Which layer is
how far from what the arithmetic would allow is not known then; that the sum is right, the clock sees to at the end
of the search.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..budget import CostModel, TimedPart
from ..budget.costs import Kept, LayerCost
from ..errors import TimingError
from ..graph import NeuronGroup
from ..inputs import Inputs
from .answers import Answers
from .compared import SideBySide
from .profile import Check, Profile
from .questions import draw_cuts
from .serving import Serving

_SHARES = ((0.8, 1.0), (0.6, 0.9), (0.4, 0.9), (0.4, 0.7), (0.25, 0.6), (0.2, 0.4), (0.1, 0.3))
WHOLES = len(_SHARES) + 1  # networks that are timed
_LIMIT = 6.0  # seconds for each of the networks
_BLOCK = 8  # channels that are computed together, as Tensor Cores and vector units do
_NODES = 96  # most counts of a side that a table tells apart
_FEATURES = ("products", "depthwise", "written", "network")
Told = Callable[[int, int], None]


def takes_whole(serving: Serving) -> bool:
    """Whether this engine has to be asked by whole networks."""
    return serving.in_torch or serving.engine in ("tensorrt", "cuda-graphs")


def coarse_profile(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    cost: CostModel,
    example_inputs: Inputs,
    serving: Serving,
    *,
    known: Answers | None = None,
    tell: Told | None = None,
) -> Profile:
    """The times of a network's layers by those of whole cuts.

    Args:
        model: the network.
        groups: its groups.
        cost: what they cost.
        example_inputs: what its forward takes, at least two.
        serving: what serves it.
        known: times of the network and its cuts; None times them here.
        tell: called with the number of networks done and of all.

    Raises:
        ExportError: the engine cannot run the network.
        TimingError: a time is missing.
    """
    cuts = draw_cuts(model, groups, cost, _SHARES)
    kept: list[Kept] = [{}, *(drawn for drawn, _ in cuts)]
    names = [f"whole-{i}" for i in range(len(kept))]
    found = _timed(model, [small for _, small in cuts], example_inputs, serving, tell) if known is None else known
    answers = {name: found.get(name) for name in names}
    if any(ms is None for ms in answers.values()):
        raise TimingError("the times are of another network or engine: some are missing. Make them anew.")
    measured = np.array([ms for ms in answers.values() if ms is not None])
    layers = [layer for layer in cost.layers if layer.macs]
    table = np.array([features(layers, own) for own in kept])
    prices = nonnegative(table / measured[:, None], np.ones(len(measured)))
    checks = []
    for i, own in enumerate(kept):
        others = np.arange(len(kept)) != i
        apart = nonnegative(table[others] / measured[others, None], np.ones(others.sum())) if i else prices
        total = sum(mask.size for mask in own.values())
        share = sum(int(mask.sum()) for mask in own.values()) / total if total else 1.0
        checks.append(Check(share, float(measured[i]), float(table[i] @ apart)))
    parts = [_part(layer, prices) for layer in layers]
    zeros = np.zeros(1, np.int64)
    parts.append(TimedPart("the network as such", None, None, zeros, zeros, np.array([[float(prices[-1])]])))
    return Profile(serving.key(), parts, float(measured[0]), checks, {}, len(names), answers)


def _timed(
    model: nn.Module, cuts: Sequence[nn.Module], example: Inputs, serving: Serving, tell: Told | None
) -> Answers:
    beside = SideBySide(model, example, serving, limit=_LIMIT)
    found: Answers = {}
    dense = 0.0
    for i, small in enumerate(cuts):
        timed = beside.times(small)  # no figure for anyone: many of them, each a little off, give the factors
        dense = dense or timed["dense"].ms
        found["whole-0"], found[f"whole-{i + 1}"] = dense, timed.ratio("compact") * dense
        if tell is not None:
            tell(i + 1, len(cuts))
    return found


def features(layers: Sequence[LayerCost], kept: Kept) -> list[float]:
    """What a cut has to do: multiply-adds of layers that mix channels and of others, numbers written, and 1."""
    found = np.zeros(len(_FEATURES))
    for layer in layers:
        inputs = 1 if layer.inputs is None else layer.inputs.count(kept)
        found += _needs(
            layer, _blocks(inputs) if layer.inputs is not None else 1, _blocks(layer.outputs.count(kept))
        )
    found[-1] = 1.0
    return found.tolist()


def _blocks(count: int) -> int:
    return -(-count // _BLOCK) * _BLOCK


def _needs(layer: LayerCost, inputs: int, outputs: int) -> NDArray[np.float64]:
    mixes = layer.inputs is not None
    kernel = layer.params if mixes else layer.params_out
    positions = layer.macs / kernel if kernel else 1.0  # at which outputs are computed; a bias hardly counts
    macs = layer.macs * inputs * outputs
    return np.array([macs if mixes else 0.0, 0.0 if mixes else macs, positions * outputs, 0.0])


def nonnegative(table: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Factors of at least 0 by which a sum of columns comes nearest to what is wanted, by least squares.

    The best of all subsets of columns whose own solution has no negative factor: with few columns that is quick.
    """
    width = table.shape[1]
    best, least = np.zeros(width), float(wanted @ wanted)
    for count in range(1, width + 1):
        for chosen in itertools.combinations(range(width), count):
            part = table[:, chosen]
            scale = np.linalg.norm(part, axis=0)
            if (scale == 0).any():
                continue
            factors = np.linalg.lstsq(part / scale, wanted, rcond=None)[0] / scale
            left = float(((part @ factors - wanted) ** 2).sum())
            if (factors >= 0).all() and left < least * (1 - 1e-9):
                best, least = np.zeros(width), left
                best[list(chosen)] = factors
    return best


def _part(layer: LayerCost, prices: NDArray[np.float64]) -> TimedPart:
    """A layer for the cost model."""
    sides = layer.inputs, layer.outputs
    full = [0 if side is None else side.read for side in sides]
    apart = [_BLOCK * max(1, -(-count // (_BLOCK * _NODES))) for count in full]
    nodes = [np.unique([*range(0, count, step), count]) for count, step in zip(full, apart, strict=True)]
    table = np.array(
        [
            [
                float(_needs(layer, _blocks(int(a)) if layer.inputs is not None else 1, _blocks(int(b))) @ prices)
                for b in nodes[1]
            ]
            for a in nodes[0]
        ]
    )
    rows, columns = (np.searchsorted(own, np.arange(count + 1)) for own, count in zip(nodes, full, strict=True))
    return TimedPart(layer.name, *sides, rows, columns, table)
