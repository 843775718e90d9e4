"""Images in other sizes, to try a file of ONNX on."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from .errors import ConfigError
from .inputs import Inputs, map_tensors, tensors_in

AXES = {2: "height", 3: "width"}


def is_image(x: Tensor) -> bool:
    """Whether a tensor is one of images: (batch, channels, height, width) of fractions."""
    return x.dim() == 4 and x.is_floating_point()


def image_size(inputs: Inputs) -> tuple[int, int]:
    """Height and width of the images among the inputs.

    Raises:
        ConfigError: there are none, or of several sizes.
    """
    found = {(x.shape[2], x.shape[3]) for x in tensors_in(inputs) if is_image(x)}
    if len(found) != 1:
        what = "no images (batch, channels, height, width)" if not found else f"images of {len(found)} sizes"
        raise ConfigError(f"dynamic_size=True: there are {what} among the inputs. Leave it out (--dynamic-size).")
    return found.pop()


def other_sizes(inputs: Inputs) -> list[tuple[int, int]]:
    """Sizes to try besides the inputs' own: larger and smaller, square and not, even and odd."""
    height, width = image_size(inputs)
    return [
        (2 * height, width),
        (height, 2 * width),
        (height + height // 2, width + width // 4),
        (max(1, height // 2), max(1, width // 2)),
        (height + 1, width + 3),
    ]


def resized(inputs: Inputs, size: tuple[int, int]) -> Any:
    """The inputs with their images in another size."""

    def resize(x: Tensor) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=False) if is_image(x) else x

    return map_tensors(resize, inputs)
