"""The network's own numbers that have followed its channels, in a structure file."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import StructureError
from ..layers.code import set_sizes_, sizes_of
from ..layers.numbers import followed, number_at, set_number_
from ..shown import brief_repr

_LARGEST = 2**31


def numbers_of(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Module -> `attributes` (path -> number) and `calls` (call -> position -> number) that have followed."""
    found: dict[str, dict[str, Any]] = {}
    for name, module in model.named_modules():
        attributes, calls = followed(module), sizes_of(module)
        if attributes:
            found.setdefault(name, {})["attributes"] = attributes
        if calls:
            table = {call: {str(at): n for at, n in sizes.items()} for call, sizes in calls.items()}
            found.setdefault(name, {})["calls"] = table
    return found


def set_numbers_(model: nn.Module, numbers: Any) -> None:
    """Set a fresh model's own numbers to those of a file, in place.

    Raises:
        StructureError: the table is malformed, or names what the model does not have.
    """
    modules = dict(model.named_modules())
    if not isinstance(numbers, dict):
        raise StructureError(f"the table of numbers in the file is malformed: {brief_repr(numbers)}.")
    for name, entry in numbers.items():
        module = modules.get(name)
        if module is None or not isinstance(entry, dict) or not set(entry) <= {"attributes", "calls"}:
            raise StructureError(f"the file holds numbers of {name[:100]!r}, which is no module of the model.")
        for path, number in _table(entry.get("attributes", {}), name).items():
            before = number_at(module, path)
            if before is None or not _whole(number) or number > before:
                have = "none" if before is None else str(before)
                raise StructureError(
                    f"the attribute {path[:100]!r} of {name} is {brief_repr(number)} in the file, and {have} in "
                    "the model. Give the architecture that was pruned."
                )
            set_number_(module, path, number)
        calls = {call: _sizes(sizes, name) for call, sizes in _table(entry.get("calls", {}), name).items()}
        if calls:
            set_sizes_(module, calls)


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise StructureError(f"the numbers of {name} in the file are malformed: {brief_repr(value)}.")
    return value


def _sizes(value: Any, name: str) -> dict[int, int]:
    """Sizes of a call by position."""
    table = _table(value, name)
    if not all(at.isdecimal() and len(at) < 4 and (n == -1 or _whole(n)) for at, n in table.items()):
        raise StructureError(f"the numbers of {name} in the file are malformed: {brief_repr(value)}.")
    return {int(at): n for at, n in table.items()}


def _whole(number: Any) -> bool:
    return type(number) is int and 0 < number < _LARGEST
