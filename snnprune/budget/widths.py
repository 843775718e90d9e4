"""Widths that a user sets by layer: what a text says, and what that is in neurons of a group."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any

from ..errors import ConfigError
from ..graph import NeuronGroup, named_by, names_of
from ..shown import brief_repr
from .blocks import rounding_step

logger = logging.getLogger(__name__)
_FORM = re.compile(r"\s*([^=<>\s][^=<>]*?)\s*(<=|>=|=)\s*([0-9.eE+-]{1,40})\s*")
_SIGNED = re.compile(r"\s*(<=|>=|=)")
_WANTED = "a share in (0, 1], such as 0.75 or 1.0, or a number of neurons, such as 48"


class _Texts:
    """What widths look like in their plain form."""

    what = "PATTERN=WIDTH, PATTERN<=WIDTH or PATTERN>=WIDTH, a sequence of such, or a dict pattern -> width"

    def __call__(self, value: Any) -> tuple[str, ...]:
        return read_widths(value)


Widths = Annotated[tuple[str, ...], _Texts()]


@dataclass(frozen=True, slots=True)
class Width:
    """What is asked of the groups that a pattern names.

    Attributes:
        pattern: shell pattern of module names.
        sign: `=`: exactly; `<=`: at most; `>=`: at least.
        value: share of a group's neurons in (0, 1] as a float, or a number of neurons of at least 1 as an int.
    """

    pattern: str
    sign: str
    value: int | float

    def __str__(self) -> str:
        return f"{self.pattern}{self.sign}{self.value!r}"


def read_width(text: str) -> Width:
    """`layer1.*=0.75`, `layer1.*<=48`, `layer1.*>=0.5`.

    Raises:
        ConfigError: it is none.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"width {brief_repr(text)} is not of the form PATTERN=WIDTH, PATTERN<=WIDTH or PATTERN>=WIDTH, such "
            "as 'layer1.*=0.75'."
        )
    pattern, sign, number = found.groups()
    try:
        value = int(number) if number.isdigit() else float(number)
    except ValueError:
        value = math.nan
    if not (value >= 1 if isinstance(value, int) else 0 < value <= 1):
        raise ConfigError(f"width {brief_repr(text)}: {number} is no width; give {_WANTED}.")
    return Width(pattern, sign, value)


def read_widths(given: object) -> tuple[str, ...]:
    """Widths of any form as texts, after a check.

    Args:
        given: a text, a sequence of texts, or a mapping from patterns to numbers or to texts such as `<=0.5`.

    Raises:
        ConfigError: it is none of these, or one of them is no width.
    """
    if isinstance(given, Mapping):
        texts = [_text(pattern, value) for pattern, value in given.items()]
    elif isinstance(given, str):
        texts = [given]
    elif isinstance(given, Sequence):
        texts = list(given)
    else:
        texts = [None]
    found = [text for text in texts if isinstance(text, str)]
    if len(found) < len(texts):
        raise ConfigError(f"width={brief_repr(given)} must be {_Texts.what}.")
    return tuple(str(read_width(text)) for text in found)


def _text(pattern: object, value: object) -> str | None:
    """A pattern and its width as one text; None where they are none."""
    if isinstance(value, str):
        value = value if _SIGNED.match(value) else f"={value}"
    elif isinstance(value, Integral) and not isinstance(value, bool):
        value = f"={int(value)}"
    elif isinstance(value, Real) and not isinstance(value, bool):
        value = f"={float(value)!r}"
    return f"{pattern}{value}" if isinstance(pattern, str) and isinstance(value, str) else None


def widths_of(groups: Sequence[NeuronGroup], texts: Sequence[str]) -> dict[str, tuple[Width, ...]]:
    """Which widths name which group: prunable ones of channels alone, for a layer's width is that of its outputs.

    Args:
        groups: of the model, those that are kept whole included.
        texts: in the form of `read_widths`.

    Raises:
        ConfigError: a pattern names no group of channels, or only such as are kept whole; one that `keep` protects
            is to lose neurons; a group is narrower than is asked; or widths of one group contradict each other.
    """
    found: dict[str, tuple[Width, ...]] = {}
    for width in map(read_width, texts):
        named = [g for g in groups if any(named_by(name, (width.pattern,)) for name in names_of(g))]
        named = [g for g in named if g.kind == "channel"]
        if not named:
            like = next((f", such as {g.id!r}" for g in groups if g.kind == "channel"), "")
            raise ConfigError(
                f"width '{width}': {width.pattern!r} names no group of channels{like}. `snnprune inspect` lists "
                "them; single inputs have no width."
            )
        for group in named:
            _check(group, width)
            if group.prunable:
                found[group.id] = (*found.get(group.id, ()), width)
        whole = [group for group in named if not group.prunable]
        if len(whole) == len(named) and _cuts(whole[0], width):
            raise ConfigError(f"width '{width}' names only what is kept whole, such as {whole[0]}.")
        if whole:
            logger.info("width '%s' has no meaning for %d groups that are kept whole", width, len(whole))
    for group in groups:
        if group.id in found:
            bounds_of(group, found[group.id], 1)
    return found


