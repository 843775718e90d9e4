"""load_data(): training, validation and test loaders from a name, a folder, an array file or code."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import DataError, SnnPruneError, first_line
from ..files import check_name, file_errors
from ..labels import classes_of
from ..memory import check_memory
from ..options import Count, Number, Part, Seed, checked, path_of
from ..registry import load_factory
from ..shown import brief_repr
from . import sources
from .folder import folder, mini_imagenet
from .loader import ArrayLoader, DataInfo

Loader = Iterable[Any]
_Side = Annotated[int, Number("a whole number of pixels from 1 to 4096", low=1, high=4096, whole=True)]
_Classes = Annotated[int, Number("a whole number from 1 to 1048576", low=1, high=2**20, whole=True)]
_Grey = Annotated[int, Number("1 (grey)", low=1, high=1, whole=True)]
_Colour = Annotated[int, Number("3 (colour)", low=3, high=3, whole=True)]
_Channels = _Grey | _Colour | None
_HUGE = 2**1000  # a whole number from a file may be beyond any fraction


class Splits(NamedTuple):
    """Training, validation and test loaders of (images, labels)."""

    train: Loader
    val: Loader
    test: Loader


@file_errors(DataError)
def load_data(
    name: str | os.PathLike[str],
    root: str | Path = "data",
    *,
    batch_size: int = 128,
    image_size: int | None = None,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    val_fraction: float = 0.1,
    augment: bool = True,
    limit: int | None = None,
    num_classes: int | None = None,
    download: bool = True,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Splits:
    """Load a data set as three loaders.

    The validation part is carved from the training part, class by class, unless the source has its
    own; the test part is never used for a decision.

    Args:
        name: a torchvision name (`mnist`, `fashion-mnist`, `kmnist`, `cifar10`, `cifar100`, `svhn`,
            `stl10`), `digits` (embedded), `fake`, `mini-imagenet`, a folder with `train/<class>/` and
            `test/<class>/` or `val/<class>/`, an `.npz` file, or `file.py:function` that returns
            (train, val, test) loaders; code in that file is run.
        root: where torchvision's sets lie or are put.
        batch_size: inputs per batch.
        image_size: side of the square images, in pixels; by default that of the data.
        channels: 1 for grey or 3 for colour, as the model takes them, of the images in a folder; by default grey
            if all its files are, else colour. Other sets have their own.
        mean: per channel, of pixels in [0, 1]; by default the set's own.
        std: per channel, likewise; both are given or none.
        val_fraction: share of the training part that becomes the validation part.
        augment: shift (and for colour mirror) training images at random; digits and other grey images
            are only shifted.
        limit: use only this many training images (a balanced random subset).
        num_classes: of `fake`.
        download: let torchvision download what is missing.
        seed: of split, order and augmentation.
        progress: called with (what, done, total) while images are read.

    Returns:
        (train, val, test): loaders of (images, labels). Images are float32 (batch, channels, height, width),
        normalised; labels int64 (batch,), or class probabilities (batch, classes) where an `.npz` holds those.
        What `file.py:function` returns is left as it is.

    Raises:
        DataError: the data set is missing, empty or malformed, or a number makes no sense.
        ModelFileError: the code of `file.py:function` cannot be loaded.

    Example:
        >>> train, val, test = snnprune.load_data("digits", batch_size=64)
        >>> images, labels = next(iter(train))
        >>> images.shape
        torch.Size([64, 1, 8, 8])
    """
    name = _name(name)
    given = {"mean": _numbers("mean", mean), "std": _numbers("std", std)}
    batch_size, limit = _option("batch_size", batch_size, Count), _option("limit", limit, Count | None)
    image_size, channels = (
        _option("image_size", image_size, _Side | None),
        _option("channels", channels, _Channels),
    )
    num_classes, seed = _option("num_classes", num_classes, _Classes | None), _option("seed", seed, Seed)
    val_fraction, augment = _option("val_fraction", val_fraction, Part), _option("augment", augment, bool)
    root, download = path_of("root", root, DataError), _option("download", download, bool)
    if progress is not None and not callable(progress):
        raise DataError(f"progress={brief_repr(progress)} must be a function of (what, done, total), or None.")
    if ":" in name and not os.path.exists(name):  # noqa: PTH110  # which a name of any length may be asked for
        _check_pair(given)
        return _from_code(name)
    check_name(Path(name), DataError)
    check_name(root, DataError)
    raw, kind = _raw(name, root, image_size, channels, num_classes, download, seed, progress)
    raw.train, raw.test = _resize(raw.train, image_size), _resize(raw.test, image_size)
    raw.val = None if raw.val is None else _resize(raw.val, image_size)
    shape = raw.train[0].shape[1:]
    if channels is not None and channels != shape[0]:
        raise DataError(f"{name} has images of {shape[0]} channels; channels={channels} is for folders of images.")
    info = DataInfo(
        name,
        (shape[0], shape[1], shape[2]),
        raw.classes,
        _constants("mean", given["mean"], raw.mean, shape[0]),
        _constants("std", given["std"], raw.std, shape[0]),
        kind,
    )
    _check_pair(given)
    train, val = (raw.train, raw.val) if raw.val is not None else _split(raw.train, val_fraction, seed)
    if limit is not None:
        train = _subset(train, limit, seed)
    kwargs: dict[str, Any] = {"batch_size": batch_size, "seed": seed}
    return Splits(
        ArrayLoader(*train, info, shuffle=True, augment=augment, drop_last=True, **kwargs),
        ArrayLoader(*val, info, **kwargs),
        ArrayLoader(*raw.test, info, **kwargs),
    )


def _raw(
    name: str,
    root: Path,
    image_size: int | None,
    channels: int | None,
    num_classes: int | None,
    download: bool,
    seed: int,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[sources.Raw, str]:
    if name == "digits":
        return sources.digits(), "named"
    if name == "fake":
        side, classes = 32 if image_size is None else image_size, 10 if num_classes is None else num_classes
        check_memory(
            f"fake, of {classes} classes at {side}x{side},",
            8 * 3 * classes * side * side,  # a pattern a class, and what it takes to draw one
            DataError,
            "Give a smaller num_classes or image_size.",
        )
        return sources.fake(side, classes), "fake"
    if name == "mini-imagenet":
        return mini_imagenet(root, image_size, channels, seed, progress), "folder"
    if name in sources.NAMES:
        return sources.named(name, root, download=download), "named"
    path = Path(name)
    if is_folder(name):
        return folder(path, image_size, channels, progress), "folder"
    if path.suffix == ".npz" and path.is_file():
        return sources.arrays(path), "arrays"
    if path.suffix == ".npz" or len(path.parts) > 1:
        raise DataError(f"data set {name!r}: there is no folder or .npz file of that name.")
    near = difflib.get_close_matches(name, sources.NAMES, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise DataError(
        f"data set {name!r} is neither a folder, an .npz file, file.py:function nor a known name "
        f"({', '.join(sources.NAMES)}).{hint}"
    )


def is_folder(name: str) -> bool:
    """Whether a data set of that name is read from image files, whose channels can be chosen."""
    return name == "mini-imagenet" or (name not in sources.NAMES and bool(name) and Path(name).is_dir())


def _from_code(spec: str) -> Splits:
    function = load_factory(spec)
    try:
        loaders = function()
    except SnnPruneError:
        raise
    except (Exception, SystemExit) as error:  # code that was written as a script may end the process
        raise DataError(f"{spec} fails ({type(error).__name__}: {first_line(error)}).") from error
    if not isinstance(loaders, (tuple, list)) or len(loaders) not in (2, 3):
        raise DataError(f"{spec} must return (train, val, test) or (train, val) loaders.")
    return Splits(loaders[0], loaders[1], loaders[-1])


def info_of(loader: Loader) -> DataInfo | None:
    """The `DataInfo` of a loader that `load_data` made."""
    info = getattr(loader, "info", None)
    return info if isinstance(info, DataInfo) else None


def _option(name: str, value: Any, kind: Any) -> Any:
    return checked(name, value, kind, DataError)


def _name(name: object) -> str:
    """The name of a data set, which may be a path."""
    found = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(found, str):
        raise DataError(f"data set {brief_repr(name)} is no name. Give one such as 'digits', or a path.")
    return found


def _numbers(what: str, given: Sequence[float] | None) -> tuple[float, ...] | None:
    """Constants as they may be: pixels in [0, 1] have their mean there, and no larger deviation."""
    if given is None:
        return None
    plain: Any = given.tolist() if isinstance(given, Tensor) else given
    found: list[Any] = list(plain) if isinstance(plain, Iterable) else [None]
    if not all(map(_is_number, found)):
        raise DataError(f"--{what} {brief_repr(given)} is no list of numbers, one a channel.")
    values = tuple(math.inf if abs(value) > _HUGE else float(value) for value in found)
    if not all(math.isfinite(value) for value in values):
        raise DataError(f"--{what} {list(values)} must be finite numbers.")
    if what == "std" and not all(value > 0 for value in values):
        raise DataError(f"--std {list(values)} must be positive.")
    if not all(0 <= value <= 1 for value in values):
        raise DataError(
            f"--{what} {list(values)} must lie between 0 and 1, as pixels do here; divide values for pixels up to "
            "255 by 255."
        )
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _constants(
    what: str, given: tuple[float, ...] | None, default: tuple[float, ...], channels: int
) -> tuple[float, ...]:
    values = default if given is None else given
    if len(values) == 1:
        values = values * channels
    if len(values) != channels:
        raise DataError(f"--{what} has {len(values)} values for images of {channels} channels.")
    return values


def _check_pair(given: dict[str, tuple[float, ...] | None]) -> None:
    """A mean of the user's own with a deviation of the data set's is what no model was trained with."""
    absent = [what for what, values in given.items() if values is None]
    if len(absent) == 1:
        other = "std" if absent == ["mean"] else "mean"
        raise DataError(
            f"--{other} {list(given[other] or ())} was given without --{absent[0]}. Give both, as in training, "
            "or none."
        )


def _resize(part: tuple[Tensor, Tensor], side: int | None) -> tuple[Tensor, Tensor]:
    images, labels = part
    if side is None or images.shape[-2:] == (side, side):
        return part
    parts = [
        F.interpolate(chunk.float(), (side, side), mode="bilinear", antialias=True).round().byte()
        for chunk in images.split(1024)
    ]
    return torch.cat(parts), labels


def _split(
    part: tuple[Tensor, Tensor], fraction: float, seed: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Carve a validation part out of every class."""
    images, labels = part
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for own in _by_class(classes_of(labels)):
        if len(own) > 1:
            count = max(1, round(fraction * len(own)))
            chosen[own[torch.randperm(len(own), generator=generator)[:count]]] = True
    if not bool(chosen.any()):
        raise DataError("no class has two images, so no validation part can be carved from the training data.")
    return (images[~chosen], labels[~chosen]), (images[chosen], labels[chosen])


def _by_class(known: Tensor) -> list[Tensor]:
    """Where each class stands, in ascending order, found by one sort: there may be 100,000 classes."""
    counts = known.unique(return_counts=True)[1]
    return list(known.argsort(stable=True).split(counts.tolist()))


def _subset(part: tuple[Tensor, Tensor], limit: int, seed: int) -> tuple[Tensor, Tensor]:
    if limit >= len(part[1]):
        return part
    images, labels = part
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    rank = torch.empty(len(labels), dtype=torch.long)  # of an image among those of its class
    for own in _by_class(classes_of(labels)[order]):
        rank[order[own]] = torch.arange(len(own))
    chosen = order[rank[order].argsort(stable=True)[:limit]].sort().values
    return images[chosen], labels[chosen]
