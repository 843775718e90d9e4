"""Options that several commands take, as one object: every one of them is an option of each command."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints


def gathered(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of a dataclass type are that class's fields, each an option of its own.

    The function is called with the objects. What reads its signature, as typer does, sees the options.

    Args:
        command: the function.
    """
    hints = get_type_hints(command, include_extras=True)
    taken: dict[str, Any] = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    parameters = list(_expanded(command, hints, taken))

    @functools.wraps(command)
    def call(**given: Any) -> None:
        for name, kind in taken.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in dataclasses.fields(kind)})
        command(**given)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    return call


def _expanded(
    command: Callable[..., None], hints: dict[str, Any], taken: dict[str, Any]
) -> Iterator[inspect.Parameter]:
    for name, one in inspect.signature(command).parameters.items():
        if name not in taken:
            yield one.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        own = get_type_hints(taken[name], include_extras=True)
        for field in dataclasses.fields(taken[name]):
            yield inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=own[field.name]
            )
