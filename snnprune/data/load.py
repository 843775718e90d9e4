"""load_data(): training, validation and test loaders from a name, a folder, an array file or code."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from ..errors import DataError, SnnPruneError, first_line
from ..files import check_name, file_errors, nearest
from ..memory import available_memory, check_memory
from ..options import Count, CountOrZero, Number, Part, Seed, Share, checked, path_of
from ..registry import load_factory
from ..shown import brief_repr
from . import sources
from .augment import FROM_FILES, Level
from .constants import check_pair, constants_of, numbers_of
from .folder import PHOTO, folder, mini_imagenet
from .loader import ArrayLoader, BatchLoader, DataInfo
from .parts import Held
from .splitting import resized, split, subset
from .streaming import StreamLoader

Loader = Iterable[Any]
_Side = Annotated[int, Number("a whole number of pixels from 1 to 4096", low=1, high=4096, whole=True)]
_Classes = Annotated[int, Number("a whole number from 1 to 1048576", low=1, high=2**20, whole=True)]
_Grey = Annotated[int, Number("1 (grey)", low=1, high=1, whole=True)]
_Colour = Annotated[int, Number("3 (colour)", low=3, high=3, whole=True)]
_Channels = _Grey | _Colour | None
_Ratio = Annotated[float, Number("a number above 0 and at most 1", low=0, high=1, above=True)]
Augment = Literal["auto", "none", "light", "standard", "strong"]
MEMORY = 0.125  # of what is free, for images


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
    augment: Augment | bool = "auto",
    crop_ratio: float | None = None,
    workers: int | None = None,
    memory: float = MEMORY,
    limit: int | None = None,
    num_classes: int | None = None,
    download: bool = True,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Splits:
    """Load a data set as three loaders.

    The validation part is carved from the training part, class by class, unless the source has its
    own; the test part is never used for a decision.

    Image files are decoded when they are first asked for, and only those of the part that is. Those that fit into
    a share of the memory stay there as bytes; others are read anew in every epoch, by worker processes.

    Args:
        name: a torchvision name (`mnist`, `fashion-mnist`, `kmnist`, `cifar10`, `cifar100`, `svhn`,
            `stl10`), `digits` (embedded), `fake`, `mini-imagenet`, a folder with `train/<class>/` and
            `test/<class>/` or `val/<class>/` (also `valid`, as exporters write it), a folder with nothing but
            `<class>/`, an `.npz` file, or `file.py:function` that returns (train, val, test) loaders; code in that
            file is run.
        root: where torchvision's sets lie or are put.
        batch_size: inputs per batch.
        image_size: side of the square images, in pixels; by default that of the data.
        channels: 1 for grey or 3 for colour, as the model takes them, of the images in a folder; by default grey
            if all its files are, else colour. Other sets have their own.
        mean: per channel, of pixels in [0, 1]; by default the set's own.
        std: per channel, likewise; both are given or none.
        val_fraction: share of the training part that becomes the validation part; of a folder with nothing but
            classes as much becomes the test part, the same images for every seed.
        augment: what is done to training images at random. `none`; `light`: shifted by up to an eighth, colour
            images also mirrored; `standard`: a random resized crop, colour images mirrored; `strong`: that,
            TrivialAugment and random erasing. `auto` (as True) is `standard` for folders of photos (more than 64
            pixels) and `light` for all else; False is `none`.
        crop_ratio: images in a folder are scaled until their shorter side is `image_size / crop_ratio`, and their
            middle is taken, as ImageNet's are; by default 0.875 for photos, and 1 for small images.
        workers: processes that read images which do not stay in memory, or are cropped at random; 0 is none, None
            one per core, at most 8.
        memory: share of the free memory that decoded images may take.
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
    given = {"mean": numbers_of("mean", mean), "std": numbers_of("std", std)}
    batch_size, limit = _option("batch_size", batch_size, Count), _option("limit", limit, Count | None)
    image_size, channels = (
        _option("image_size", image_size, _Side | None),
        _option("channels", channels, _Channels),
    )
    num_classes, seed = _option("num_classes", num_classes, _Classes | None), _option("seed", seed, Seed)
    val_fraction, memory = _option("val_fraction", val_fraction, Part), _option("memory", memory, Share)
    level, workers = _level(augment), _option("workers", workers, CountOrZero | None)
    crop_ratio = _option("crop_ratio", crop_ratio, _Ratio | None)
    root, download = path_of("root", root, DataError), _option("download", download, bool)
    if progress is not None and not callable(progress):
        raise DataError(f"progress={brief_repr(progress)} must be a function of (what, done, total), or None.")
    if ":" in name and not os.path.exists(name):  # noqa: PTH110  # which a name of any length may be asked for
        check_pair(given)
        return _from_code(name)
    check_name(Path(name), DataError)
    check_name(root, DataError)
    raw, kind = _raw(name, root, image_size, channels, num_classes, download, seed, crop_ratio, progress)
    test = raw.test
    if test is None:  # the same images whatever the seed is, so that none of them is ever learned from
        raw.train, test = split(raw.train, val_fraction, 0, what="test")
    train, val = (raw.train, raw.val) if raw.val is not None else split(raw.train, val_fraction, seed)
    if limit is not None:
        train = subset(train, limit, seed)
    train, val, test = (resized(part, image_size) for part in (train, val, test))
    shape = train[0].shape
    if channels is not None and channels != shape[0]:
        raise DataError(
            f"{name} has images of {shape[0]} channel{'s' * (shape[0] != 1)}; channels={channels} is for folders "
            "of images."
        )
    info = DataInfo(
        name,
        shape,
        raw.classes,
        constants_of("mean", given["mean"], raw.mean, shape[0]),
        constants_of("std", given["std"], raw.std, shape[0]),
        kind,
        getattr(train[0], "crop_ratio", None),
    )
    check_pair(given)
    if level is None:
        level = "standard" if kind == "folder" and max(shape[1:]) > PHOTO else "light"
    room = memory * available_memory()
    made: list[BatchLoader] = []
    for part, more in (
        (test, {}),
        (val, {}),
        (train, {"shuffle": True, "augment": level, "drop_last": True}),
    ):
        anew = more.get("augment") in FROM_FILES
        if not anew and not isinstance(part[0], Held):
            room -= part[0].nbytes
            anew = room < 0
        options: dict[str, Any] = {"batch_size": batch_size, "seed": seed, **more}
        if anew:
            made.append(StreamLoader(*part, info, workers=workers, **options))
        else:
            made.append(ArrayLoader(*part, info, **{**options, "augment": options.get("augment") == "light"}))
    return Splits(*reversed(made))


