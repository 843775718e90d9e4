"""Random generators that a user's loader carries with it, besides those that a program shares.

`DataLoader(shuffle=True, generator=torch.Generator())` is PyTorch's own recipe for a reproducible order, and
transforms and data sets often hold a generator of NumPy's or Python's. Such a one goes on from epoch to epoch. So
a run that is resumed could not draw again what an epoch drew, were they not set at the beginning of each.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .streams import seed_of

_DEPTH, _ENTRIES, _OBJECTS = 12, 100, 10_000  # how far is looked: generators lie near the surface
_LEAVES = (Tensor, np.ndarray, nn.Module, ModuleType, type, str, bytes, int, float, BuiltinFunctionType)


def generators_of(loader: object) -> list[Any]:
    """The generators of PyTorch (`torch.Generator`), NumPy and Python (`random.Random`) that lie inside a loader.

    They are looked for in attributes, containers, and what functions hold, in an order that is always the same.
    Those that a whole program shares are left out.
    """
    shared = {id(torch.default_generator), id(getattr(np.random.mtrand, "_rand", None)), id(random._inst)}  # type: ignore[attr-defined]
    found: list[Any] = []
    seen: set[int] = set()
    todo: list[tuple[object, int]] = [(loader, 0)]
    while todo and len(seen) < _OBJECTS:
        value, depth = todo.pop()
        if isinstance(value, (*_LEAVES, random.SystemRandom)) or id(value) in seen or id(value) in shared:
            continue
        seen.add(id(value))
        if isinstance(value, (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)):
            found.append(value)
        elif depth < _DEPTH:
            todo += [(item, depth + 1) for item in reversed(_inside(value))]
    return found


def _inside(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())[:_ENTRIES]
    if isinstance(value, (list, tuple)):
        return list(value[:_ENTRIES])
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
    attributes = getattr(value, "__dict__", {})
    running = "_iterator" if isinstance(value, DataLoader) else ""  # of workers that live on
    return [item for name, item in attributes.items() if name != running]


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def seed_carried(loader: object, *key: int | str) -> None:
    """Begin the streams of all generators that a loader carries anew.

    Args:
        loader: as `generators_of` takes it.
        key: sets this moment apart from others, see `streams.seed_of`; each generator draws a stream of its own.
    """
    for at, generator in enumerate(generators_of(loader)):
        seed = seed_of("carried", at, *key)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        elif isinstance(generator, np.random.Generator):
            generator.bit_generator.state = type(generator.bit_generator)(seed).state
        else:
            generator.seed(seed % 2**32)


@contextmanager
def kept_carried(loaders: Iterable[object]) -> Iterator[None]:
    """Afterwards the generators that loaders carry are as they were."""
    before = [(g, _state(g)) for loader in loaders for g in generators_of(loader)]
    try:
        yield
    finally:
        for generator, state in before:
            _set_state(generator, state)


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.get_state()


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)
