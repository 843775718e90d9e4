"""Whole pickled models: nothing in them may stand in for code, and their form is that of a model.

A pickle sets the attributes of its modules as it likes. An attribute named `forward` would be called in place of
the class's own, so only plain values may be there, under names that the class does not use for its methods.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelFileError
from .allowed import may_be_set

_DEPTH, _VISITS, _NAME = 64, 100_000, 512
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.layout)


def check_whole(model: nn.Module, path: Path) -> None:
    """Refuse a model whose modules hold hooks, shadow methods, contain themselves, or lack their tables.

    Raises:
        ModelFileError: with the module and what is wrong with it.
    """
    seen: set[int] = set()
    todo: list[tuple[str, nn.Module, int]] = [("", model, 0)]
    visits = 0
    while todo:
        name, module, depth = todo.pop()
        visits += 1
        if depth > _DEPTH or visits > _VISITS:
            raise ModelFileError(
                f"{path}: its modules are nested more than {_DEPTH} deep, or in one another. {_REMEDY}"
            )
        if id(module) not in seen:
            seen.add(id(module))
            wrong = _wrong(module)
            if wrong:
                raise ModelFileError(f"{path}: {name or 'the model'} ({type(module).__name__}) {wrong}. {_REMEDY}")
        todo += [(f"{name}.{k}" if name else k, m, depth + 1) for k, m in module._modules.items() if m is not None]


_REMEDY = "Save its state_dict() and name its architecture with --arch."


def _wrong(module: nn.Module) -> str | None:
    """What is wrong with one module, apart from those inside."""
    content = module.__dict__
    for table, kind in (("_parameters", nn.Parameter), ("_buffers", Tensor), ("_modules", nn.Module)):
        entries = content.get(table)
        if not isinstance(entries, dict):
            return f"has no {table}"
        for name, value in entries.items():
            if not isinstance(name, str) or not name or "." in name or len(name) > _NAME:
                return f"has an entry of {table} whose name is none"
            if hasattr(type(module), name):
                return f"has an entry of {table} named {name}, as its class does"
            if value is not None and not isinstance(value, kind):
                return f"has {name} in {table}, which is {type(value).__name__}"
            if isinstance(value, Tensor) and not _is_plain(value):
                return f"has {name}, which is no plain tensor"
    if (
        not isinstance(content.get("_non_persistent_buffers_set"), set)
        or type(content.get("training")) is not bool
    ):
        return "is incomplete"
    for name, value in content.items():
        if name in ("_parameters", "_buffers", "_modules"):
            continue
        if not isinstance(name, str) or (name.endswith(("_hooks", "_hooks_with_kwargs")) and value):
            return f"has hooks or an attribute {str(name)[:_NAME]!r}, which may not be there"
        if name == "_compiled_call_impl" and value is not None:
            return "is compiled"
        if not may_be_set(name, type(module)):
            return f"has an attribute {name[:_NAME]!r}, as none has"
        if not _is_value(value, set()):
            return f"has an attribute {name}, which is no plain value"
    return None


def _is_plain(tensor: Tensor) -> bool:
    """A tensor whose hooks and attributes do nothing."""
    return type(tensor) in (Tensor, nn.Parameter) and not tensor._backward_hooks and _is_value(vars(tensor), set())


def _is_value(value: Any, seen: set[int]) -> bool:
    """Numbers, strings, tensors, containers of them, and the classes of layers that models keep.

    `seen` are the containers that were looked at: shared ones may be met endlessly often.
    """
    if isinstance(value, _PLAIN):
        return True
    if isinstance(value, Tensor):
        return _is_plain(value)
    if isinstance(value, type):
        return issubclass(value, nn.Module)
    if id(value) in seen:
        return True
    seen.add(id(value))
    if isinstance(value, Mapping):
        return all(isinstance(k, _PLAIN) and _is_value(v, seen) for k, v in value.items())
    return isinstance(value, (list, tuple, set)) and all(_is_value(v, seen) for v in value)


def complete_(model: nn.Module) -> nn.Module:
    """Give layers of a file from an older PyTorch the options that their classes have had since, in place.

    Such an option has a default, under which the layer does what it did; without it its forward fails.
    """
    for module in model.modules():
        cls = type(module)
        if not cls.__module__.startswith("torch.nn."):
            continue
        defaults = inspect.signature(cls.__init__).parameters
        for name in getattr(cls, "__constants__", ()):
            if not hasattr(module, name) and name in defaults and defaults[name].default is not inspect._empty:
                setattr(module, name, defaults[name].default)
    return model
