"""What may be handed over as data: something that gives batches, as often as it is asked to."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from .errors import DataError, SnnPruneError, first_line

logger = logging.getLogger(__name__)
MOST = 100_000  # batches of a loader that tells no length
_SLACK, _PATIENCE = 1000, 30.0


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


def bounded(loader: Iterable[Any], name: str) -> Iterator[Any]:
    """The batches of a loader, as long as there may be an end to them.

    Args:
        loader: any; its length, where it tells one, may be off by what its workers round up.
        name: what it is, for the messages.

    Raises:
        DataError: it goes on far beyond its length, or has none and does not end.
    """
    told = length_of(loader)
    most = MOST if told is None else 2 * told + _SLACK
    said = time.monotonic()
    for at, batch in enumerate(_watched(loader, name)):
        if at >= most:
            raise DataError(
                f"{name} does not end: it gave {at} batches"
                + (", and tells no length" if told is None else f", though its length is {told}")
                + ". Give a loader that ends; where it is as long as that, one that tells its length by len()."
            )
        if told is None and time.monotonic() - said > _PATIENCE:
            said = time.monotonic()
            logger.warning("%s tells no length; %d batches so far, and going on to its end", name, at)
        yield batch


def _watched(loader: Iterable[Any], name: str) -> Iterator[Any]:
    try:
        yield from loader
    except (RuntimeError, OSError, EOFError) as error:
        refuse_lost_worker(error, loader, name)
        raise


def refuse_lost_worker(error: Exception, loader: Any, name: str) -> None:
    """Say it in our words where an error means that a worker process of a loader has ended.

    Raises:
        DataError: it does: PyTorch says so itself, or the connection to a worker is lost.
    """
    lost = isinstance(error, (ConnectionError, EOFError)) and getattr(loader, "num_workers", 0)
    if lost or (isinstance(error, RuntimeError) and "DataLoader worker" in str(error)):
        raise DataError(
            f"a worker process of {name} has ended ({first_line(error)}), most often because memory ran out. Give "
            "it fewer workers (num_workers) or smaller batches."
        ) from error


@contextlib.contextmanager
def lost_workers(loaders: Mapping[str, Any]) -> Iterator[None]:
    """PyTorch tells of a killed worker wherever the program happens to be, not only where a batch is asked for.

    Args:
        loaders: what to call each -> the loader.

    Raises:
        DataError: a worker process of one of them has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, SnnPruneError):
            busy = [name for name, loader in loaders.items() if getattr(loader, "num_workers", 0)]
            refuse_lost_worker(error, None, busy[0] if len(busy) == 1 else "a loader")
        raise


def length_of(loader: Any) -> int | None:
    """How many batches a loader says it has; None where it does not tell."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):  # no length, or one that its data set does not know
        return None


def _iterable(loader: Any) -> bool:
    kind = type(loader)
    numbers = isinstance(loader, np.generic)  # which can be indexed, though there is nothing in them
    return not numbers and (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__"))
