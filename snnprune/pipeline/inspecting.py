"""What `snnprune inspect` shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .. import layers
from ..budget import CostModel
from ..encoding import Scorer
from ..errors import ConfigError, UnsupportedModelError
from ..graph import NeuronGroup, layer_shapes
from ..metrics import count_nonzero
from ..tracing import trace
from .runs import Opened

_MAX_INPUT = 2**26  # numbers in one input that a file may ask for: 3 x 4096 x 4096 fit
_SIDES = (224, 32, 28, 64, 96, 8, 16, 299, 128)


@dataclass(frozen=True, slots=True)
class Inspection:
    """Groups of a model and their costs.

    Attributes:
        groups: all of them, also those that are kept.
        shares: group id -> share of MACs and of params that all its neurons but one hold.
        reach: metric -> share of the dense cost in layers that lose something when neurons go.
        least: metric -> smallest target that the default floors allow.
        input_shape: (channels, height, width) that was used.
        nonzero: params that are not exactly 0.
    """

    groups: list[NeuronGroup]
    shares: dict[str, tuple[float, float]]
    reach: dict[str, float]
    least: dict[str, float]
    input_shape: tuple[int, ...]
    macs: int
    params: int
    nonzero: int


def inspect_model(opened: Opened, *, image_size: int | None = None, keep: Sequence[str] = ()) -> Inspection:
    """Trace an opened model and price its groups.

    Raises:
        UnsupportedModelError: no input size fits, or nothing can be pruned.
    """
    example = example_for(opened, image_size)
    groups = trace(opened.model, example, keep=keep)
    cost = CostModel(opened.model, groups, example)
    shares = {}
    for group in groups:
        if group.prunable:
            mask = np.zeros(group.size, dtype=bool)
            mask[0] = True
            shares[group.id] = (
                1 - cost.share("macs", {group.id: mask}),
                1 - cost.share("params", {group.id: mask}),
            )
    with torch.no_grad():
        values = Scorer(opened.model, groups)(opened.model)
    scores = {name: u.double().numpy() for name, u in values.items()}
    least = {"macs": cost.floor_share("macs", scores), "params": cost.floor_share("params", scores)}
    reach = {"macs": cost.prunable_share("macs"), "params": cost.prunable_share("params")}
    return Inspection(
        groups,
        shares,
        reach,
        least,
        tuple(example.shape[1:]),
        cost.dense["macs"],
        cost.dense["params"],
        count_nonzero(opened.model),
    )


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
        return example
    raise UnsupportedModelError("the model takes none of the usual image sizes; give --image-size.")


def _input_channels(model: nn.Module) -> int:
    for module in model.modules():
        if layers.is_conv(module):
            return int(module.in_channels)  # type: ignore[arg-type]
        if isinstance(module, nn.Linear):
            return 1
    return 3
