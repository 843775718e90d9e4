"""How commands load data: as the model takes them, and with a word about what they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import parse
from .options import BatchSize, CropRatio, DataRoot, Mean, Network, Std, ValSplit, Workers
from .progress import Display
from .show import say


@dataclass(frozen=True, slots=True)
class DataOptions:
    """How data are read."""

    data_root: DataRoot = Path("data")
    mean: Mean = None
    std: Std = None
    crop_ratio: CropRatio = None
    val_split: ValSplit = 0.1
    workers: Workers = None
    batch_size: BatchSize = 128


def load_splits(
    data: str, opened: Any, display: Display, network: Network, asked: DataOptions, **options: Any
) -> Any:
    """Training, validation and test loaders.

    Folders are read as the model takes them. A run and its ONNX file bring their own normalisation, and size and
    cut of images; what is given on the command line goes before that.

    Args:
        data: as given on the command line.
        opened: the model with what is recorded of it in `structure`, or None.
        display: is told while images are read.
        network: what the model was opened with; the size of its images and its classes count.
        asked: how the data are read.
        options: further ones of `load_data`, such as `augment`.
    """
    from ..data import BatchLoader, load_data
    from ..data.load import is_folder
    from ..runs.examples import image_channels

    image_size, crop_ratio = network.image_size, asked.crop_ratio
    mean, std = parse.numbers(asked.mean, "--mean"), parse.numbers(asked.std, "--std")
    constants: dict[str, Any] = {"mean": mean, "std": std}
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
        asked.data_root,
        image_size=image_size,
        crop_ratio=crop_ratio,
        channels=channels,
        progress=display.reading,
        val_fraction=asked.val_split,
        workers=asked.workers,
        batch_size=asked.batch_size,
        num_classes=network.num_classes,
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
