"""How many channels a step of the time is wide, so that whole steps are cut and nothing that is free.

On most engines the time of a layer does not fall channel by channel, but where its width crosses a multiple of
what a kernel works on at once. To cut a channel within such a stair saves nothing, so blocks are stairs there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..graph import NeuronGroup
from .blocks import rounding_step
from .times import TimedPart

_WIDEST = 64  # channels
_NEARLY, _ALL = 0.9, 0.99  # shares of what the time varies by


def stair_steps(parts: Sequence[TimedPart], groups: Mapping[str, NeuronGroup]) -> dict[str, tuple[int, int]]:
    """Neurons in a stair of every group, each a power of two channels, or 1.

    Args:
        parts: times of all parts.
        groups: the groups by id.

    Returns:
        Group id -> (stair, least). At multiples of `stair` lie at least 90 % of what the time varies by along the
        group's width, with all other groups whole and with half of each; it leaves at least four blocks, as
        rounding does, unless blocks of `least` are wider. At multiples of `least` lies all of it (99 %), so that
        to cut in finer blocks saves nothing, however few there are.
    """
    half = {name: np.arange(g.size) < math.ceil(g.size / 2) for name, g in groups.items()}
    touching: dict[str, list[TimedPart]] = {name: [] for name in groups}
    for part in parts:
        sides = [side for side in (part.inputs, part.outputs) if side is not None]
        for name in {name for side in sides for name, *_ in side.parts} & touching.keys():
            touching[name].append(part)
    found = {}
    for name, group in groups.items():
        if group.kind != "channel":
            found[name] = 1, 1
            continue
        falls = [_falls(touching[name], group, kept) for kept in ({}, half)]
        widths = [_WIDEST >> i for i in range(_WIDEST.bit_length())]
        least = next(s for s in (w // math.gcd(w, group.per_neuron) for w in widths) if _at(falls, s) >= _ALL)
        stair = next(s for s in (rounding_step(group, w) for w in widths) if _at(falls, s) >= _NEARLY)
        found[name] = max(stair, least), least
    return found


def _falls(
    parts: Sequence[TimedPart], group: NeuronGroup, kept: Mapping[str, NDArray[np.bool_]]
) -> NDArray[np.float64]:
    """(size - 1,) what is saved when 2 neurons become 1, when 3 become 2, and so on."""
    time = np.zeros(group.size + 1)
    for part in parts:
        time += part.along(group.id, group.size, kept)
    return np.diff(time)[1:]


def _at(falls: Sequence[NDArray[np.float64]], step: int) -> float:
    """The least share, of several ways to fall, that lies where a multiple of `step` is reached from above."""
    shares = [f[step - 1 :: step].sum() / f.sum() for f in falls if f.sum() > 0]
    return float(min(shares, default=float(step == 1)))


def widened(step: int, stair: int, least: int) -> int:
    """Neurons in a block where rounding asks for `step` and time for `stair`: whole blocks of `least`."""
    return math.ceil(max(step, stair) / least) * least
