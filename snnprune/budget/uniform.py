"""Groups that are to keep the same share: which they are, and what widths and floors ask of all of them at once.

Groups that one pattern names form a **set**. Where they are equally wide they keep the same number of neurons;
where they are not, the same share, each rounded up to its own blocks. Which share that is the scores decide (see
`pooling`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import ConfigError
from ..graph import NeuronGroup, named_by, names_of
from .blocks import whole_blocks
from .widths import Bounds, Width, bounds_of

logger = logging.getLogger(__name__)
_OUTPUT = "it is an output of the model"
_NUDGE = 1e-9


def uniform_of(groups: Sequence[NeuronGroup], patterns: Sequence[str]) -> dict[str, str]:
    """The set that a group is in: group id -> the first pattern that names it, of prunable groups of channels.

    Args:
        groups: of the model, those that are kept whole included.
        patterns: shell patterns of module names, as for `keep`.

    Raises:
        ConfigError: a pattern names no group of channels that could lose some, or none but those that patterns
            before it name; or one that `keep` protects.
    """
    found: dict[str, str] = {}
    for pattern in dict.fromkeys(patterns):
        named = [g for g in groups if any(named_by(name, (pattern,)) for name in names_of(g))]
        named = [g for g in named if g.kind == "channel"]
        if not named:
            like = next((f", such as {g.id!r}" for g in groups if g.kind == "channel"), "")
            raise ConfigError(
                f"uniform {pattern!r} names no group of channels{like}. `snnprune inspect` lists them; single "
                "inputs have no width."
            )
        new = [group for group in named if group.id not in found]
        if not new:
            raise ConfigError(
                f"uniform {pattern!r} names only groups that {found[named[0].id]!r} names before it, such as "
                f"{named[0].id}. Leave it out, or put it in front."
            )
        whole = [group for group in new if not group.prunable and group.reason != _OUTPUT]
        asked = next((g for g in whole if g.reason is not None and g.reason.startswith("kept by request")), None)
        if asked is not None:
            raise ConfigError(
                f"uniform {pattern!r} contradicts keep: {asked.id} is {asked.reason}, so that no other could lose "
                "anything. Leave one of them out."
            )
        loose = [group for group in new if group.prunable]
        if not loose:
            raise ConfigError(f"uniform {pattern!r} names only what is kept whole, such as {new[0]}.")
        if whole:
            logger.warning("uniform %r: %s, so it stays wider than the others may become", pattern, whole[0])
        found |= dict.fromkeys((group.id for group in loose), pattern)
    return found


@dataclass(frozen=True, slots=True)
class Demand:
    """How many neurons of a group stay at least and at most, and how many go together.

    Attributes:
        size: its neurons.
        least: that its floor keeps, in whole blocks.
        bounds: what widths allow.
        step: neurons in a block.
    """

    size: int
    least: int
    bounds: Bounds
    step: int

    @property
    def low(self) -> int:
        """Neurons that stay."""
        return min(max(self.least, self.bounds.low), self.bounds.high)


def together(demands: Sequence[Demand]) -> list[Demand]:
    """What is asked of any group of a set, asked of all of them, as shares of each.

    Args:
        demands: of the groups of one set.

    Returns:
        Demands that are equal for groups of equal size.
    """
    floor = max(one.least / one.size for one in demands)
    low = max(one.bounds.low / one.size for one in demands)
    high = min(one.bounds.high / one.size for one in demands)
    steps: dict[int, int] = {}
    for one in demands:
        steps[one.size] = max(steps.get(one.size, 1), one.step)
    found = []
    for one in demands:
        size, step = one.size, steps[one.size]
        most = max(1, math.floor(high * size + _NUDGE))
        bounds = Bounds(min(math.ceil(low * size - _NUDGE), most), most)
        least = whole_blocks(math.ceil(floor * size - _NUDGE), step, size)
        found.append(replace(one, least=least, bounds=bounds, step=step))
    return found


def check_uniform(
    groups: Mapping[str, NeuronGroup], widths: Mapping[str, Sequence[Width]], uniform: Mapping[str, str]
) -> None:
    """Refuse widths of groups of a set that leave them no common share.

    Args:
        groups: the prunable ones by id.
        widths: group id -> the widths that name it.
        uniform: group id -> its set.

    Raises:
        ConfigError: one group has to keep a larger share than another may.
    """
    for pattern in dict.fromkeys(uniform.values()):
        members = [name for name, other in uniform.items() if other == pattern and widths.get(name)]
        bounds = {name: bounds_of(groups[name], widths[name], 1) for name in members}
        if not bounds:
            continue
        low = max(members, key=lambda name: bounds[name].low / groups[name].size)
        high = min(members, key=lambda name: bounds[name].high / groups[name].size)
        least, most = bounds[low].low, bounds[high].high
        # what widths ask of groups of other sizes alike may differ by what one neuron is
        one = 0 if groups[low].size == groups[high].size else 1 / min(groups[low].size, groups[high].size)
        if least / groups[low].size > most / groups[high].size + one:
            low_text = next(w for w in widths[low] if w.sign != "<=")
            high_text = next(w for w in widths[high] if w.sign != ">=")
            raise ConfigError(
                f"widths '{low_text}' and '{high_text}' contradict uniform {pattern!r}: of {low} at least {least} "
                f"of {groups[low].size} neurons would stay, of {high} at most {most} of {groups[high].size}. "
                "Leave one of them out."
            )
