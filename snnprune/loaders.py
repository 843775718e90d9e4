"""What may be handed over as data: something that gives batches, as often as it is asked to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from .errors import DataError


def loader_of(loader: Any, name: str) -> Iterable[Any]:
    """The loader, after a look at whether it is one.

    Args:
        loader: what the caller was given.
        name: of the argument, for the message.

    Raises:
        DataError: it is none.
    """
    if isinstance(loader, (str, bytes, Tensor, Mapping)) or not _iterable(loader):
        raise DataError(
            f"{name}: {type(loader).__name__} is no loader. Give a DataLoader, a list of batches (inputs, "
            "labels), or what snnprune.load_data returns."
        )
    return loader


def reread(loader: Any, name: str) -> Iterable[Any]:
    """The loader, after a look at whether it can be read more than once, as the caller will.

    Raises:
        DataError: it is none, or a generator or another iterator, which is empty after the first time.
    """
    if isinstance(loader_of(loader, name), Iterator):
        raise DataError(
            f"{name}: {type(loader).__name__} is an iterator, which is empty after one pass, but several are "
            "needed. Give a DataLoader or a list of batches."
        )
    return loader


def _iterable(loader: Any) -> bool:
    return hasattr(type(loader), "__iter__") or hasattr(type(loader), "__getitem__")
