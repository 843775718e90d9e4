"""Mean and deviation of pixels, as a user gives them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

from torch import Tensor

from ..errors import DataError
from ..shown import brief_repr

_HUGE = 2**1000  # a whole number from a file may be beyond any fraction


def numbers_of(what: str, given: Sequence[float] | None) -> tuple[float, ...] | None:
    """Constants as they may be: pixels in [0, 1] have their mean there, and no larger deviation."""
    if given is None:
        return None
    plain: Any = given.tolist() if isinstance(given, Tensor) else given
    found: list[Any] = list(plain) if isinstance(plain, Iterable) else [None]
    if not all(map(_is_number, found)):
        raise DataError(f"--{what} {brief_repr(given)} is no list of numbers, one a channel.")
    values = tuple(math.inf if abs(value) > _HUGE else float(value) for value in found)
    if not all(math.isfinite(value) for value in values):
        raise DataError(f"--{what} {list(values)} must be finite numbers.")
    if what == "std" and not all(value > 0 for value in values):
        raise DataError(f"--std {list(values)} must be positive.")
    if not all(0 <= value <= 1 for value in values):
        raise DataError(
            f"--{what} {list(values)} must lie between 0 and 1, as pixels do here; divide values for pixels up to "
            "255 by 255."
        )
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def constants_of(
    what: str, given: tuple[float, ...] | None, default: tuple[float, ...], channels: int
) -> tuple[float, ...]:
    """Those given or, without, those of the data set; one for every channel."""
    values = default if given is None else given
    if len(values) == 1:
        values = values * channels
    if len(values) != channels:
        raise DataError(
            f"--{what} has {len(values)} values for images of {channels} channel{'s' * (channels != 1)}."
        )
    return values


def check_pair(given: dict[str, tuple[float, ...] | None]) -> None:
    """A mean of the user's own with a deviation of the data set's is what no model was trained with."""
    absent = [what for what, values in given.items() if values is None]
    if len(absent) == 1:
        other = "std" if absent == ["mean"] else "mean"
        raise DataError(
            f"--{other} {list(given[other] or ())} was given without --{absent[0]}. Give both, as in training, "
            "or none."
        )
