"""Integers that a module keeps in its attributes, by which its forward may size tensors.

An attribute counts channels where the walk saw it do so (`snnprune.graph`). When channels go, it is set to what is
left, and its path is remembered on the module, so that a file can hold it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .kinds import kind_of

_DEPTH = 4  # so far attributes of attributes are looked into
_MOST = 4096  # entries of a container; longer ones are data
_FOLLOWED = "_followed_numbers"  # attribute with the paths of those that were set
_OWN = frozenset({*nn.Module().__dict__, _FOLLOWED, "_cut_sizes", "training"})


def number_at(module: nn.Module, path: str) -> int | None:
    """The integer at a dotted path of attributes, keys and places (`unflattened_size.0`); None without one."""
    value: Any = module
    if path.partition(".")[0] in _OWN or "__" in path:  # PyTorch's, and Python's
        return None
    for part in path.split("."):
        value = _inside(value, part)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


def followed(module: nn.Module) -> dict[str, int]:
    """Paths of the integers that have been set because channels went, and what they are now."""
    found = {path: number_at(module, path) for path in module.__dict__.get(_FOLLOWED, ())}
    return {path: value for path, value in found.items() if value is not None}


def set_number_(module: nn.Module, path: str, value: int) -> None:
    """Set the integer at a path; containers on the way are copied, as other modules may hold them too."""
    first, _, rest = path.partition(".")
    new = _replaced(getattr(module, first, None), rest, value) if rest else value
    _put(module, first, new)
    paths = module.__dict__.get(_FOLLOWED, ())
    module.__dict__[_FOLLOWED] = tuple(dict.fromkeys((*paths, path)))


@contextlib.contextmanager
def exchanged(model: nn.Module, of: Callable[[nn.Module, str, int], int]) -> Iterator[None]:
    """Put other integers into the places of all modules' own, for the length of a `with` block.

    Every module gets containers of its own, so that it is seen through which one a number was read.

    Args:
        model: a private copy of a network.
        of: from a module, a path and its number to what stands there instead.
    """
    before: list[tuple[dict[str, Any], dict[str, Any]]] = []
    try:
        for module in model.modules():
            own, kind = module.__dict__, kind_of(module)
            if kind is not None:
                found = {n: of(module, n, own[n]) for n in kind.sizes if type(own.get(n)) is int}
            else:
                found = {}
                for name, value in {**_of_class(type(module)), **own}.items():
                    if name not in _OWN and not name.startswith("__"):
                        new = _wrapped(value, name, lambda path, n, m=module: of(m, path, n), _DEPTH)
                        if new is not value:
                            found[name] = new
            before.append((own, {name: own[name] for name in found if name in own}))
            for name in found.keys() - own.keys():
                before[-1][1][name] = _MISSING
            own.update(found)
        yield
    finally:
        for own, values in before:
            for name, value in values.items():
                if value is _MISSING:
                    own.pop(name, None)
                else:
                    own[name] = value


_MISSING = object()


def _of_class(cls: type) -> dict[str, Any]:
    """Integers and tuples that stand in a user's class for all its modules."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith("torch.") and base is not object:
            found.update({n: v for n, v in vars(base).items() if type(v) in (int, tuple)})
    return found


def _wrapped(value: Any, path: str, of: Callable[[str, int], int], depth: int) -> Any:
    """A value with its integers exchanged; itself where it holds none."""
    if type(value) is int:
        return of(path, value)
    if not depth or isinstance(value, (str, bytes, bool, Tensor, nn.Module, type)) or callable(value):
        return value
    entries = _entries(value)
    if entries is None:
        return value
    new = {key: _wrapped(v, f"{path}.{key}", of, depth - 1) for key, v in entries.items()}
    changed = {key: v for key, v in new.items() if v is not entries[key]}
    try:
        return _with(value, changed) if changed else value
    except Exception:  # a class with rules of its own about copies
        return value


def _entries(value: Any) -> dict[Any, Any] | None:
    """What a container or plain object holds, by key; None for anything else."""
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value)) if len(value) <= _MOST else None
    if isinstance(value, dict):
        good = len(value) <= _MOST and all(isinstance(k, str) and "." not in k for k in value)
        return dict(value) if good else None
    held = getattr(value, "__dict__", None)
    if not isinstance(held, dict) or type(value).__module__.split(".")[0] in ("torch", "builtins", "collections"):
        return None
    if any(isinstance(v, (Tensor, nn.Module)) for v in held.values()):
        return None  # a state that modules share, not a description
    return {k: v for k, v in held.items() if isinstance(k, str) and "." not in k}


def _with(value: Any, changed: dict[Any, Any]) -> Any:
    """A copy of a container or plain object with some entries exchanged."""
    if isinstance(value, tuple):
        parts = [changed.get(i, part) for i, part in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    new = copy.copy(value)
    if isinstance(value, (list, dict)):
        for key, part in changed.items():
            new[key] = part
    else:
        vars(new).update(changed)
    return new


def _inside(value: Any, part: str) -> Any:
    if isinstance(value, (tuple, list)):
        return value[int(part)] if part.isdecimal() and int(part) < len(value) else None
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, nn.Module):
        found = value.__dict__.get(part, _MISSING)
        return _of_class(type(value)).get(part) if found is _MISSING else found
    return getattr(value, "__dict__", {}).get(part)


def _replaced(value: Any, path: str, number: int) -> Any:
    first, _, rest = path.partition(".")
    new = _replaced(_inside(value, first), rest, number) if rest else number
    return _with(value, {int(first) if isinstance(value, (tuple, list)) else first: new})


def _put(module: nn.Module, name: str, value: Any) -> None:
    module.__dict__[name] = torch.Size(value) if isinstance(value, torch.Size) else value
