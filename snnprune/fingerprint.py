"""Digests of what a user hands over as code: functions with what is bound to them, and objects that are called."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Mapping, Set
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path, PurePath
from types import CodeType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (
    bool, int, float, complex, str, bytes, type(None), np.generic, Enum, PurePath, range, slice, torch.dtype,
    torch.device,
)  # fmt: skip
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_DEPTH = 5  # of what lies in each other
_MOST = 1_000_000  # values of a tensor that are looked at


def code_of(function: Any) -> str | None:
    """A digest of what computes it, with the arguments, defaults and outer variables that are bound to it.

    The functions, classes and values of its own module that it names count too, but for private containers, which
    may be filled while it works. Of objects that hold what no digest can be made of, or change while they work,
    only the class counts.

    Args:
        function: a function, a `functools.partial`, or an object that is called.

    Returns:
        Of its file where that was named, else of its own source, or its byte code where it has no source; None if
        unknown.
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
    return hashlib.sha256(f"{code} {code_of(owner)} {state_of(owner)}".encode()).hexdigest()


def _code_of(function: Any, depth: int) -> str | None:
    inner = function.func if isinstance(function, functools.partial) else function
    code: Any = inner if inspect.isroutine(inner) else type(inner)
    text = _text_of(code)
    if text is None:
        return None
    found = hashlib.sha256(text)
    for what in [*_bound(function), *_named_by(code)]:
        found.update(_described(what, depth).encode())
    return found.hexdigest()


def _text_of(code: Any) -> bytes | None:
    compiled: Any = getattr(code, "__code__", None)
    try:
        if _is_of_a_file(code):
            return Path(inspect.getfile(code)).read_bytes()
        text = inspect.getsource(code).encode()
    except (OSError, TypeError):
        return None if compiled is None else _byte_code(compiled)
    # Of a line with several of them the source is the same.
    return text + _byte_code(compiled) if getattr(code, "__name__", "") == "<lambda>" and compiled else text


def _is_of_a_file(code: Any) -> bool:
    """Whether the user named its file, all of which counts then."""
    return str(getattr(code, "__module__", "")).startswith("_snnprune_user_")


def _named_by(code: Any) -> list[Any]:
    """What a function or class of the user's names in its own module: (name, source or value), each once."""
    found: dict[str, Any] = {}
    left = [] if _is_of_a_file(code) else [getattr(code, "__func__", code)]
    while left:
        now = left.pop()
        space = _space_of(now)
        for name in _names_in(now):
            if name in found or name not in space:
                continue
            value = space[name]
            if not (inspect.isfunction(value) or inspect.isclass(value)):
                if not isinstance(value, ModuleType) and (not name.startswith("_") or _is_fixed(value)):
                    found[name] = value
            elif value.__module__ == getattr(code, "__module__", None) and value is not code:
                found[name] = _text_of(value)
                left.append(value)
    return sorted(found.items())


def _is_fixed(value: Any) -> bool:
    """Whether a value stays what it is, so that it is none that is filled at work."""
    if isinstance(value, (tuple, frozenset)):
        return all(_is_fixed(item) for item in value)
    return isinstance(value, _PLAIN)


def _space_of(code: Any) -> Mapping[str, Any]:
    """The names of its module; none of what is installed, whose version says what it does."""
    space: Mapping[str, Any] = {}
    if inspect.isfunction(code):
        space = code.__globals__
    elif inspect.isclass(code) and code.__module__ in sys.modules:
        space = vars(sys.modules[code.__module__])
    file = str(space.get("__file__") or "")
    return {} if any(file.startswith(place) for place in _INSTALLED) else space


def _names_in(code: Any) -> list[str]:
    """The names that a function, or a class with its bases and methods, reads."""
    if inspect.isclass(code):
        inner = [getattr(part, "__func__", getattr(part, "fget", part)) for part in vars(code).values()]
        bases = [base.__name__ for base in code.__bases__]
        return [*bases, *(name for part in inner if inspect.isfunction(part) for name in _names_in(part))]
    names, left = [], [code.__code__] if inspect.isfunction(code) else []
    while left:
        compiled = left.pop()
        names += compiled.co_names
        left += [inner for inner in compiled.co_consts if isinstance(inner, CodeType)]
    return names


def _byte_code(compiled: CodeType) -> bytes:
    """What a function does, where its source is not known or not its own.

    Args:
        compiled: its code object; the same source may give others with other versions of Python.
    """
    inner = [_byte_code(c).hex() if isinstance(c, CodeType) else _described(c, _DEPTH) for c in compiled.co_consts]
    return repr((compiled.co_code, inner, compiled.co_names, compiled.co_varnames)).encode()


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
    """A digest of an object's attributes, but for those of its own use.

    Such a `_name` counts where the object was made with a `name`.

    Args:
        value: anything; without attributes all are alike.
    """
    return hashlib.sha256(_described(_public(value), _DEPTH).encode()).hexdigest()


def _public(value: Any) -> dict[str, Any]:
    """Attributes, and what a module without parameters keeps apart from them: its buffers and parts."""
    try:
        made_with = set(inspect.signature(type(value).__init__).parameters)
    except (TypeError, ValueError):
        made_with = set()
    attributes = getattr(value, "__dict__", {})
    own = {k: v for k, v in attributes.items() if not k.startswith("_") or k.strip("_") in made_with}
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
