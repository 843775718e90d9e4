"""A pass over data to measure on: the model's mode, whose batches, and how many inputs there are."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler

from ..batches import inputs_in
from ..inputs import device_of, usable_device
from ..loaders import bounded
from ..plain import Mark, plain
from ..ranks import Ranks

Told = Callable[[], None] | None
_READ = "the data to evaluate on"


def module_of(model: object) -> nn.Module | None:
    """What to put into eval mode: the model, or the one inside a gated model; None for other functions."""
    if isinstance(model, Mark) and not isinstance(model, nn.Module):
        return getattr(model, "model", None)
    if callable(model) and not isinstance(model, (nn.Module, type)):
        return None
    return plain(model, "evaluate()")


def place_of(module: nn.Module | None, device: torch.device | str | None) -> torch.device | None:
    """Where a model is measured: on the device that was asked for, else where it is."""
    return usable_device(device) if device is not None else device_of(module) if module else None


def batches_of(loader: Iterable[Any], ranks: Ranks) -> Iterator[Any]:
    """This process's batches: every so many-th, each with its number among all."""
    batches = enumerate(bounded(whole(loader, ranks), _READ))
    return itertools.islice(batches, ranks.rank, None, ranks.world)


def whole(loader: Iterable[Any], ranks: Ranks) -> Iterable[Any]:
    """All the data, also where a sampler gives each of several processes its own part.

    Such a sampler repeats inputs to make the parts equal, and what a function measures of parts cannot be put
    together again.
    """
    if ranks.world == 1 or not isinstance(getattr(loader, "sampler", None), DistributedSampler):
        return loader
    known: Any = loader
    return DataLoader(
        known.dataset, batch_size=known.batch_size, collate_fn=known.collate_fn, num_workers=known.num_workers
    )


def count_inputs(loader: Iterable[Any]) -> int:
    """Inputs in all batches of a loader: by what it says of itself, else by a pass over it."""
    samples: Any = getattr(loader, "samples", None)
    if isinstance(loader, DataLoader) and type(loader.batch_sampler) is BatchSampler:
        samples = loader.sampler
    size: Any = getattr(loader, "batch_size", None)
    if samples is None or not isinstance(size, int) or not hasattr(samples, "__len__"):
        return sum(map(inputs_in, bounded(loader, _READ)))
    count = len(samples)
    return count // size * size if getattr(loader, "drop_last", False) and count >= size else count


@contextlib.contextmanager
def running(model: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """What the user's own code can call parts of: of a gated model the network with its gates at work."""
    if isinstance(model, Mark) and not isinstance(model, nn.Module):
        with model.running() as network:  # type: ignore[attr-defined]
            yield network
    else:
        yield model
