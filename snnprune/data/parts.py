"""Images of a part of a data set: bytes in memory, or files that are decoded when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import DataError
from .images import decode, read

Progress = Callable[[str, int, int], None]
_ENOUGH = 100  # broken images, after which no more are looked for
_AT_ONCE = 64  # files that wait for a thread
WORKERS = 8  # threads or processes at most


class Images(Protocol):
    """The images of a part.

    Attributes:
        shape: (channels, height, width) of each.
    """

    shape: tuple[int, int, int]

    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes of all of them in memory."""
        ...

    def take(self, places: Tensor) -> Images:
        """Those at some places, in that order."""
        ...

    def rows(self, places: Tensor) -> Tensor:
        """(n, channels, height, width) uint8 of some, which are read if they have not been."""
        ...

    def all(self) -> Tensor:
        """(n, channels, height, width) uint8 of all; read once, and kept."""
        ...

    def identity(self) -> Any:
        """What tells them from others, without reading them all."""
        ...


class Held:
    """Images that lie in memory, or in a GPU's.

    Args:
        images: (n, channels, height, width) uint8.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        _, channels, height, width = images.shape
        self.shape = channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return self.images.nbytes

    def take(self, places: Tensor) -> Held:
        """Those at some places, in that order."""
        return Held(self.images[places])

    def rows(self, places: Tensor) -> Tensor:
        """(n, channels, height, width) uint8 of some."""
        return self.images[places]

    def all(self) -> Tensor:
        """(n, channels, height, width) uint8."""
        return self.images

    def whole(self, place: int) -> Tensor:
        """One image, for transforms."""
        return self.images[place]

    def identity(self) -> Any:
        """The pixels."""
        return self.images


class ImageFiles:
    """Image files, which become squares when they are asked for; their middle, see `images.square`.

    Args:
        path: of the data set, for messages.
        files: of the images.
        side: of the squares, in pixels.
        channels: 1 or 3.
        crop_ratio: side over the shorter side that is cut from.
        progress: called with (what, done, total) while all are read.
    """

    def __init__(
        self,
        path: Path,
        files: Sequence[Path],
        side: int,
        channels: int,
        crop_ratio: float,
        progress: Progress | None = None,
    ) -> None:
        self.path, self.files = path, list(files)
        self.side, self.channels, self.crop_ratio, self.progress = side, channels, crop_ratio, progress
        self.shape = channels, side, side
        self._kept: Tensor | None = None

    def __len__(self) -> int:
        return len(self.files)

    def __getstate__(self) -> dict[str, Any]:
        """Worker processes get the names alone."""
        return {**self.__dict__, "_kept": None, "progress": None}

    @property
    def nbytes(self) -> int:
        """Bytes of all of them once they are squares."""
        return len(self.files) * self.channels * self.side**2

    def take(self, places: Tensor) -> ImageFiles:
        """Those at some places, in that order."""
        files = [self.files[place] for place in places.tolist()]
        return ImageFiles(self.path, files, self.side, self.channels, self.crop_ratio, self.progress)

    def rows(self, places: Tensor) -> Tensor:
        """(n, channels, height, width) uint8 of some.

        Raises:
            DataError: one cannot be read.
        """
        if self._kept is not None:
            return self._kept[places]
        try:
            return torch.stack([self.one(place) for place in places.tolist()])
        except DataError as error:
            raise _broken([error], len(self.files)) from error

    def one(self, place: int) -> Tensor:
        """One image as a square."""
        return read(self.files[place], self.side, self.channels, self.crop_ratio)[0]

    def whole(self, place: int) -> Any:
        """One image as it is in its file, for transforms.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return decode(self.files[place], self.channels, self.side)[0]
        except DataError as error:
            raise _broken([error], len(self.files)) from error

    def all(self) -> Tensor:
        """All of them as squares, read by several threads.

        Raises:
            DataError: one cannot be read; the others that cannot are counted.
        """
        if self._kept is None:
            self._kept = self._read()
        return self._kept

    def identity(self) -> Any:
        """Names and sizes of the files, and what becomes of them."""
        sizes = [file.stat().st_size if file.exists() else 0 for file in self.files]
        names = [f"{file.parent.name}/{file.name}" for file in self.files]
        return [names, torch.tensor(sizes), self.side, self.channels, self.crop_ratio]

    def _read(self) -> Tensor:
        total = len(self.files)
        found = torch.empty(total, *self.shape, dtype=torch.uint8)
        broken: list[DataError] = []

        def one(place: int) -> DataError | None:
            try:
                found[place] = self.one(place)
            except DataError as error:
                return error
            return None

        for done, error in enumerate(_in_threads(one, total), 1):
            if error is not None:
                broken.append(error)
                if len(broken) > _ENOUGH:
                    raise _broken(broken, done) from broken[0]
            if self.progress and (done % 500 == 0 or done == total):
                self.progress("reading images", done, total)
        if broken:
            raise _broken(broken, total) from broken[0]
        return found


def workers_here() -> int:
    """Threads or processes that decode images: the cores that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(WORKERS, cores))


def _in_threads(function: Callable[[int], Any], count: int) -> Iterator[Any]:
    """Results of 0, 1, .. in that order; Pillow lets go of Python's lock while it decodes."""
    with ThreadPoolExecutor(workers_here()) as pool:
        for first in range(0, count, _AT_ONCE):
            yield from pool.map(function, range(first, min(first + _AT_ONCE, count)))


def _broken(errors: list[DataError], total: int) -> DataError:
    if len(errors) == 1:
        return DataError(f"{errors[0]}. Mend, replace or remove it.")
    return DataError(f"{errors[0]}; so are {len(errors) - 1} more of {total}. Mend or remove what is broken.")


__all__ = ["Held", "ImageFiles", "Images", "Progress", "workers_here"]
