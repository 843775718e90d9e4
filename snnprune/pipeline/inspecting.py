"""What `snnprune inspect` shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import layers
from ..budget import CostModel, Metric
from ..encoding import Scorer
from ..errors import ConfigError, TargetError, UnsupportedModelError
from ..gates import Budget, parse_target
from ..graph import NeuronGroup, layer_shapes
from ..inputs import device_of
from ..learner import PruneConfig
from ..metrics import count_nonzero
from ..tracing import trace
from .attaching import alike
from .runs import Opened

_METRICS: tuple[Metric, Metric] = ("macs", "params")
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
        allowed: under a target, the shares of MACs and params that are left by the `start` (the order of the
            norms), by the `cheapest` cut that meets it, and by the `dearest`; empty without a target.
        trouble: why a target cannot be met.
        guessed: whether the image size was found by trying.
    """

    groups: list[NeuronGroup]
    shares: dict[str, tuple[float, float]]
    reach: dict[str, float]
    least: dict[str, float]
    input_shape: tuple[int, ...]
    macs: int
    params: int
    nonzero: int
    allowed: dict[str, dict[str, float]] = field(default_factory=dict)
    trouble: str | None = None
    guessed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        groups = [
            {
                "id": g.id,
                "kind": "heads" if g.heads else g.kind,
                "size": g.size,
                "layers": len(g.members),
                "kept": g.reason,
                "note": g.note,
                **dict(zip(("macs", "params"), self.shares.get(g.id, (None, None)), strict=True)),
            }
            for g in self.groups
        ]
        names = ("reach", "least", "macs", "params", "nonzero", "allowed", "trouble", "guessed")
        plain = {name: getattr(self, name) for name in names}
        return {"groups": groups, "input_shape": list(self.input_shape), **plain}


def inspect_model(
    opened: Opened,
    *,
    image_size: int | None = None,
    keep: Sequence[str] = (),
    target: Mapping[str, float] | None = None,
    floor: float = 0.1,
    round_to: int = 8,
) -> Inspection:
    """Trace an opened model and price its groups.

    Args:
        opened: the model.
        image_size: side of its images; by default recorded or found by trying.
        keep: shell patterns of module names whose channels must stay.
        target: `macs` or `params`, to see what it leaves.
        floor: least kept share of every group.
        round_to: keep multiples of this many channels.

    Raises:
        ConfigError: a floor or a rounding that makes no sense.
        TargetError: no target of macs or params.
        UnsupportedModelError: no input size fits, or nothing can be pruned.
    """
    PruneConfig(keep=tuple(keep), floor=floor, round_to=round_to)  # refuses what makes no sense
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
    least = {m: cost.floor_share(m, alike(cost), floor=floor, round_to=round_to) for m in _METRICS}
    budget, trouble = parse_target(target), None
    allowed: dict[str, dict[str, float]] = {}
    try:
        allowed = {} if budget is None else _allowed(cost, budget, scores, floor, round_to)
    except TargetError as error:  # when a table of what is kept is needed most
        trouble = str(error)
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
        allowed,
        trouble,
        guessed=image_size is None and not (opened.structure or {}).get("input_shape"),
    )


def _allowed(
    cost: CostModel, budget: Budget, scores: dict[str, NDArray[np.float64]], floor: float, round_to: int
) -> dict[str, dict[str, float]]:
    """What is left of both costs by three orders of the groups: of the norms, and by what groups save of each."""
    other: Metric = "params" if budget.metric == "macs" else "macs"
    ratio = {
        n: cost.saving_per_neuron(other, n) / max(cost.saving_per_neuron(budget.metric, n), 1e-12)
        for n in cost.groups
    }
    found = {}
    for name, sign in (("start", 0.0), ("cheapest", -1.0), ("dearest", 1.0)):
        # Whole groups first; within a group the norms decide, which lie within a few per cent of 1.
        order = scores if not sign else {n: sign * ratio[n] + 1e-6 * scores[n] for n in cost.groups}
        kept = cost.select(budget.metric, budget.share, order, floor=floor, round_to=round_to).kept
        found[name] = {m: cost.share(m, kept) for m in _METRICS}
    low, high = sorted(found.values(), key=lambda shares: shares[other])[:: len(found) - 1]
    return {"start": found["start"], "cheapest": low, "dearest": high}


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
            return int(module.in_channels)  # type: ignore[arg-type]
        if isinstance(module, nn.Linear):
            return 1
    return 3
