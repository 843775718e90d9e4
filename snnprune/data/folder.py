"""Folders of images, one folder a class."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .images import ENDINGS, check_depth, look
from .parts import ImageFiles, Images, Progress
from .sources import GREY, IMAGENET, Raw

logger = logging.getLogger(__name__)
_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
PHOTO = 64  # pixels: what is larger is a photo
CROP_RATIO = 0.875  # of photos, as nearly all networks for ImageNet are measured
Files = list[tuple[Path, int]]


def folder(
    path: Path,
    image_size: int | None,
    channels: int | None,
    crop_ratio: float | None = None,
    progress: Progress | None = None,
) -> Raw:
    """`train/<class>/` with `test/<class>/` or `val/<class>/` (or both), or nothing but `<class>/`.

    Folders of parts may have the names that exporters give them, such as `valid`. Nothing is decoded. Images will
    come to one size: `image_size`, or the size of the first image when all may be small (at most 64 pixels), else
    224. Without `channels` they are grey if all files are; without `crop_ratio` photos are cut from 8/7 of their
    size, as ImageNet's are, and small images are taken whole.

    Raises:
        DataError: no such layout, or a class without images.
    """
    places = _parts(path)
    train = places.pop("train", path)
    classes = _classes(train)
    found = {"train": _files(train, classes)}
    if train == path and not found["train"]:
        raise DataError(
            f"{path} must hold train/<class>/ and test/<class>/ or val/<class>/ folders, or a folder of images "
            "for each class."
        )
    _check_training(train, found["train"], classes)
    if "test" not in places and "val" in places:
        places["test"] = places.pop("val")
    found |= {kind: _other_part(place, classes) for kind, place in places.items()}
    files = [file for part in found.values() for file, _ in part]
    if channels is None:
        channels = 3 if any(colour for _, colour in _looks(files)) else 1
    side = image_size
    if side is None:
        longest = max(next(_looks(files), ((0, 0), True))[0])
        side = longest if 0 < longest <= PHOTO else 224
    ratio = crop_ratio if crop_ratio is not None else CROP_RATIO if side > PHOTO else 1.0
    check_depth(path, files)
    parts = {kind: _part(path, own, side, channels, ratio, progress) for kind, own in found.items()}
    mean, std = GREY if channels == 1 else IMAGENET
    return Raw(parts["train"], parts.get("test"), tuple(classes), mean, std, parts.get("val"))


def mini_imagenet(
    path: Path,
    image_size: int | None,
    channels: int | None,
    seed: int,
    crop_ratio: float | None = None,
    progress: Progress | None = None,
) -> Raw:
    """A folder of 100 classes with 600 images each, split 500/100 per class by seed.

    The protocol of arXiv 2110.05954, section 4. An `images/` or `train/` folder inside is found too.
    """
    inner = next((path / n for n in ("images", "train") if (path / n).is_dir()), path)
    if not inner.is_dir():
        raise DataError(f"{path} is no folder with one folder per class.")
    classes = _classes(inner)
    generator = np.random.default_rng(seed)
    found: dict[str, Files] = {"train": [], "test": []}
    files = _files(inner, classes)
    _check_training(inner, files, classes)
    for _, group in itertools.groupby(files, key=lambda item: item[1]):
        own = list(group)
        own = [own[i] for i in generator.permutation(len(own))]
        cut = round(len(own) * 5 / 6)
        found["train"] += own[:cut]
        found["test"] += own[cut:]
    channels = channels or 3
    check_depth(path, [file for file, _ in files])
    train, test = (
        _part(path, own, image_size or 84, channels, crop_ratio or 1.0, progress) for own in found.values()
    )
    return Raw(train, test, tuple(classes), *(GREY if channels == 1 else IMAGENET))


def _parts(path: Path) -> dict[str, Path]:
    """Folders of parts by what they are for; none where `path` holds classes itself."""
    inside = {place.name.lower(): place for place in sorted(path.iterdir()) if place.is_dir()}
    found = {kind: inside[name] for kind, names in _NAMES.items() for name in names if name in inside}
    if found and "train" not in found:
        raise DataError(
            f"{path} must hold train/<class>/ besides {next(iter(found.values())).name}/<class>/, to learn from."
        )
    return found


def _part(
    path: Path, files: Files, side: int, channels: int, crop_ratio: float, progress: Progress | None
) -> tuple[Images, Tensor]:
    images = ImageFiles(path, [file for file, _ in files], side, channels, crop_ratio, progress)
    return images, torch.tensor([label for _, label in files])


def _looks(files: list[Path]) -> Iterator[tuple[tuple[int, int], bool]]:
    """Sizes and colours of the files that can be read; the others are named when all are."""
    for file in files:
        try:
            yield look(file)
        except DataError:
            continue


def _classes(path: Path) -> list[str]:
    names = _folders(path)
    if len(names) < 2:
        raise DataError(
            f"{path} holds {len(names)} class folder{'s' * (len(names) != 1)}; at least 2 are needed. Put the "
            "images of each class into a folder of their own, named like the class."
        )
    return names


def _folders(path: Path) -> list[str]:
    """Class folders; hidden ones such as `.ipynb_checkpoints` are none."""
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not _hidden(p))


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _files(path: Path, classes: list[str]) -> Files:
    found: Files = []
    for label, name in enumerate(classes):
        own = path / name
        if own.is_dir():  # a pipe named like an image would never end
            files = (p for p in own.iterdir() if p.suffix.lower() in ENDINGS and not _hidden(p) and _is_file(p))
            found += [(file, label) for file in sorted(files)]
    return found


def _is_file(path: Path) -> bool:
    """Whether to read it; a link that leads nowhere is named when it is read, and not passed over."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _check_training(path: Path, files: Files, classes: list[str]) -> None:
    """Refuse classes that there is nothing to learn from."""
    empty = _absent(files, classes)
    if empty:
        raise DataError(
            f"{path / empty[0]} holds no image{_more(empty, len(classes))}. Remove the class from the data, or "
            "add images to it."
        )


def _other_part(path: Path, classes: list[str]) -> Files:
    """Files of a validation or test part, which may lack classes that are learned."""
    known = set(classes)
    extra = [name for name in _folders(path) if name not in known]
    if extra:
        raise DataError(
            f"{path} has the class {extra[0]!r}, which the training folder lacks{_more(extra, len(extra))}. "
            "Rename or remove it, or give training images of it."
        )
    files = _files(path, classes)
    empty = _absent(files, classes)
    if not files:
        raise DataError(f"{path} holds no image of any of the {len(classes)} classes.")
    if empty:
        logger.warning("%s holds no image of the class %r%s", path, empty[0], _more(empty, len(classes)))
    return files


def _absent(files: Files, classes: list[str]) -> list[str]:
    have = {label for _, label in files}
    return [name for label, name in enumerate(classes) if label not in have]


def _more(names: list[str], total: int) -> str:
    return f" (the same goes for {len(names) - 1} more of {total} classes)" if len(names) > 1 else ""
