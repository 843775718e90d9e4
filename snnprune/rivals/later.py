"""Training data in a fixed order, from a later batch on, for what learns from them in parts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from ..data import BatchLoader


def later(loader: Iterable[Any], steps: int, per_epoch: int) -> Iterable[Any]:
    """A loader whose epochs begin as many batches later, and end with those before.

    Args:
        loader: training data; one that shuffles, or whose order is not known, stays as it is: it may draw another
            order each time.
        steps: that were taken of it before.
        per_epoch: batches of an epoch.
    """
    start = steps % per_epoch
    if not start:
        return loader
    if isinstance(loader, (list, tuple)):
        return [*loader[start:], *loader[:start]]
    if isinstance(loader, BatchLoader):
        return loader if loader.shuffle else _Later(loader, start, per_epoch)
    if type(loader) is DataLoader and _is_in_order(loader):  # one that is derived may change what it gives
        return _rotated(loader, start)
    return loader


def _is_in_order(loader: DataLoader[Any]) -> bool:
    return (
        not isinstance(loader.dataset, IterableDataset)
        and type(loader.batch_sampler) is BatchSampler
        and type(loader.sampler) is SequentialSampler
    )


def _rotated(loader: DataLoader[Any], start: int) -> DataLoader[Any]:
    """The same loader that reads its batches from number `start` on, and no batch twice."""
    batches = list(loader.batch_sampler or ())
    return DataLoader(
        loader.dataset,
        batch_sampler=[*batches[start:], *batches[:start]],
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )


class _Later:
    """A loader of ours, which gives the batches of any epoch from any on, from batch `start` on."""

    def __init__(self, loader: BatchLoader, start: int, per_epoch: int) -> None:
        self.loader, self.start, self.per_epoch = loader, start, per_epoch

    def __len__(self) -> int:
        return self.per_epoch

    def __iter__(self) -> Iterator[Any]:
        return self.batches(0)

    def batches(self, epoch: int, start: int = 0, **part: Any) -> Iterator[Any]:
        """As of the loader."""
        at = self.start + start
        yield from self.loader.batches(epoch, at, **part)  # none from the end on
        at = max(0, at - self.per_epoch)
        yield from itertools.islice(self.loader.batches(epoch, at, **part), self.start - at)
