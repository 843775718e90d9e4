"""Options checked by type: a table of what values may be, for fields of a dataclass and for arguments.

A type such as `Share` says both: what a reader sees (`float`) and what a value must be (a number in [0, 1]). Whole
numbers and fractions of NumPy are taken like Python's own, and stored as those.
"""

from __future__ import annotations

import functools
import math
import os
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from .errors import ConfigError, SnnPruneError
from .shown import brief_repr


class _Misfit(Exception):
    """A value is not what it must be."""


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number within bounds; True and False are none.

    Attributes:
        what: in words.
        low: least value.
        high: largest value.
        above: `low` itself is too little.
        below: `high` itself is too much.
        whole: whole numbers alone.
    """

    what: str
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def __call__(self, value: object) -> int | float:
        """The value as a number of Python's own."""
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            raise _Misfit
        number = int(value) if isinstance(value, Integral) else float(value)
        try:
            fits = math.isfinite(number) and self.low <= number <= self.high
        except OverflowError:  # an int beyond any float
            fits = False
        if not fits or (self.above and number == self.low) or (self.below and number == self.high):
            raise _Misfit
        return number


class _Place:
    """A path, as text or as an object that is one."""

    what = "a path"

    def __call__(self, value: object) -> Path:
        path = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(path, str):
            raise _Misfit
        return Path(path)


class _Names:
    """Shell patterns: one, or several in a sequence."""

    what = "a pattern of module names, or a sequence of them"

    def __call__(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = (value,)
        if not isinstance(value, (Sequence, Set, Iterator)):
            raise _Misfit
        found = tuple(value)
        if not all(isinstance(name, str) and name for name in found):
            raise _Misfit
        return tuple(sorted(found)) if isinstance(value, Set) else found  # sets differ between processes


Count = Annotated[int, Number("a whole number of at least 1", low=1, whole=True)]
CountOrZero = Annotated[int, Number("a whole number of at least 0", low=0, whole=True)]
Finite = Annotated[float, Number("a finite number")]
NotNegative = Annotated[float, Number("a number of at least 0", low=0)]
Positive = Annotated[float, Number("a positive number", low=0, above=True)]
Share = Annotated[float, Number("a number in [0, 1]", low=0, high=1)]
Part = Annotated[float, Number("a number between 0 and 1", low=0, high=1, above=True, below=True)]
Seed = Annotated[int, Number("a whole number from 0 to 2^64 - 1", low=0, high=2**64 - 1, whole=True)]
Names = Annotated[tuple[str, ...], _Names()]
Place = Annotated[Path, _Place()]


def checked(name: str, value: Any, kind: Any, error: type[SnnPruneError] = ConfigError) -> Any:
    """A value in its plain form, after a check of its type and bounds.

    Args:
        name: of the option.
        value: what was given.
        kind: bool, a Literal, one of the types of this module, or a union of them, also with None.
        error: what is raised.

    Raises:
        SnnPruneError: of that kind: it is something else; the message has name, value and what is wanted.
    """
    try:
        return _fit(value, kind)
    except _Misfit:
        shown = brief_repr(value)
        if get_origin(kind) is Literal:
            raise error(f"{name}={shown} is unknown; use one of {', '.join(get_args(kind))}.") from None
        raise error(f"{name}={shown} must be {_wanted(kind)}.") from None


def path_of(name: str, value: object, error: type[SnnPruneError] = ConfigError) -> Path:
    """A path, checked as `checked` checks it."""
    return checked(name, value, Annotated[Path, _Place()], error)


def each(name: str, values: Any, kind: Any, error: type[SnnPruneError] = ConfigError) -> list[Any]:
    """Several values, each in its plain form, as `checked` checks one.

    Raises:
        SnnPruneError: of that kind: there is no sequence of them, or one of them is something else.
    """
    try:
        found = None if isinstance(values, (str, bytes, Mapping)) else list(values)
    except TypeError:
        found = None
    if found is None:
        raise error(f"{name}={brief_repr(values)} must be a sequence, each part {_wanted(kind)}.")
    return [checked(f"{name}[{at}]", value, kind, error) for at, value in enumerate(found)]


def check_fields(instance: Any) -> None:
    """Check every field of a (frozen) dataclass whose type says what it must be, and put the plain form in."""
    for name, kind in _kinds(type(instance)).items():
        object.__setattr__(instance, name, checked(name, getattr(instance, name), kind))


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {name: kind for name, kind in hints.items() if _says(kind)}


def _says(kind: Any) -> bool:
    """Whether a type is one that values are checked against."""
    parts = _parts(kind)
    return all(part in (bool, type(None)) or get_origin(part) in (Annotated, Literal) for part in parts)


def _parts(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _fit(value: Any, kind: Any) -> Any:
    for part in _parts(kind):
        if get_origin(part) is Annotated:
            try:
                return get_args(part)[1](value)
            except _Misfit:
                continue
        if part is bool and isinstance(value, (bool, np.bool_)):
            return bool(value)
        if part is type(None) and value is None:
            return None
        if get_origin(part) is Literal and isinstance(value, str) and value in get_args(part):
            return str(value)
    raise _Misfit


def _wanted(kind: Any) -> str:
    words = []
    for part in _parts(kind):
        if get_origin(part) is Annotated:
            words.append(get_args(part)[1].what)
        elif get_origin(part) is Literal:
            words += [repr(choice) for choice in get_args(part)]
        else:
            words.append("True or False" if part is bool else "None")
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
