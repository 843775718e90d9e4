"""One image file as bytes of a given size: which way is up, and what counts as white."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

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


def read(file: Path, side: int, channels: int) -> tuple[Tensor, int | None]:
    """An image, upright, its shorter side brought to `side`, its middle cut out.

    Transparency is dropped and the colours beneath it stay, as torchvision's image folders do it.

    Returns:
        (channels, side, side) uint8, and the highest value if the file has 16 bits and does not tell how many of
        them are used.

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
            plain = _coloured(_upright(plain, image), channels)
        if plain.size != (side, side):
            scale = side / min(plain.size)
            width, height = (max(side, round(length * scale)) for length in plain.size)
            plain = plain.resize((width, height), Image.Resampling.BILINEAR)
            left, top = (width - side) // 2, (height - side) // 2
            plain = plain.crop((left, top, left + side, top + side))
        array = np.array(plain)
    except Exception as error:
        raise DataError(f"{file} is no readable image ({first_line(error)})") from error
    tensor = torch.from_numpy(array)
    return (tensor[None] if channels == 1 else tensor.permute(2, 0, 1)), peak


def check_depth(path: Path, peaks: Mapping[Path, int]) -> None:
    """Refuse 16-bit images that are all so dark that they must hold fewer bits; nothing else tells them apart.

    Args:
        path: of the data set.
        peaks: the highest value of every file that has 16 bits.

    Raises:
        DataError: none has a value that needs more than 12 bits.
    """
    top = max(peaks.values(), default=_TOP)
    if top >= _DIM:
        return
    text = (
        f"{path}: none of the {len(peaks)} images of 16 bits, such as {next(iter(peaks))}, has a value above "
        f"{top} of {_TOP}, as with cameras of fewer bits, so that all of them would be dark. Scale them to all 16 "
        "bits, or save them with 8"
    )
    if top < _DARK:
        raise DataError(f"{text}.")
    logger.warning("%s, unless the model was trained on images as dark", text)


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
