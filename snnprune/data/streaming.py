"""Batches of images that worker processes read and transform: data that do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError
from ..memory import give_back
from ..options import CountOrZero, checked
from ..streams import seed_of
from .augment import FROM_FILES, Level, transforms
from .loader import BatchLoader, DataInfo, Part
from .parts import Images, workers_here


class StreamLoader(BatchLoader):
    """Normalised batches of images that are read anew whenever they are asked for.

    Worker processes decode and transform ahead of the step that needs them. What is drawn for an image depends on
    `seed`, the epoch and the image alone: not on the number of workers, on the step that a run goes on from, or on
    how many processes share a batch. Bytes travel to a GPU; there they become numbers and are normalised.

    Args:
        images: of all samples.
        labels: (n,) integers, or class probabilities (n, classes).
        info: name, shape, classes and normalisation.
        batch_size: inputs per batch.
        shuffle: draw a new order every epoch.
        augment: level, see `augment`.
        drop_last: leave out the last, smaller batch (unless it is the only one).
        seed: of order and augmentation.
        workers: processes; 0 does all in this one, None takes one per core, at most 8.

    Raises:
        DataError: as `BatchLoader` does.
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
        workers: int | None = None,
    ) -> None:
        options: dict[str, Any] = {"batch_size": batch_size, "shuffle": shuffle, "drop_last": drop_last}
        super().__init__(images, labels, info, augment=augment, seed=seed, **options)
        given = checked("workers", workers, CountOrZero | None, DataError)
        self.num_workers = workers_here() if given is None else given

    def batches(self, epoch: int, start: int = 0, part: Part | None = None) -> Iterator[tuple[Any, ...]]:
        """Batches of one epoch from step `start` on: (batch, channels, height, width) float32, and their labels.

        Args:
            epoch: sets order and augmentation.
            start: the first step.
            part: number of inputs -> which of them to give, for one of several processes; order and
                augmentation are those of the whole batch. The others are not read.

        Raises:
            DataError: an image cannot be read.
        """
        jobs = list(self.steps(epoch, start, part))
        if not jobs:
            return
        if self.num_workers:
            give_back()
        # Ours is the generator that workers' seeds come from: the program's own streams stay where they are.
        ahead: Any = DataLoader(
            _Decoded(self, epoch),
            batch_sampler=[places.tolist() for *_, places in jobs],
            num_workers=self.num_workers,
            collate_fn=_stacked,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),
        )
        for (step, size, own, places), found in zip(jobs, ahead, strict=True):
            if isinstance(found, str):
                raise DataError(found)
            x = self.normalised(found)
            if self.augment == "light":
                x = self.moved(x, epoch, step, size, own)
            yield x, self.send(self.labels[places])


class _Decoded(Dataset[Any]):
    """The images of one epoch, as a worker makes them: bytes, or the text of what went wrong."""

    def __init__(self, loader: StreamLoader, epoch: int) -> None:
        self.images: Any = loader.samples
        self.seed, self.epoch = loader.seed, epoch
        self.transform = None
        if loader.augment in FROM_FILES:
            self.transform = transforms(loader.augment, loader.info.shape, loader.info.mean)

    def __getitem__(self, place: int) -> Tensor | str:
        try:
            if self.transform is None:
                return self.images.rows(torch.tensor([place]))[0]
            with torch.random.fork_rng(devices=[]):  # a worker must not touch a GPU
                torch.default_generator.manual_seed(seed_of(self.seed, "image", self.epoch, place))
                return self.transform(self.images.whole(place))
        except DataError as error:  # as text: exceptions of workers arrive as others
            return str(error)


def _stacked(found: list[Tensor | str]) -> Tensor | str:
    images = [image for image in found if isinstance(image, Tensor)]
    return torch.stack(images) if len(images) == len(found) else next(f for f in found if isinstance(f, str))
