"""What is done to training images at random, in four levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Level = Literal["none", "light", "standard", "strong"]
FROM_FILES = ("standard", "strong")  # levels that need more of an image than its middle
_SCALE = (0.25, 1.0)  # least and largest share of an image that a crop has
_ERASED = 0.25  # of the images


def draw_moves(n: int, shape: Sequence[int], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Level `light`: rows and columns to shift each image by, and whether to mirror it (colour alone).

    Args:
        n: images.
        shape: (channels, height, width) of each.
        generator: that numbers are drawn from.

    Returns:
        (n,) from 0 to twice an eighth of the height, of which the middle is no shift; of the width; booleans.
    """
    channels, height, width = shape
    top = torch.randint(0, 2 * (height // 8) + 1, (n,), generator=generator)
    left = torch.randint(0, 2 * (width // 8) + 1, (n,), generator=generator)
    if channels != 3:
        return top, left, torch.zeros(n, dtype=torch.bool)
    return top, left, torch.rand(n, generator=generator) < 0.5


def move(x: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
    """Shift and mirror every image as it was drawn for it.

    Args:
        x: (n, channels, height, width).
        top: see `draw_moves`.
        left: likewise.
        flip: likewise.
    """
    n, channels, height, width = x.shape
    reach_y, reach_x = height // 8, width // 8
    padded = F.pad(x, (reach_x, reach_x, reach_y, reach_y), mode="replicate")
    where = x.device
    rows = (top[:, None] + torch.arange(height, device=where))[:, None, :, None]
    columns = left[:, None] + torch.arange(width, device=where)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    items = torch.arange(n, device=where)[:, None, None, None]
    planes = torch.arange(channels, device=where)[None, :, None, None]
    return padded[items, planes, rows, columns[:, None, None, :]]


def transforms(level: Level, shape: Sequence[int], mean: Sequence[float]) -> Callable[[Any], Tensor]:
    """Levels `standard` and `strong`: torchvision's transforms, from a whole image to a square of bytes.

    `standard` is a random resized crop, mirrored half of the time if it has colours. `strong` is that, then one
    operation of TrivialAugment (arXiv 2103.10158), and a rectangle erased in every fourth image
    (arXiv 1708.04896). Numbers are drawn from PyTorch's global generator.

    Args:
        level: one of the two.
        shape: (channels, height, width) of the result.
        mean: per channel, of pixels in [0, 1]: what is erased becomes that.

    Returns:
        A function of an image of Pillow's or a (channels, height, width) uint8 tensor.
    """
    from torchvision.transforms import v2

    channels, height, width = shape
    steps: list[Any] = [v2.PILToTensor()]
    steps.append(v2.RandomResizedCrop((height, width), scale=_SCALE, antialias=True))
    if channels == 3:
        steps.append(v2.RandomHorizontalFlip())
    if level == "strong":
        steps.append(v2.TrivialAugmentWide())
        erased: Any = [round(255 * value) for value in mean]
        steps.append(v2.RandomErasing(_ERASED, value=erased))
    return v2.Compose(steps)
