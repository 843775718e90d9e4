"""Batches from tensors in memory, reproducible from (seed, epoch, step) alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import DataError
from ..inputs import Batch
from ..labels import read_labels
from ..options import Count, Seed, checked
from ..streams import seed_of


@dataclass(frozen=True, slots=True)
class DataInfo:
    """What is known of a data set.

    Attributes:
        name: as given on the command line.
        shape: (channels, height, width) of one input.
        classes: names of the classes, in the order of the labels.
        mean: per channel, of pixels in [0, 1].
        std: per channel, of pixels in [0, 1].
        kind: `named`, `folder`, `arrays`, `fake` or `code`.
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kind: str = "named"


class ArrayLoader:
    """Normalised batches of images held in memory as bytes.

    The order and the augmentation of an epoch depend only on `seed` and the epoch's number, so a run
    that is interrupted can go on at any step. Iterating counts the epochs; `batches` takes the number.
    Only bytes travel to a GPU (see `on`); there they become numbers, are normalised and augmented.

    Args:
        images: (n, channels, height, width) uint8.
        labels: (n,) integers, or class probabilities (n, classes).
        info: name, shape, classes and normalisation.
        batch_size: inputs per batch.
        shuffle: draw a new order every epoch.
        augment: random shift by up to 1/8 of the image, and for colour images a random mirror image.
        drop_last: leave out the last, smaller batch (unless it is the only one).
        seed: of order and augmentation.

    Raises:
        DataError: images that are no bytes of that shape, not as many labels, labels that are neither, or an
            option that makes no sense.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        info: DataInfo,
        *,
        batch_size: int,
        shuffle: bool = False,
        augment: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        for name, value in (("images", images), ("labels", labels)):
            if not isinstance(value, Tensor):
                raise DataError(
                    f"{name} must be a tensor, not {type(value).__name__}. Give torch.as_tensor() of it."
                )
        if images.dtype != torch.uint8 or images.dim() != 4:
            what = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
            raise DataError(f"images must be (n, channels, height, width) uint8, not {what}.")
        if not isinstance(info, DataInfo) or not labels.dim():
            wrong = f"labels of shape {tuple(labels.shape)}" if isinstance(info, DataInfo) else type(info).__name__
            raise DataError(f"{wrong} will not do: info must be a DataInfo, and labels one for each image.")
        batch_size, seed = (
            checked("batch_size", batch_size, Count, DataError),
            checked("seed", seed, Seed, DataError),
        )
        shuffle, augment, drop_last = (
            checked(name, value, bool, DataError)
            for name, value in (("shuffle", shuffle), ("augment", augment), ("drop_last", drop_last))
        )
        if len(images) != len(labels) or not len(images):
            raise DataError(f"data set {info.name}: {len(images)} images and {len(labels)} labels.")
        self.images, self.labels, self.info = images, read_labels(labels), info
        self.batch_size, self.shuffle, self.augment = batch_size, shuffle, augment
        self.drop_last = drop_last and len(images) >= batch_size
        self.seed, self.epoch = seed, 0
        self.origin = object()  # tells these samples from others; copies for another device share it
        self.device = images.device
        shape = (1, -1, 1, 1)
        self._mean = torch.tensor(info.mean).reshape(shape)
        self._std = torch.tensor(info.std).reshape(shape)

    def on(self, device: torch.device) -> ArrayLoader:
        """The same loader with batches made on `device`.

        Args:
            device: of the batches that it will give.

        Images that fit into a quarter of a GPU's free memory lie there from now on, so that no step waits
        for the CPU; of others the bytes of each batch are sent from pinned memory.
        """
        other = copy.copy(self)
        other._mean, other._std = self._mean.to(device), self._std.to(device)
        other.device = other._mean.device  # "cuda" is "cuda:0" from here on, as it is of every tensor
        if device.type != "cuda" or self.images.nbytes <= torch.cuda.mem_get_info(device)[0] / 4:
            other.images, other.labels = self.images.to(device), self.labels.to(device)
        return other

    def __len__(self) -> int:
        full, rest = divmod(len(self.images), self.batch_size)
        return full + bool(rest and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        yield from self.batches(self.epoch)
        self.epoch += 1

    def batches(
        self, epoch: int, start: int = 0, part: Callable[[int], slice] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Batches of one epoch from step `start` on: (batch, channels, height, width) float32, and their labels.

        Without augmentation they are `Batch`es, which say what samples they hold.

        Args:
            epoch: sets order and augmentation.
            start: the first step.
            part: number of inputs -> which of them to give, for one of several processes; order and
                augmentation are those of the whole batch.
        """
        order = torch.arange(len(self.images))
        if self.shuffle:
            order = torch.randperm(len(order), generator=_generator(self.seed, epoch))
        for step in range(start, len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            own = slice(None) if part is None else part(len(chosen))
            index = chosen[own]
            if self.images.device == self.device:  # where the samples lie, the index is sent once
                index = index.to(self.device, non_blocking=True)
            x, labels = self._normalised(index), self._take(self.labels, index)
            if not self.augment:
                yield Batch((x, labels), index, self)
                continue
            moves = _moves(len(chosen), x.shape, _generator(self.seed, epoch, step + 1))
            yield _augment(x, *(move[own].to(self.device, non_blocking=True) for move in moves)), labels

    def in_order(self) -> Iterator[Tensor]:
        """All inputs in the order in which they are stored, normalised but not augmented, in batches.

        Yields:
            (batch, channels, height, width) float32 on the loader's device; the last batch may be smaller.
        """
        for start in range(0, len(self.images), self.batch_size):
            stop = min(start + self.batch_size, len(self.images))
            yield self._normalised(torch.arange(start, stop, device=self.images.device))

    def _normalised(self, index: Tensor) -> Tensor:
        return (self._take(self.images, index).float() / 255 - self._mean) / self._std

    def _take(self, values: Tensor, index: Tensor) -> Tensor:
        if values.device == self.device:
            return values[index]
        return values[index].pin_memory().to(self.device, non_blocking=True)


def loader_on(loader: Any, device: torch.device) -> Any:
    """A loader of ours with batches made on `device`; any other as it is."""
    return loader.on(device) if isinstance(loader, ArrayLoader) else loader


def _generator(seed: int, epoch: int, step: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, "batches", epoch, step))


def _moves(n: int, shape: torch.Size, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Per image: rows and columns to shift by, up to an eighth of its size, and whether to mirror it (colour)."""
    _, channels, height, width = shape
    top = torch.randint(0, 2 * (height // 8) + 1, (n,), generator=generator)
    left = torch.randint(0, 2 * (width // 8) + 1, (n,), generator=generator)
    if channels != 3:
        return top, left, torch.zeros(n, dtype=torch.bool)
    return top, left, torch.rand(n, generator=generator) < 0.5


def _augment(x: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
    """Shift and mirror every image as it was drawn for it."""
    n, channels, height, width = x.shape
    reach_y, reach_x = height // 8, width // 8
    padded = F.pad(x, (reach_x, reach_x, reach_y, reach_y), mode="replicate")
    where = x.device
    rows = (top[:, None] + torch.arange(height, device=where))[:, None, :, None]
    columns = left[:, None] + torch.arange(width, device=where)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    items = torch.arange(n, device=where)[:, None, None, None]
    planes = torch.arange(channels, device=where)[None, :, None, None]
    return padded[items, planes, rows, columns[:, None, None, :]]
