"""How many neurons stay whatever they score, and in blocks of how many the others go."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..graph import NeuronGroup

ROUND_TO = 8  # channels, of which fast kernels need a multiple; the default wherever a network is cut


def parts_of(group: NeuronGroup) -> list[NDArray[np.int64]]:
    """Neurons of every layer that holds only some of the group's; every set once."""
    return [np.asarray(part) for part in dict.fromkeys(tuple(sorted(set(m.neurons))) for m in group.partial)]


def at_least(floor: float, size: int) -> int:
    """Neurons that a floor keeps of so many: one at least, and never fewer than the share says."""
    return min(size, max(1, math.ceil(floor * size - 1e-9)))


def whole_blocks(count: int, step: int, size: int) -> int:
    """So many neurons of a group of `size`, rounded up to whole blocks of `step`."""
    return min(size, math.ceil(count / step) * step)


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
