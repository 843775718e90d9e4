"""One image file: which way is up, what counts as white, and how it comes to a given size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError, first_line

logger = logging.getLogger(__name__)
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
# Told by their content, and only these: of all that Pillow knows, EPS files are programs for Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "PPM", "TIFF")
_GREY = ("1", "L", "LA", "I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_SMALL, _PER_BYTE = 2**24, 200  # pixels that any file may have, and per byte of larger ones; photos have 2 to 20
_MAX_PIXELS = 2**28  # of one image on its way to its size
_TOP = 65535  # white in 16 bits
_LOOKED_AT = 500  # files of a data set, for how bright they are
_DARK, _DIM = 2**12, 2**14  # where 16-bit values that all lie below are 12, or may be 14 bits
_BITS, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274  # tags of TIFF; EXIF shares the last one
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def look(file: Path) -> tuple[tuple[int, int], bool]:
    """(width, height) before it is turned upright, and whether it has colours; of the file's header alone.

    Raises:
        DataError: it has none that can be read.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            return image.size, image.mode not in _GREY
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise DataError(f"{file} is no readable image ({first_line(error)})") from error


def decode(file: Path, channels: int, side: int) -> tuple[Image.Image, int | None]:
    """An image, upright, of 8 bits a channel.

    Transparency is dropped and the colours beneath it stay, as torchvision's image folders do it.

    Args:
        file: of a format that is known here.
        channels: 1 for grey, 3 for colour.
        side: of the square that it will become; what cannot be brought to it within some memory is refused.

    Returns:
        The image, and the highest value if the file has 16 bits and does not tell how many of them are used.

    Raises:
        DataError: it cannot be read, or nothing tells which value is white; the text ends without a full stop.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            if side * side * max(width, height) > _MAX_PIXELS * min(width, height):
                raise ValueError(f"{width}x{height} pixels cannot be brought to {side}x{side}")
            if width * height > max(_SMALL, _PER_BYTE * file.stat().st_size):
                raise ValueError(f"{width}x{height} pixels in so small a file fill the memory; scale it down")
            plain, peak = _bytes(image)
            return _coloured(_upright(plain, image), channels), peak
    except Exception as error:
        raise DataError(f"{file} is no readable image ({first_line(error)})") from error


def square(image: Image.Image, side: int, crop_ratio: float) -> Tensor:
    """The middle of an image: its shorter side is brought to `side / crop_ratio`, then a square is cut out.

    This is what torchvision's `Resize(round(side / crop_ratio))` and `CenterCrop(side)` do.

    Returns:
        (channels, side, side) uint8.
    """
    from torchvision.transforms.v2 import functional

    plain: Any = image
    shorter = max(side, round(side / crop_ratio))
    if min(image.size) != shorter:
        plain = functional.resize(plain, [shorter])
    return as_bytes(functional.center_crop(plain, [side, side]))


def as_bytes(image: Any) -> Tensor:
    """An image of Pillow's as (channels, height, width) uint8."""
    tensor = torch.from_numpy(np.array(image))
    return tensor[None] if tensor.dim() == 2 else tensor.permute(2, 0, 1)


def read(file: Path, side: int, channels: int, crop_ratio: float = 1.0) -> tuple[Tensor, int | None]:
    """An image as `decode` and then `square` give it.

    Returns:
        (channels, side, side) uint8, and the highest value as `decode` tells it.

    Raises:
        DataError: as `decode` does; or it cannot be brought to that size.
    """
    image, peak = decode(file, channels, side)
    try:
        return square(image, side, crop_ratio), peak
    except Exception as error:
        raise DataError(f"{file} is no readable image ({first_line(error)})") from error


def check_depth(path: Path, files: Sequence[Path]) -> None:
    """Refuse 16-bit images that are all so dark that they must hold fewer bits; nothing else tells them apart.

    Args:
        path: of the data set.
        files: of its images. Of many a choice is looked at, and of those only the ones that have 16 bits are read,
            until one is bright.

    Raises:
        DataError: none has a value that needs more than 12 bits.
    """
    peaks: dict[Path, int] = {}
    for file in files[:: -(-len(files) // _LOOKED_AT) or 1]:
        try:
            peak = decode(file, 3, 1)[1] if _is_deep(file) else None
        except DataError:  # it is named when it is asked for
            continue
        if peak is not None:
            peaks[file] = peak
            if peak >= _DIM:
                return
    if not peaks:
        return
    top = max(peaks.values())
    text = (
        f"{path}: none of the {len(peaks)} images of 16 bits, such as {next(iter(peaks))}, has a value above "
        f"{top} of {_TOP}, as with cameras of fewer bits, so that all of them would be dark. Scale them to all 16 "
        "bits, or save them with 8"
    )
    if top < _DARK:
        raise DataError(f"{text}.")
    logger.warning("%s, unless the model was trained on images as dark", text)


def _is_deep(file: Path) -> bool:
    """Whether a file's header tells of 16 bits or more."""
    try:
        with Image.open(file, formats=_FORMATS) as image:
            return image.mode[0] in "IF" or ";16" in str(getattr(image, "tile", ""))
    except Exception:  # it is named when it is asked for
        return False


def _bytes(image: Image.Image) -> tuple[Image.Image, int | None]:
    """The image with 8 bits a channel, which Pillow's own conversion would cut off at 255, and its peak."""
    deep = image.format in ("PNG", "TIFF") and ";16" in str(getattr(image, "tile", ""))  # known until it is loaded
    tags = getattr(image, "tag_v2", {})
    image.load()
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ValueError(
            f"mode {image.mode}, {'fractions' if image.mode == 'F' else 'integers of 32 bits'}, of which nothing "
            "tells which value is white; save it with 8 or 16 bits"
        )
    if image.mode != "I" and not image.mode.startswith("I;16"):
        if not deep:
            return image, None
        opaque = image.convert("RGB") if "A" in image.getbands() else image
        return image, int(np.asarray(opaque).max()) * 256 + 255  # Pillow keeps the upper byte of each channel
    values = np.asarray(image).astype(np.uint32)
    white = 2 ** tags[_BITS][0] - 1 if _BITS in tags else _TOP
    # Netpbm files tell their white and Pillow has scaled them by it, as PNG files of older Pillows come as I too.
    peak = int(values.max()) if white == _TOP and image.format != "PPM" else None
    if tags.get(_PHOTOMETRIC) == 0:  # 0 is white
        values = white - values
    return Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8)), peak


def _upright(plain: Image.Image, source: Image.Image) -> Image.Image:
    """The image as its EXIF orientation says."""
    if source.format == "TIFF":  # Pillow has seen to it when it was loaded; older versions tell of it all the same
        return plain
    try:
        turn = _UPRIGHT.get(source.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged notes beside a picture that is whole
        return plain
    return plain if turn is None else plain.transpose(turn)


def _coloured(image: Image.Image, channels: int) -> Image.Image:
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if channels == 3:
        return image.convert("RGB")
    return image.convert("L") if image.mode in _GREY else image.convert("RGB").convert("L")
