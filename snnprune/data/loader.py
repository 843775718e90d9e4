"""Batches of images as bytes, reproducible from (seed, epoch, step) alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError
from ..inputs import Batch
from ..labels import read_labels
from ..options import Count, Seed, checked
from ..streams import seed_of
from .augment import Level, draw_moves, move
from .parts import Held, Images

Part = Callable[[int], slice]


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
        crop_ratio: of images from files: their side over the shorter side that they are cut from.
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kind: str = "named"
    crop_ratio: float | None = None


class BatchLoader:
    """What all loaders of images share: steps, order, epochs, and how bytes become numbers.

    The order and the augmentation of an epoch depend only on `seed` and the epoch's number, so a run that is
    interrupted can go on at any step. Iterating counts the epochs; `batches` takes the number.

    Args:
        images: of all samples.
        labels: (n,) integers, or class probabilities (n, classes).
        info: name, shape, classes and normalisation.
        batch_size: inputs per batch.
        shuffle: draw a new order every epoch.
        augment: level, see `augment`.
        drop_last: leave out the last, smaller batch (unless it is the only one).
        seed: of order and augmentation.

    Raises:
        DataError: not as many labels as images, labels that are neither, or an option that makes no sense.
    """

    def __init__(
        self,
        images: Images,
        labels: Tensor,
        info: DataInfo,
        *,
        batch_size: int,
        shuffle: bool = False,
        augment: Level = "none",
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        if not isinstance(labels, Tensor):
            raise DataError(f"labels must be a tensor, not {type(labels).__name__}. Give torch.as_tensor() of it.")
        if not isinstance(info, DataInfo) or not labels.dim():
            wrong = f"labels of shape {tuple(labels.shape)}" if isinstance(info, DataInfo) else type(info).__name__
            raise DataError(f"{wrong} will not do: info must be a DataInfo, and labels one for each image.")
        batch_size, seed = (
            checked("batch_size", batch_size, Count, DataError),
            checked("seed", seed, Seed, DataError),
        )
        shuffle, drop_last = (
            checked(name, value, bool, DataError)
            for name, value in (("shuffle", shuffle), ("drop_last", drop_last))
        )
        if len(images) != len(labels) or not len(images):
            raise DataError(f"data set {info.name}: {len(images)} images and {len(labels)} labels.")
        self.samples, self.labels, self.info = images, read_labels(labels), info
        self.batch_size, self.shuffle, self.augment = batch_size, shuffle, augment
        self.drop_last = drop_last and len(images) >= batch_size
        self.seed, self.epoch = seed, 0
        self.device = torch.device("cpu")
        shape = (1, -1, 1, 1)
        self._mean = torch.tensor(info.mean).reshape(shape)
        self._std = torch.tensor(info.std).reshape(shape)

    def on(self, device: torch.device) -> BatchLoader:
        """The same loader with batches made on `device`.

        Args:
            device: of the batches that it will give.
        """
        other = copy.copy(self)
        other._mean, other._std = self._mean.to(device), self._std.to(device)
        other.device = other._mean.device  # "cuda" is "cuda:0" from here on, as it is of every tensor
        return other

    def seeded(self, *key: int | str) -> BatchLoader:
        """The same loader with another order and another augmentation of every epoch.

        Args:
            key: what sets them apart.
        """
        other = copy.copy(self)
        other.seed = seed_of(self.seed, *key)
        return other

    def moved_on(self, number: int) -> BatchLoader:
        """The same loader with the order and the augmentation of another seed: that of a loader made with it.

        Args:
            number: how many seeds after its own.
        """
        other = copy.copy(self)
        other.seed = self.seed + number
        return other

    def plain(self) -> BatchLoader:
        """The same loader without augmentation."""
        other = copy.copy(self)
        other.augment = "none"
        return other

    def __len__(self) -> int:
        full, rest = divmod(len(self.samples), self.batch_size)
        return full + bool(rest and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        yield from self.batches(self.epoch)
        self.epoch += 1

    def head(self, count: int) -> Tensor:
        """The first images at most `count`, in the order in which they are stored; no others are read.

        Returns:
            (n, channels, height, width) float32, normalised, on the loader's device.
        """
        return self.normalised(self.samples.rows(torch.arange(min(count, len(self.samples)))))

    def batches(self, epoch: int, start: int = 0, part: Part | None = None) -> Iterator[tuple[Any, ...]]:
        """Batches of one epoch from step `start` on: (batch, channels, height, width) float32, and their labels.

        Args:
            epoch: sets order and augmentation.
            start: the first step.
            part: number of inputs -> which of them to give, for one of several processes; order and
                augmentation are those of the whole batch.
        """
        raise NotImplementedError

    def steps(self, epoch: int, start: int, part: Part | None) -> Iterator[tuple[int, int, slice, Tensor]]:
        """Of every step of an epoch: its number, the samples in it, which of them are given, and their places."""
        order = torch.arange(len(self.samples))
        if self.shuffle:
            order = torch.randperm(len(order), generator=generator_of(self.seed, epoch))
        for step in range(start, len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            own = slice(None) if part is None else part(len(chosen))
            yield step, len(chosen), own, chosen[own]

    def normalised(self, images: Tensor) -> Tensor:
        """Bytes (n, channels, height, width) as numbers on the loader's device, with mean 0 and deviation 1."""
        # In place: each intermediate result would be pages of memory that are asked for anew.
        return self.send(images).float().div_(255).sub_(self._mean).div_(self._std)

    def moved(self, x: Tensor, epoch: int, step: int, size: int, own: slice) -> Tensor:
        """Images of a step shifted and mirrored, as level `light` has it.

        Args:
            x: those of the step that are given.
            epoch: with the step sets how.
            step: of the epoch.
            size: samples of the whole step.
            own: which of them are given.
        """
        moves = draw_moves(size, self.info.shape, generator_of(self.seed, epoch, step + 1))
        return move(x, *(drawn[own].to(self.device, non_blocking=True) for drawn in moves))

    def send(self, values: Tensor) -> Tensor:
        """A tensor on the loader's device; to a GPU from pinned memory."""
        if values.device == self.device:
            return values
        pinned = values.pin_memory() if self.device.type == "cuda" and not values.is_pinned() else values
        return pinned.to(self.device, non_blocking=True)


