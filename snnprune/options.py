"""Options checked by type: a table of what values may be, for fields of a dataclass and for arguments.

A type such as `Share` says both: what a reader sees (`float`) and what a value must be (a number in [0, 1]). Whole
numbers and fractions of NumPy are taken like Python's own, and stored as those.

A dataclass of options says everything about each of them in one place, its field: the type, the default, and by
`option` what it means. Checks, the docstring, the command line's help and the guide's table are made from that.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import os
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import MISSING, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from .errors import ConfigError, SnnPruneError
from .shown import brief_repr

T = TypeVar("T")


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

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = (value,)
        if not isinstance(value, (Sequence, Set, Iterator)):
            raise _Misfit
        found = tuple(value)
        if not all(isinstance(name, str) and name for name in found):
            raise _Misfit
        return tuple(sorted(found)) if isinstance(value, Set) else found  # sets differ between processes


@dataclass(frozen=True, slots=True)
class Text:
    """A text of characters that can be shown, and not of spaces alone.

    Attributes:
        what: in words.
        longest: characters at most.
    """

    what: str
    longest: int

    def __call__(self, value: object) -> str:
        """The text as one of Python's own."""
        if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > self.longest:
            raise _Misfit
        return str(value)


Count = Annotated[int, Number("a whole number of at least 1", low=1, whole=True)]
CountOrZero = Annotated[int, Number("a whole number of at least 0", low=0, whole=True)]
Finite = Annotated[float, Number("a finite number")]
NotNegative = Annotated[float, Number("a number of at least 0", low=0)]
Positive = Annotated[float, Number("a positive number", low=0, above=True)]
Share = Annotated[float, Number("a number in [0, 1]", low=0, high=1)]
Part = Annotated[float, Number("a number between 0 and 1", low=0, high=1, above=True, below=True)]
Seed = Annotated[int, Number("a whole number from 0 to 2^64 - 1", low=0, high=2**64 - 1, whole=True)]
Names = Annotated[tuple[str, ...], _Names("a pattern of module names, or a sequence of them")]
Paths = Annotated[tuple[str, ...], _Names("a path of an output, or a sequence of them")]
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
        raise error(f"{name}={shown} must be {wanted(kind)}.") from None


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
        raise error(f"{name}={brief_repr(values)} must be a sequence, each part {wanted(kind)}.")
    return [checked(f"{name}[{at}]", value, kind, error) for at, value in enumerate(found)]


def check_fields(instance: Any, within: str = "") -> None:
    """Check every field of a (frozen) dataclass whose type says what it must be, and put the plain form in.

    Args:
        instance: of the dataclass, as it was filled in.
        within: what errors put before a field's name, such as `search.`.

    Raises:
        ConfigError: a value is something else.
    """
    for name, kind in _kinds(type(instance)).items():
        object.__setattr__(instance, name, checked(f"{within}{name}", getattr(instance, name), kind))


def option(default: Any, means: str, **more: Any) -> Any:
    """A field of a dataclass of options.

    Args:
        default: its value where none is given; of a dict or a group of options, the function that makes it.
        means: what it does, in sentences. The first one has to be enough for the help of the command line.
        more: what `dataclasses.field` takes besides.
    """
    given = {"default_factory": default} if callable(default) else {"default": default}
    return dataclasses.field(**given, metadata={"means": means}, **more)


@dataclass(frozen=True, slots=True)
class About:
    """What a reader wants to know of an option.

    Attributes:
        name: of the field.
        kind: what its value must be, in words; empty where its type does not say so.
        default: its value where none is given.
        means: what it does.
    """

    name: str
    kind: str
    default: Any
    means: str

    @property
    def help(self) -> str:
        """The first sentence of what it does, without its full stop, for the command line."""
        return self.means.partition(". ")[0].rstrip(".")


def about(cls: type) -> dict[str, About]:
    """All options of a dataclass, by name."""
    kinds, found = _kinds(cls), {}
    for field in dataclasses.fields(cls):
        default = field.default if field.default is not MISSING else field.default_factory()  # type: ignore[misc]
        kind = wanted(kinds[field.name]) if field.name in kinds else ""
        found[field.name] = About(field.name, kind, default, field.metadata.get("means", ""))
    return found


def described(cls: type[T]) -> type[T]:
    """Put the options of a dataclass into its docstring, as a section of attributes before that of the errors."""
    lines = []
    for one in about(cls).values():
        said = f" ({one.kind}; by default {one.default!r})" if one.kind else ""
        lines.append(f"    {one.name}: {one.means.rstrip('.')}{said}.")
    text, errors, rest = inspect.cleandoc(cls.__doc__ or "").partition("\nRaises:")
    cls.__doc__ = "\n".join([f"{text.rstrip()}\n\nAttributes:", *lines, "", f"{errors}{rest}".lstrip("\n")])
    return cls


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


def wanted(kind: Any) -> str:
    """What a value of a type must be, in words."""
    words = []
    for part in _parts(kind):
        if get_origin(part) is Annotated:
            words.append(get_args(part)[1].what)
        elif get_origin(part) is Literal:
            words += [repr(choice) for choice in get_args(part)]
        else:
            words.append("True or False" if part is bool else "None")
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
