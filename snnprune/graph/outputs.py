"""Which of a model's outputs matter, by their paths in what it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from .keep import named_by


def paths_of(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in what a model returns with its path: keys, names of fields and places, such as `aux.0`.

    Args:
        value: nested tuples, lists, dicts and dataclasses.
        prefix: path of the value itself.
    """
    if isinstance(value, Tensor):
        yield prefix, value
        return
    parts: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, (list, tuple)):
        parts = list(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    for key, part in parts:
        yield from paths_of(part, f"{prefix}.{key}" if prefix else str(key))


def selected(value: Any, outputs: Sequence[str]) -> list[Tensor]:
    """The tensors that matter in what a model returns; all of them where no paths are given.

    Args:
        value: what it returns.
        outputs: paths, or shell patterns of such; one names everything that lies below it.
    """
    return [tensor for path, tensor in paths_of(value) if not outputs or named_by(path, outputs)]


def check_outputs(outputs: Sequence[str], evaluated: Sequence[str], trained: Sequence[str]) -> None:
    """Refuse paths that name nothing, or nothing that can be compared.

    Args:
        outputs: the paths that were asked for.
        evaluated: paths of what the model returns in evaluation mode.
        trained: and in training mode.

    Raises:
        ConfigError: it says what there is.
    """
    every = list(dict.fromkeys([*evaluated, *trained]))
    there = "one tensor, which counts as it is" if every == [""] else ", ".join(p or "one tensor" for p in every)
    for pattern in outputs:
        if not any(named_by(path, (pattern,)) for path in every):
            raise ConfigError(f"outputs name {pattern!r}, but the model returns {there}. Name one of its outputs.")
    if outputs and not any(named_by(path, outputs) for path in evaluated):
        there = ", ".join(path or "one tensor" for path in evaluated)
        raise ConfigError(
            f"outputs name {', '.join(map(repr, outputs))}, which the model returns in training mode alone. The "
            f"proof compares what it returns in evaluation mode ({there}): name one of those too."
        )