class ArrayLoader(BatchLoader):
    """Normalised batches of images held in memory as bytes.

    The order and the augmentation of an epoch depend only on `seed` and the epoch's number, so a run
    that is interrupted can go on at any step. Iterating counts the epochs; `batches` takes the number.
    Only bytes travel to a GPU (see `on`); there they become numbers, are normalised and augmented.

    Args:
        images: (n, channels, height, width) uint8. Those of `load_data` may be files, which are read when the
            first batch is asked for.
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
        images: Tensor | Images,
        labels: Tensor,
        info: DataInfo,
        *,
        batch_size: int,
        shuffle: bool = False,
        augment: bool = False,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        if not hasattr(images, "rows"):
            images = _held(images)
        level: Level = "light" if checked("augment", augment, bool, DataError) else "none"
        options: dict[str, Any] = {"batch_size": batch_size, "shuffle": shuffle, "drop_last": drop_last}
        super().__init__(images, labels, info, augment=level, seed=seed, **options)  # type: ignore[arg-type]
        if isinstance(images, Held):
            self.device = images.images.device
        self.origin = object()  # tells these samples from others; copies for another device share it

    @property
    def images(self) -> Tensor:
        """(n, channels, height, width) uint8; files are read now, if they have not been."""
        return self.samples.all()

    @images.setter
    def images(self, images: Tensor) -> None:
        self.samples = Held(images)

    def on(self, device: torch.device) -> ArrayLoader:
        """The same loader with batches made on `device`.

        Args:
            device: of the batches that it will give.

        Images that fit into a quarter of a GPU's free memory lie there from now on, so that no step waits
        for the CPU; of others the bytes of each batch are sent from pinned memory. Files are read now.
        """
        other: Any = super().on(device)
        images = self.images
        if device.type != "cuda" or images.nbytes <= torch.cuda.mem_get_info(device)[0] / 4:
            other.samples, other.labels = Held(images.to(device)), self.labels.to(device)
        return other

    def batches(self, epoch: int, start: int = 0, part: Part | None = None) -> Iterator[tuple[Any, ...]]:
        """Batches of one epoch from step `start` on: (batch, channels, height, width) float32, and their labels.

        Without augmentation they are `Batch`es, which say what samples they hold.

        Args:
            epoch: sets order and augmentation.
            start: the first step.
            part: number of inputs -> which of them to give, for one of several processes; order and
                augmentation are those of the whole batch.
        """
        images = self.images
        for step, size, own, index in self.steps(epoch, start, part):
            if images.device == self.device:  # where the samples lie, the index is sent once
                index = index.to(self.device, non_blocking=True)
            x, labels = self.normalised(images[index]), self.send(self.labels[index])
            if self.augment == "none":
                yield Batch((x, labels), index, self)
            else:
                yield self.moved(x, epoch, step, size, own), labels

    def in_order(self) -> Iterator[Tensor]:
        """All inputs in the order in which they are stored, normalised but not augmented, in batches.

        Yields:
            (batch, channels, height, width) float32 on the loader's device; the last batch may be smaller.
        """
        images = self.images
        for start in range(0, len(images), self.batch_size):
            yield self.normalised(images[start : start + self.batch_size])


def loader_on(loader: Any, device: torch.device) -> Any:
    """A loader of ours with batches made on `device`; any other as it is."""
    return loader.on(device) if isinstance(loader, BatchLoader) else loader


def generator_of(seed: int, epoch: int, step: int = 0) -> torch.Generator:
    """The stream that an epoch's order (step 0) or a step's augmentation is drawn from."""
    return torch.Generator().manual_seed(seed_of(seed, "batches", epoch, step))


def _held(images: Any) -> Held:
    if not isinstance(images, Tensor):
        raise DataError(f"images must be a tensor, not {type(images).__name__}. Give torch.as_tensor() of it.")
    if images.dtype != torch.uint8 or images.dim() != 4:
        what = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        raise DataError(f"images must be (n, channels, height, width) uint8, not {what}.")
    return Held(images)
