"""Training data in a fixed order, from a later batch on, for what learns from them in parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from ..data import BatchLoader


def later(loader: Iterable[Any], steps: int, per_epoch: int) -> Iterable[Any]:
    """A loader whose epochs begin as many batches later, and end with those before.

    Args:
        loader: training data; one that shuffles stays as it is, for it draws another order each time.
        steps: that were taken of it before.
        per_epoch: batches of an epoch.
    """
    start = steps % per_epoch
    if not start or _shuffles(loader):
        return loader
    return (_OwnLater if isinstance(loader, BatchLoader) else _Later)(loader, start, per_epoch)


def _shuffles(loader: Any) -> bool:
    if isinstance(loader, BatchLoader):
        return loader.shuffle
    fixed = not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset)
    return not fixed and not isinstance(loader.sampler, SequentialSampler)


class _Later:
    """What it wraps, from batch `start` on; what that is made of is found in it as before."""

    def __init__(self, loader: Any, start: int, per_epoch: int) -> None:
        self.loader, self.start, self.per_epoch = loader, start, per_epoch
        self.num_workers = getattr(loader, "num_workers", 0)

    def __len__(self) -> int:
        return self.per_epoch

    def __iter__(self) -> Iterator[Any]:
        yield from itertools.islice(iter(self.loader), self.start, None)
        yield from itertools.islice(iter(self.loader), self.start)


class _OwnLater(_Later):
    """Of a loader of ours, which gives the batches of any epoch from any on."""

    def batches(self, epoch: int, start: int = 0, **part: Any) -> Iterator[Any]:
        """As of the loader."""
        at = self.start + start
        if at < self.per_epoch:
            yield from self.loader.batches(epoch, at, **part)
        at = max(0, at - self.per_epoch)
        yield from itertools.islice(self.loader.batches(epoch, at, **part), self.start - at)
