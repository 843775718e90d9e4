"""Digests of what a user hands over as code: functions with what is bound to them, and objects that are called."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Mapping, Set
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (
    bool, int, float, complex, str, bytes, type(None), np.generic, Enum, PurePath, range, slice, torch.dtype,
    torch.device,
)  # fmt: skip
_DEPTH = 5  # of what lies in each other
_MOST = 1_000_000  # values of a tensor that are looked at


def code_of(function: Any) -> str | None:
    """A digest of what computes it, with the arguments, defaults and outer variables that are bound to it.

    Of objects that hold what no digest can be made of, or change while they work, only the class counts.

    Args:
        function: a function, a `functools.partial`, or an object that is called.

    Returns:
        Of its file where that was named, else of its own source; None if unknown.
    """
    return _code_of(function, _DEPTH)


def digest_of(function: Any) -> str | None:
    """A digest of what computes it and of the values that it was made with.

    Args:
        function: as of `code_of`; of a method, the object that it belongs to counts.

    Returns:
        None of a function whose code cannot be read.
    """
    code = code_of(function)
    owner = getattr(function, "__self__", function)
    if inspect.isroutine(owner) or isinstance(owner, (functools.partial, type, ModuleType)):
        return code
    return hashlib.sha256(f"{code} {state_of(owner)}".encode()).hexdigest()


def _code_of(function: Any, depth: int) -> str | None:
    inner = function.func if isinstance(function, functools.partial) else function
    code: Any = inner if inspect.isroutine(inner) else type(inner)
    try:
        if str(getattr(code, "__module__", "")).startswith("_snnprune_user_"):
            text = Path(inspect.getfile(code)).read_bytes()
        else:
            text = inspect.getsource(code).encode()
    except (OSError, TypeError):
        return None
    found = hashlib.sha256(text)
    for what in _bound(function):
        found.update(_described(what, depth).encode())
    return found.hexdigest()


def _bound(function: Any) -> list[Any]:
    """What a function was given before it is called, where it was given anything."""
    if isinstance(function, functools.partial):
        return [("partial", function.args, function.keywords), *_bound(function.func)]
    found = []
    defaults = getattr(function, "__defaults__", None), getattr(function, "__kwdefaults__", None)
    if any(defaults):
        found.append(defaults)
    for cell in getattr(function, "__closure__", None) or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not yet filled
            found.append(None)
    return found


def state_of(value: Any) -> str:
    """A digest of an object's attributes, but for those of its own use (`_name`).

    Args:
        value: anything; without attributes all are alike.
    """
    return hashlib.sha256(_described(_public(value), _DEPTH).encode()).hexdigest()


def _public(value: Any) -> dict[str, Any]:
    """Attributes, and what a module without parameters keeps apart from them: its buffers and parts."""
    own = {k: v for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("_")}
    if isinstance(value, nn.Module):
        own.pop("training", None)
        if next(value.parameters(), None) is None:
            own |= {**value._buffers, **value._modules}
    return own


def _described(value: Any, depth: int) -> str:
    """The same text for equal values in every process; of objects of unknown kinds their class."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if depth == 0:
        return "..."
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        items = [f"{_described(k, depth - 1)}: {_described(v, depth - 1)}" for k, v in value.items()]
        return f"{{{', '.join(sorted(items))}}}"
    if isinstance(value, Set):
        return f"set({', '.join(sorted(_described(item, depth - 1) for item in value))})"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(_described(item, depth - 1) for item in value)})"
    if isinstance(value, Tensor):
        part = value.detach().flatten()[:_MOST].cpu()
        return (
            f"tensor {tuple(value.shape)} {_bytes((part.float() if part.is_floating_point() else part).numpy())}"
        )
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"array {value.shape} {_bytes(value.ravel()[:_MOST])}"
    if inspect.isroutine(value) or isinstance(value, functools.partial):
        name = getattr(value, "__qualname__", "")
        return f"{name} {_code_of(value, depth - 1)}"
    if isinstance(value, nn.Module) and next(value.parameters(), None) is None:  # a loss, such as cross-entropy
        return f"{type(value).__qualname__} {_described(_public(value), depth - 1)}"
    if is_dataclass(value):
        return f"{type(value).__qualname__} {_described(vars(value), depth - 1)}"
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _bytes(values: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
