"""Raw data: images and labels from torchvision's sets, folders, arrays, scikit-learn, or a generator."""

from __future__ import annotations

import contextlib
import io
import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, first_line
from ..labels import read_labels
from ..memory import check_unpacked
from .parts import Held, Images

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = ((0.5,), (0.5,))
_CONSTANTS = {
    "mnist": ((0.1307,), (0.3081,)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "kmnist": ((0.1918,), (0.3483,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "stl10": ((0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
}
_CLASSES = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
    "stl10": "STL10",
}
NAMES = ("digits", "fake", "mini-imagenet", *_CONSTANTS)
_MAX_LABEL = 2**20
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_HEAD = 2**14  # bytes; NumPy takes headers of up to 10,000
_HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(slots=True)
class Raw:
    """Images with labels: a training part, and a test and a validation part where the source has them."""

    train: tuple[Images, Tensor]
    test: tuple[Images, Tensor] | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    val: tuple[Images, Tensor] | None = None


def digits() -> Raw:
    """scikit-learn's 1,797 handwritten digits, 8x8; every fifth image of a fixed order is the test set."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    images = torch.from_numpy(np.rint(x.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8))
    labels = torch.from_numpy(y.astype(np.int64))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[order[::5]] = True
    names = tuple(str(i) for i in range(10))
    mean, std = images[~test].float().mean() / 255, images[~test].float().std() / 255
    return Raw(
        (Held(images[~test]), labels[~test]),
        (Held(images[test]), labels[test]),
        names,
        (round(float(mean), 4),),
        (round(float(std), 4),),
    )


def fake(image_size: int = 32, classes: int = 10, count: int = 512) -> Raw:
    """Noise with a weak pattern per class; for trying commands out."""
    generator = torch.Generator().manual_seed(0)
    pattern = torch.rand(classes, 3, image_size, image_size, generator=generator)

    def part(n: int) -> tuple[Images, Tensor]:
        labels = torch.randint(0, classes, (n,), generator=generator)
        noise = torch.rand(n, 3, image_size, image_size, generator=generator)
        return Held(((0.5 * pattern[labels] + 0.5 * noise) * 255).to(torch.uint8)), labels

    return Raw(part(count), part(count // 4), tuple(str(i) for i in range(classes)), *IMAGENET)


def named(name: str, root: Path, *, download: bool) -> Raw:
    """One of torchvision's data sets.

    Raises:
        DataError: it is neither on disk nor can it be downloaded.
    """
    from torchvision import datasets

    make: Any = getattr(datasets, _CLASSES[name])
    split = name in ("svhn", "stl10")

    def part(train: bool) -> Any:
        which = {"split": "train" if train else "test"} if split else {"train": train}
        try:
            return make(str(root), download=False, **which)
        except RuntimeError as missing:
            if not download:
                raise DataError(
                    f"data set {name} is not in {root} ({missing}). Give its place with --data-root, "
                    "or allow the download."
                ) from missing
        before = _folders(root)
        try:
            return make(str(root), download=True, **which)
        except Exception as error:
            _remove_empty(root, before)
            raise DataError(
                f"data set {name} is not in {root} and could not be downloaded ({error}). "
                "Give the folder that holds it with --data-root."
            ) from error

    try:
        sets = [part(True), part(False)]
        classes = tuple(str(c) for c in getattr(sets[0], "classes", range(10)))
        return Raw(_bytes(sets[0]), _bytes(sets[1]), classes, *_CONSTANTS[name])
    except DataError:
        raise
    except Exception as error:  # torchvision lets through whatever reading a damaged file gives
        raise DataError(
            f"the files of {name} in {root} are damaged ({first_line(error)}). Remove them to load them anew."
        ) from error


def _folders(root: Path) -> set[Path]:
    """All that there are below a place, itself and those that it lies in."""
    place = root.expanduser().absolute()  # as torchvision does
    below = {Path(folder) for folder, _, _ in os.walk(place)}
    return below | {path for path in (place, *place.parents) if path.exists()}


def _remove_empty(root: Path, before: set[Path]) -> None:
    """Take away the empty folders that a failed download has made: those that were not there before."""
    made = _folders(root) - before
    for folder in sorted(made, key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError):  # it is not empty
            folder.rmdir()


def _bytes(dataset: Any) -> tuple[Images, Tensor]:
    data = torch.as_tensor(np.asarray(dataset.data))
    labels = getattr(dataset, "targets", None)
    labels = torch.as_tensor(np.asarray(dataset.labels if labels is None else labels)).long()
    if data.dim() == 3:
        data = data[:, None]
    elif data.shape[-1] == 3:
        data = data.permute(0, 3, 1, 2)
    return Held(data.contiguous().to(torch.uint8)), labels


def arrays(path: Path) -> Raw:
    """An `.npz` with x_train, y_train, x_test, y_test; images uint8, (n, h, w) or (n, h, w, channels).

    What the archive announces is looked at before anything is read.

    Raises:
        DataError: a missing or wrong array, one that unpacks to far more than is stored, or too much for memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [key for key in _ARRAYS if not {key, f"{key}.npy"} & set(archive.namelist())]
            if missing:
                raise DataError(f"{path} lacks the arrays {', '.join(sorted(missing))}.")
            sizes = [_announced(path, archive, key) for key in _ARRAYS]
            check_unpacked(
                path,
                sum(sizes) + max(sizes),  # one of them is copied at a time
                path.stat().st_size,
                DataError,
                "Give a smaller file, or your own loaders with --data file.py:function.",
            )
            found = {}
            for key in _ARRAYS:
                with archive.open(f"{key}.npy") as member:
                    found[key] = np.lib.format.read_array(member, allow_pickle=False)
    except DataError:
        raise
    except Exception as error:  # zip, zlib and numpy each have their own for a damaged archive
        raise DataError(f"{path} is no readable .npz archive ({first_line(error)}).") from error

    def part(kind: str) -> tuple[Held, Tensor]:
        x, y = (np.asarray(found[f"{letter}_{kind}"]) for letter in "xy")
        if x.ndim not in (3, 4) or not x.size:
            raise _wrong(path, f"x_{kind}", f"{x.dtype} {x.shape}")
        labels = _labels(path, f"y_{kind}", y, len(x))
        images = torch.from_numpy(x)
        images = images[:, None] if x.ndim == 3 else images.permute(0, 3, 1, 2)
        if images.shape[1] not in (1, 3):
            raise DataError(f"{path}: x_{kind} has {images.shape[1]} channels; 1 or 3 are needed.")
        return Held(images.contiguous()), labels

    train, test = part("train"), part("test")
    if train[0].shape != test[0].shape:
        raise DataError(f"{path}: training images are {train[0].shape}, test {test[0].shape}.")
    classes = tuple(str(i) for i in range(max(_count(train[1]), _count(test[1]))))
    return Raw(train, test, classes, *(IMAGENET if train[0].shape[0] == 3 else GREY))


def _labels(path: Path, key: str, y: np.ndarray[Any, Any], count: int) -> Tensor:
    need = f"{path}: {key} must hold {count} integer labels from 0 to {_MAX_LABEL - 1}, or class probabilities"
    try:
        labels = read_labels(torch.from_numpy(y if y.dtype.kind == "f" else y.astype(np.int64)))
    except DataError as error:
        raise DataError(f"{need}: {error}") from error
    if len(labels) != count or _count(labels) > _MAX_LABEL:
        raise DataError(f"{need}, not {y.dtype} {y.shape}.")
    return labels


def _count(labels: Tensor) -> int:
    """Classes that an array of labels tells of."""
    return labels.shape[1] if labels.dim() == 2 else 1 + int(labels.max())


def _announced(path: Path, archive: zipfile.ZipFile, key: str) -> int:
    """Bytes that an array will take by its header, which has to be right about what follows it."""
    if f"{key}.npy" not in archive.namelist():
        raise _wrong(path, key, "a file that is no array")
    info = archive.getinfo(f"{key}.npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}: {key} is compressed in a way that NumPy never writes. Save it with numpy.savez.")
    size = info.file_size
    with archive.open(info) as member:
        head = io.BytesIO(member.read(_HEAD))  # NumPy would read as much as the header asks for
    version = np.lib.format.read_magic(head)
    if version not in _HEADERS:
        raise _wrong(path, key, f"an array of version {version}")
    shape, _, dtype = _HEADERS[version](head)
    start = head.tell()
    if dtype != np.uint8 if key[0] == "x" else dtype.kind not in ("iubf" if len(shape) == 2 else "iub"):
        raise _wrong(path, key, f"{dtype} {shape}")
    if math.prod(shape) * dtype.itemsize != size - start:
        raise DataError(f"{path}: {key} claims the shape {shape}, but holds {size - start} bytes; it is damaged.")
    return size if key[0] == "x" else max(size, 8 * math.prod(shape))  # labels become integers of 64 bits


def _wrong(path: Path, key: str, what: str) -> DataError:
    need = (
        "uint8 (n, h, w[, channels]), from 0 to 255,"
        if key[0] == "x"
        else "integer labels, one per image, or class probabilities"
    )
    return DataError(f"{path}: {key} must be {need}, not {what}.")
