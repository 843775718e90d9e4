"""Inputs to run an opened model on, where nobody gives any: their size is recorded, or found by trying."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .. import layers
from ..errors import ConfigError, UnsupportedModelError
from ..graph import layer_shapes
from ..inputs import device_of
from .folder import Opened

_MAX_INPUT = 2**26  # numbers in one input that a file may ask for: 3 x 4096 x 4096 fit
_SIDES = (224, 32, 28, 64, 96, 8, 16, 299, 128)


def example_for(opened: Opened, image_size: int | None = None) -> Tensor:
    """Two random images of a size that the model takes: recorded, given, or found by trying."""
    recorded = (opened.structure or {}).get("input_shape")
    if (
        image_size is None
        and isinstance(recorded, list)
        and all(type(v) is int and v > 0 for v in recorded)
        and math.prod(recorded) <= _MAX_INPUT
    ):
        return torch.rand(2, *recorded)
    if image_size is not None and image_size < 1:
        raise ConfigError(f"--image-size {image_size} must be at least 1.")
    channels = _input_channels(opened.model)
    for side in (image_size,) if image_size is not None else _SIDES:
        example = torch.rand(2, channels, side, side)
        try:
            layer_shapes(opened.model, example)
        except UnsupportedModelError:
            if image_size is not None:
                raise
            continue
        if image_size is None and not _per_input(opened.model, example):
            continue  # a hard-coded view has taken pixels for inputs
        return example
    raise UnsupportedModelError("the model takes none of the usual image sizes; give --image-size.")


def image_channels(opened: Any, image_size: int | None = None) -> int | None:
    """Whether a model takes grey (1) or colour images (3), as recorded or found by trying; None if that is open.

    Args:
        opened: the model with its structure; of an ONNX file the structure alone.
        image_size: side of its images; by default the usual ones are tried.
    """
    recorded = (opened.structure or {}).get("input_shape")
    if isinstance(recorded, list) and recorded:
        return recorded[0] if type(recorded[0]) is int and recorded[0] in (1, 3) else None
    model = opened.model
    if model is None:
        return None
    where = device_of(model)
    for side in (image_size,) if image_size is not None else _SIDES:
        fits = [c for c in (1, 3) if _runs(model, torch.zeros(2, c, side, side, device=where))]
        if fits:  # a model that takes both repeats what is grey itself
            return fits[0] if len(fits) == 1 else None
    return None


def _runs(model: nn.Module, example: Tensor) -> bool:
    try:
        layer_shapes(model, example)
    except UnsupportedModelError:
        return False
    return _per_input(model, example)


@torch.no_grad()
def _per_input(model: nn.Module, example: Tensor) -> bool:
    """Whether outputs are as many as inputs, or lists and the like, of which nothing can be said."""
    output = model(example)
    return not isinstance(output, Tensor) or len(output) == len(example)


def _input_channels(model: nn.Module) -> int:
    for module in model.modules():
        if layers.is_conv(module):
            return layers.in_width(module)
        if isinstance(module, nn.Linear):
            return 1
    return 3