def _raw(
    name: str,
    root: Path,
    image_size: int | None,
    channels: int | None,
    num_classes: int | None,
    download: bool,
    seed: int,
    crop_ratio: float | None,
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
        return mini_imagenet(root, image_size, channels, seed, crop_ratio, progress), "folder"
    if name in sources.NAMES:
        return sources.named(name, root, download=download), "named"
    path = Path(name)
    if is_folder(name):
        return folder(path, image_size, channels, crop_ratio, progress), "folder"
    if path.suffix == ".npz" and path.is_file():
        return sources.arrays(path), "arrays"
    known = difflib.get_close_matches(name, sources.NAMES, 1)
    near = known[0] if known else nearest(path, lambda found: found.is_dir() or found.suffix == ".npz")
    hint = f" Did you mean {near}?" if near else ""
    if path.suffix == ".npz" or len(path.parts) > 1:
        raise DataError(f"data set {name!r}: there is no folder or .npz file of that name.{hint}")
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


def some(loader: Any, limit: int) -> BatchLoader:
    """The same loader with fewer samples, as many of each class where there are enough; others are not read.

    Raises:
        DataError: it is none of ours, of which nobody knows what it holds.
    """
    if not isinstance(loader, BatchLoader):
        raise DataError("a limit needs data by name, from a folder or an .npz file; other loaders have their own.")
    other = copy.copy(loader)
    other.samples, other.labels = subset((loader.samples, loader.labels), limit, 0)
    if hasattr(other, "origin"):
        other.origin = object()  # type: ignore[attr-defined]
    return other


def info_of(loader: Loader) -> DataInfo | None:
    """The `DataInfo` of a loader that `load_data` made."""
    info = getattr(loader, "info", None)
    return info if isinstance(info, DataInfo) else None


def _option(name: str, value: Any, kind: Any) -> Any:
    return checked(name, value, kind, DataError)


def _level(augment: Any) -> Level | None:
    """The level that was asked for; None where it is to be chosen by the data."""
    if isinstance(augment, bool):
        return None if augment else "none"
    if augment not in get_args(Augment):
        raise DataError(
            f"augment={brief_repr(augment)} is none of {', '.join(get_args(Augment))}, and neither True nor False."
        )
    return None if augment == "auto" else augment


def _name(name: object) -> str:
    """The name of a data set, which may be a path."""
    found = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(found, str):
        raise DataError(f"data set {brief_repr(name)} is no name. Give one such as 'digits', or a path.")
    return found
