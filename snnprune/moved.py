"""Options that have moved into a group: for a while their old names still work, and say where they are now."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .errors import ConfigError
from .shown import brief_repr

T = TypeVar("T")


def checks_names(cls: type[T]) -> type[T]:
    """Let a dataclass of options refuse names that are none of its options, with those that are like them."""
    build: Any = cls.__init__

    @functools.wraps(build)
    def __init__(self: Any, *args: Any, **given: Any) -> None:
        _refuse_unknown(cls, given, _ways(cls), {})
        build(self, *args, **given)

    cls.__init__ = __init__
    return cls


def moved(
    groups: Mapping[str, type], table: Mapping[str, tuple[str, str]], *, until: str
) -> Callable[[type[T]], type[T]]:
    """Let a dataclass of options know those that have moved into a group by their old names too, with a warning.

    `Options(hold=4)`, `dataclasses.replace(options, hold=4)` and `options.hold` mean the option in its group. A
    group may also be given as a mapping of its options, the form in which `to_dict` gives it. A name that is no
    option is refused.

    Args:
        groups: name of a field -> the dataclass that its value is of.
        table: old name -> (field of the group, name in the group). An old name may be that of the group's field
            itself, where no value of the option could be taken for a group.
        until: the release in which the old names go.

    Returns:
        A decorator for the dataclass.
    """

    def decorate(cls: type[T]) -> type[T]:
        build: Any = cls.__init__

        @functools.wraps(build)
        def __init__(self: Any, *args: Any, **given: Any) -> None:
            build(self, *args, **in_groups(cls, given, groups, table, until))

        def __getattr__(self: Any, name: str) -> Any:
            if name not in table or name in groups:
                raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}")
            group, new = table[name]
            _warn(cls, f".{name} has moved: read {cls.__name__}.{group}.{new}", until)
            return getattr(getattr(self, group), new)

        cls.__init__ = __init__
        cls.__getattr__ = __getattr__  # type: ignore[attr-defined]
        return cls

    return decorate


def in_groups(
    cls: type,
    given: Mapping[str, Any],
    groups: Mapping[str, type],
    table: Mapping[str, tuple[str, str]],
    until: str,
    base: Any = None,
) -> dict[str, Any]:
    """Arguments of a dataclass with every option in its group.

    Args:
        cls: the dataclass.
        given: its arguments, under new and old names.
        groups: as for `moved`.
        table: as for `moved`.
        until: as for `moved`.
        base: an object whose groups are the ones to change; without it the defaults are.

    Raises:
        ConfigError: a name is no option, or an old name leaves open what becomes of its group.
    """
    inside = {n: way for group, kind in groups.items() for n, way in _ways(kind, group).items()}
    old = {name: inside[new] for name, (_, new) in table.items()}
    _refuse_unknown(cls, given, {**old, **_ways(cls)}, inside)
    found, changes = dict(given), {group: {} for group in groups}
    for name, value in given.items():
        if name in groups and isinstance(value, Mapping):
            found[name] = (
                groups[name](**value) if base is None else dataclasses.replace(getattr(base, name), **value)
            )
        elif name in table and not (name in groups and isinstance(value, groups[name])):
            group, new = table[name]
            changes[group][new] = found.pop(name)
            _warn(cls, f"({name}=...) has moved: write {old[name]}", until)
            others = [isinstance(found.get(g), kind) for g, kind in groups.items()]
            if name in groups and base is None and any(others):
                # So does dataclasses.replace(), which leaves out the group whose name it was given.
                raise ConfigError(
                    f"{name}={brief_repr(value)} is the old way to write {old[name]}, and does not say what "
                    f"becomes of the other options of that group. Write {name}=dataclasses.replace(config.{name}, "
                    f"{new}={brief_repr(value)})."
                )
    for group, values in changes.items():
        if values:
            before = groups[group]() if base is None else getattr(base, group)
            found[group] = dataclasses.replace(found.get(group, before), **values)
    return found


def _ways(cls: type, group: str = "") -> dict[str, str]:
    """How each option is written, by its name; with the field around it, if the dataclass is a group."""
    ways = {f.name: f"{f.name}=..." for f in dataclasses.fields(cls) if f.init}
    return {name: f"{group}={cls.__name__}({way})" for name, way in ways.items()} if group else ways


def _refuse_unknown(
    cls: type, given: Mapping[str, Any], taken: Mapping[str, str], more: Mapping[str, str]
) -> None:
    """Refuse a name that is not among those taken; what is said of names like it may be among `more` too."""
    ways = {**more, **taken}
    for name in given:
        if name not in taken:
            near = [ways[n] for n in ([name] if name in ways else difflib.get_close_matches(name, ways, n=3))]
            remedy = f"Did you mean {' or '.join(near)}?" if near else f"help({cls.__name__}) lists them."
            raise ConfigError(f"{brief_repr(name)} is no option of {cls.__name__}. {remedy}")


def _warn(cls: type, text: str, until: str) -> None:
    """Warn at the line of the caller, past the modules that stand between it and the option."""
    between = {__name__, "dataclasses", cls.__module__}
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__") in between:
        level, frame = level + 1, frame.f_back
    warnings.warn(f"{cls.__name__}{text}. The old way goes in {until}.", DeprecationWarning, stacklevel=level)
