"""Folders of images, one folder a class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError, first_line
from ..memory import check_memory
from .sources import GREY, IMAGENET, Raw

_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
# Told by their content, and only these: of all that Pillow knows, EPS files are programs for Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "PPM", "TIFF")
_SMALL, _PER_BYTE = 2**24, 200  # pixels that any file may have, and per byte of larger ones; photos have 2 to 20
_MAX_PIXELS = 2**28  # of one image on its way to its size
Progress = Callable[[str, int, int], None]


def folder(path: Path, image_size: int | None, progress: Progress | None = None) -> Raw:
    """`train/<class>/`, and `test/<class>/` or `val/<class>/` (or both).

    Images are read into memory at one size: `image_size`, or the size of the first image when all
    may be small (at most 64 pixels), else 224.

    Raises:
        DataError: no such layout, an empty class folder, an unreadable image, or too much for memory.
    """
    train = path / "train"
    test = path / "test" if (path / "test").is_dir() else path / "val"
    if not train.is_dir() or not test.is_dir():
        raise DataError(f"{path} must hold train/<class>/ and test/<class>/ or val/<class>/ folders.")
    classes = _classes(train)
    found = {"train": _files(train, classes), "test": _files(test, classes)}
    if test.name == "test" and (path / "val").is_dir():
        found["val"] = _files(path / "val", classes)
    with _open(found["train"][0][0]) as first:
        side = image_size or (max(first.size) if max(first.size) <= 64 else 224)
        mode = "L" if first.mode in ("1", "L", "I;16") else "RGB"
    total = sum(len(files) for files in found.values())
    _check_memory(path, total, side, 1 if mode == "L" else 3)
    done = 0
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    for kind, files in found.items():
        images = torch.empty(len(files), 1 if mode == "L" else 3, side, side, dtype=torch.uint8)
        for i, (file, _) in enumerate(files):
            images[i] = _read(file, side, mode)
            done += 1
            if progress and (done % 500 == 0 or done == total):
                progress("reading images", done, total)
        parts[kind] = images, torch.tensor([label for _, label in files])
    mean, std = GREY if mode == "L" else IMAGENET
    return Raw(parts["train"], parts["test"], tuple(classes), mean, std, parts.get("val"))


def mini_imagenet(path: Path, image_size: int | None, seed: int, progress: Progress | None = None) -> Raw:
    """A folder of 100 classes with 600 images each, split 500/100 per class by seed.

    The protocol of arXiv 2110.05954, section 4. An `images/` or `train/` folder inside is found too.
    """
    inner = next((path / n for n in ("images", "train") if (path / n).is_dir()), path)
    if not inner.is_dir():
        raise DataError(f"{path} is no folder with one folder per class.")
    classes = _classes(inner)
    generator = np.random.default_rng(seed)
    side = image_size or 84
    parts: dict[str, list[tuple[Path, int]]] = {"train": [], "test": []}
    files = _files(inner, classes)
    _check_memory(path, len(files), side, 3)
    for label in range(len(classes)):
        own = [item for item in files if item[1] == label]
        own = [own[i] for i in generator.permutation(len(own))]
        cut = round(len(own) * 5 / 6)
        parts["train"] += own[:cut]
        parts["test"] += own[cut:]
    made = {}
    done, total = 0, len(files)
    for kind, chosen in parts.items():
        images = torch.empty(len(chosen), 3, side, side, dtype=torch.uint8)
        for i, (file, _) in enumerate(chosen):
            images[i] = _read(file, side, "RGB")
            done += 1
            if progress and done % 500 == 0:
                progress("reading images", done, total)
        made[kind] = images, torch.tensor([label for _, label in chosen])
    return Raw(made["train"], made["test"], tuple(classes), *IMAGENET)


def _check_memory(path: Path, count: int, side: int, channels: int) -> None:
    check_memory(
        f"{path}: {count} images at {side}x{side}",
        count * side * side * channels,
        DataError,
        "Give a smaller --image-size, or your own loaders with --data file.py:function.",
    )


def _classes(path: Path) -> list[str]:
    names = sorted(p.name for p in path.iterdir() if p.is_dir())
    if len(names) < 2:
        raise DataError(f"{path} holds {len(names)} class folders; at least 2 are needed.")
    return names


def _files(path: Path, classes: list[str]) -> list[tuple[Path, int]]:
    extra = sorted({p.name for p in path.iterdir() if p.is_dir()} - set(classes))
    if extra:
        raise DataError(f"{path} has the class {extra[0]!r}, which the training folder lacks.")
    found = []
    for label, name in enumerate(classes):
        own = path / name
        files = []
        if own.is_dir():  # a pipe named like an image would never end
            files = sorted(p for p in own.iterdir() if p.suffix.lower() in _ENDINGS and p.is_file())
        if not files:
            raise DataError(f"{own} holds no image. Remove the class from the data, or add images to it.")
        found += [(file, label) for file in files]
    return found


def _open(file: Path) -> Image.Image:
    try:
        return Image.open(file, formats=_FORMATS)
    except Exception as error:
        raise DataError(f"{file} is no readable image ({first_line(error)}).") from error


def _read(file: Path, side: int, mode: str) -> Tensor:
    """One image: shorter side to `side`, centre crop."""
    try:
        with Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            if side * side * max(width, height) > _MAX_PIXELS * min(width, height):
                raise ValueError(f"{width}x{height} pixels cannot be brought to {side}x{side}")
            if width * height > max(_SMALL, _PER_BYTE * file.stat().st_size):
                raise ValueError(f"{width}x{height} pixels in so small a file fill the memory; scale it down")
            image = image.convert(mode)
            if (width, height) != (side, side):
                scale = side / min(width, height)
                size = max(side, round(width * scale)), max(side, round(height * scale))
                image = image.resize(size, Image.Resampling.BILINEAR)
                left, top = (size[0] - side) // 2, (size[1] - side) // 2
                image = image.crop((left, top, left + side, top + side))
            array = np.asarray(image)
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise DataError(f"{file} is no readable image ({first_line(error)}).") from error
    tensor = torch.from_numpy(array.copy())
    return tensor[None] if tensor.dim() == 2 else tensor.permute(2, 0, 1)
