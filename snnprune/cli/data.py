"""How commands load data: as the model takes them, and with a word about what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import parse
from .progress import Display
from .show import say


def load_splits(
    data: str,
    opened: Any,
    display: Display,
    *,
    root: Path,
    mean: str | None = None,
    std: str | None = None,
    image_size: int | None = None,
    crop_ratio: float | None = None,
    **options: Any,
) -> Any:
    """Training, validation and test loaders.

    Folders are read as the model takes them. A run and its ONNX file bring their own normalisation, and size and
    cut of images; what is given on the command line goes before that.

    Args:
        data: as given on the command line.
        opened: the model with what is recorded of it in `structure`, or None.
        display: is told while images are read.
        root: where torchvision's sets lie.
        mean: as given.
        std: as given.
        image_size: as given.
        crop_ratio: as given.
        options: further ones of `load_data`.
    """
    from ..data import BatchLoader, load_data
    from ..data.load import is_folder
    from ..runs.examples import image_channels

    constants: dict[str, Any] = {"mean": parse.numbers(mean, "--mean"), "std": parse.numbers(std, "--std")}
    recorded = (opened.structure if opened is not None else None) or {}
    known = recorded.get("normalization")
    if isinstance(known, dict) and mean is None and std is None:
        constants = {"mean": known.get("mean"), "std": known.get("std")}
    channels = None
    if is_folder(data):
        image_size = _side(recorded) if image_size is None else image_size
        crop_ratio = recorded.get("crop_ratio") if crop_ratio is None else crop_ratio
        if image_size is None or image_size > 0:  # if not, load_data says so
            channels = image_channels(opened, image_size)
    display.stage("data")
    splits = load_data(
        data,
        root,
        image_size=image_size,
        crop_ratio=crop_ratio,
        channels=channels,
        progress=display.reading,
        **constants,
        **options,
    )
    if isinstance(splits.train, BatchLoader):
        for line in _described(splits):
            say(line)
    return splits


def _side(recorded: dict[str, Any]) -> int | None:
    """Side of the square images that a run was learned with."""
    shape = recorded.get("input_shape")
    square = isinstance(shape, list) and len(shape) == 3 and type(shape[1]) is int and shape[1] == shape[2]
    return shape[1] if square else None  # type: ignore[index]


def _described(splits: Any) -> list[str]:
    """Sizes of the parts, and what becomes of images."""
    train, info = splits.train, splits.train.info
    train_size, val_size, test_size = (len(loader.samples) for loader in splits)
    sizes = f"{train_size:,} training, {val_size:,} validation and {test_size:,} test images"
    channels, height, width = info.shape
    colours = "1 channel" if channels == 1 else f"{channels} channels"
    cut = f", the middle of {round(height / info.crop_ratio)}" if info.crop_ratio not in (None, 1.0) else ""
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (info.mean, info.std))
    anew = [name for name, loader in zip(splits._fields, splits, strict=True) if hasattr(loader, "num_workers")]
    more = f"; read anew whenever they are needed: {', '.join(anew)}" if anew else ""
    return [
        f"{info.name}: {sizes} of {len(info.classes):,} classes",
        f"images {height}x{width}{cut}, {colours}, normalised by mean {mean} and std {std}",
        f"augmentation of training images: {train.augment}{more}",
    ]
