"""Which neurons a threshold may take: blocks of neurons, and those that floors lift out of its reach."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..graph import NeuronGroup
from .costs import ALWAYS


def blocks_of(
    scores: NDArray[np.float64],
    parts: Sequence[NDArray[np.int64]],
    least: int,
    floor: float,
    step: int,
) -> NDArray[np.float64]:
    """Scores with the `least` best out of reach, and neurons tied in blocks of `step`.

    A block has the score of its best neuron, so that a threshold keeps whole blocks.

    Args:
        scores: of one group, (size,).
        parts: neurons of layers that hold a part of the group (branches of a concatenation): of each part
            the floor stays, so that no layer is emptied.
        least: neurons of the group that stay.
        floor: least kept share of every part.
        step: neurons in a block.
    """
    must = np.zeros(len(scores), dtype=bool)
    for neurons in parts:
        count = at_least(floor, len(neurons))
        must[neurons[np.argsort(-scores[neurons], kind="stable")[:count]]] = True
    order = np.lexsort((np.arange(len(scores)), -scores, ~must))  # what must stay comes first
    least = max(least, min(len(scores), math.ceil(int(must.sum()) / step) * step))
    ranked = scores[order].copy()
    ranked[:least] = ALWAYS
    rest = ranked[least:]
    ranked[least:] = rest[(np.arange(len(rest)) // step) * step]
    result = np.empty_like(ranked)
    result[order] = ranked
    return result


def parts_of(group: NeuronGroup) -> list[NDArray[np.int64]]:
    """Neurons of every layer that holds only some of the group's; every set once."""
    return [np.asarray(part) for part in dict.fromkeys(tuple(sorted(set(m.neurons))) for m in group.partial)]


def at_least(floor: float, size: int) -> int:
    """Neurons that a floor keeps of so many: one at least, and never fewer than the share says."""
    return min(size, max(1, math.ceil(floor * size - 1e-9)))


def rounding_step(group: NeuronGroup, round_to: int) -> int:
    """Neurons that make up a multiple of `round_to` channels: a head is a multiple of 8 by itself.

    A group that is less than four such multiples wide is rounded to a smaller power of two, so that rounding
    never decides about more than a quarter of a layer.
    """
    if group.kind != "channel":
        return 1
    width = group.size * group.per_neuron
    if width < 4 * round_to:
        round_to = math.gcd(round_to, 1 << max(0, (width // 4).bit_length() - 1))
    return round_to // math.gcd(round_to, group.per_neuron)