def _cuts(group: NeuronGroup, width: Width) -> bool:
    """Whether a width takes neurons from a whole group."""
    return width.sign != ">=" and _count(width.value, group.size, math.floor) < group.size


def _check(group: NeuronGroup, width: Width) -> None:
    """Refuse a width that this group cannot have."""
    if isinstance(width.value, int) and width.sign != "<=" and width.value > group.size:
        raise ConfigError(
            f"width '{width}': {group.id} has {group.size} neurons, fewer than {width.value}. Give a share, or a "
            "pattern that does not name it."
        )
    if group.reason is not None and group.reason.startswith("kept by request") and _cuts(group, width):
        raise ConfigError(
            f"width '{width}' contradicts keep: {group.id} is {group.reason}. Leave one of them out."
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many neurons of a group may stay.

    Attributes:
        low: at least; 0 where nothing is asked.
        high: at most.
    """

    low: int
    high: int


def bounds_of(group: NeuronGroup, widths: Sequence[Width], round_to: int) -> Bounds:
    """What widths are in neurons of a group.

    Numbers are taken as they are. Shares become whole blocks of what rounding asks for, in the nearest, the next
    lower or the next higher number, where that leaves one, and where several widths allow it.

    Args:
        group: the group.
        widths: those that name it.
        round_to: multiples of so many channels.

    Raises:
        ConfigError: widths contradict each other.
    """
    low, high, lowest, highest = 0, group.size, None, None
    for step in dict.fromkeys((rounding_step(group, round_to), 1)):
        low, high, lowest, highest = 0, group.size, None, None
        for width in widths:
            if width.sign != "<=":
                count = _blocks(width, group.size, step, up=True)
                low, lowest = (count, width) if count > low else (low, lowest)
            if width.sign != ">=":
                count = _blocks(width, group.size, step, up=False)
                high, highest = (count, width) if count < high else (high, highest)
        if low <= high:
            return Bounds(low, high)
    raise ConfigError(
        f"widths '{lowest}' and '{highest}' contradict each other: of the {group.size} neurons of {group.id} at "
        f"least {low} and at most {high} would stay. Leave one of them out, or let their patterns name other "
        "groups."
    )


def _blocks(width: Width, size: int, step: int, *, up: bool) -> int:
    """So many neurons of a group of `size`, in blocks of `step` where it is a share."""
    if isinstance(width.value, int):
        return min(size, width.value)
    if width.sign == "=":
        nearest = math.floor(width.value * size / step + 0.5 + 1e-9) * step
        return min(size, nearest) if nearest else _count(width.value + 0.5 / size, size, math.floor)
    count = _count(width.value, size, math.ceil if up else math.floor)
    if up:
        return min(size, math.ceil(count / step) * step)
    return count if count == size else count // step * step or count


def _count(value: float, size: int, to_whole: Any) -> int:
    """A width as so many of `size` neurons, at least one."""
    if isinstance(value, int):
        return min(size, value)
    nudge = -1e-9 if to_whole is math.ceil else 1e-9
    return min(size, max(1, int(to_whole(value * size + nudge))))


def part_floor(group: NeuronGroup, parts: Sequence[Sized], high: int, floor: float) -> float:
    """The least share of every part of a group that may stay where only `high` neurons do.

    Args:
        group: the group.
        parts: neurons of every layer that holds only some of them.
        high: neurons that may stay.
        floor: of the model.

    Raises:
        ConfigError: there are more such layers than neurons that may stay, and each needs one.
    """
    for share in (floor, min(floor, high / group.size), min(floor, 0.5 * high / group.size), 0.0):
        if sum(max(1, math.ceil(share * len(part) - 1e-9)) for part in parts) <= high:
            return share
    raise ConfigError(
        f"width {high} of {group.id} is too little: {len(parts)} of its layers hold only some of its neurons, and "
        "each needs one."
    )
