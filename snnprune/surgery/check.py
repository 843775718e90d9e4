"""The proof that removal is exact: the same scales as gates, and folded and removed, in float64."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import attention, layers
from ..errors import UnsupportedModelError, first_line
from ..graph import NeuronGroup
from ..inputs import Inputs, call, map_tensors, tensors_in, to_dtype
from .fold import fold_
from .remove import remove_
from .scales import Scales, column_maps, scale_input

logger = logging.getLogger(__name__)

TOLERANCE = 1e-10
_PARTS = 4


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two models are apart: max |a - b| over the standard deviation of a."""

    relative: float
    floor: float = 0.0

    @property
    def exact(self) -> bool:
        """Within 1e-10, or 10 x what rounding of the input alone does to this model."""
        return self.relative <= max(TOLERANCE, 10 * self.floor)


def relative_difference(reference: object, other: object) -> float:
    """Max |a - b| / std(a) over all tensors of two outputs; infinite when shapes or finiteness differ."""
    worst = 0.0
    pairs = list(zip(tensors_in(reference), tensors_in(other), strict=True))
    for left, right in pairs:
        a, b = left.detach(), right.detach()
        if a.shape != b.shape or not bool(torch.isfinite(b).all()) or not bool(torch.isfinite(a).all()):
            return float("inf")
        if not a.numel() or not a.is_floating_point():
            continue
        spread = float(a.double().std()) if a.numel() > 1 else float(a.abs().max())
        gap = float((a.double() - b.double()).abs().max())
        if gap:
            worst = max(worst, gap / spread if spread > 0 else float("inf"))
    return worst


@torch.no_grad()
def randomize_norms_(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Give every norm random statistics and affine parameters, in place.

    Fresh batch norms (mean 0, variance 1, beta 0) hide mistakes: a channel that is zero before the
    norm is zero after it. With a random beta it is not. Parameters that are all zero (the head of a fresh
    transformer) hide them even better and become random too.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel() and not bool(parameter.any()):
            values = torch.randn(parameter.shape, generator=generator) / math.sqrt(max(1, parameter[0].numel()))
            parameter.copy_((0.3 * values).to(parameter))
    for module in model.modules():
        if not isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)):
            continue

        def draw(tensor: Tensor, low: float, high: float) -> None:
            values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.copy_((low + (high - low) * values).to(tensor))

        mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        if isinstance(mean, Tensor) and isinstance(variance, Tensor):
            center = mean.abs().mean() + variance.sqrt().mean()
            draw(mean, -0.3 * float(center), 0.3 * float(center))
            variance.mul_((0.6 + torch.rand(variance.shape, generator=generator)).to(variance))
        if isinstance(module.weight, Tensor) and isinstance(module.bias, Tensor):
            draw(module.weight, 0.6, 1.4)
            draw(module.bias, -0.4, 0.4)
    return model


def random_scales(
    groups: Sequence[NeuronGroup], generator: torch.Generator, zeros: float = 0.3
) -> dict[str, Tensor]:
    """Random scales in [0.5, 1.5] with a share of exact zeros for every prunable group, float64."""
    scales = {}
    for group in groups:
        if not group.prunable:
            continue
        scale = 0.5 + torch.rand(group.size, generator=generator, dtype=torch.float64)
        dead = torch.randperm(group.size, generator=generator)[: round(zeros * group.size)]
        scale[dead[: group.size - 1]] = 0.0
        scales[group.id] = scale
    return scales


@torch.no_grad()
def removal_difference(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    scales: Scales,
    inputs: Inputs,
    *,
    watch: Sequence[str] = (),
) -> Difference:
    """Difference between the gated model and the folded and removed one, and the model's noise floor.

    Args:
        model: a float64 network in eval mode; it is copied.
        groups: its groups.
        scales: the scales to try.
        inputs: float64 example inputs.
        watch: layers whose outputs are compared too; they must keep their width.
    """
    removed = remove_(fold_(copy.deepcopy(model), groups, scales), groups, scales)
    with gated_by(model, groups, scales):
        reference = _observe(model, inputs, watch)
        difference = relative_difference(reference, _observe(removed, inputs, watch))
        floor = 0.0
        if TOLERANCE < difference < 1e-3:
            nudged = map_tensors(lambda x: x * (1 + 1e-15) if x.is_floating_point() else x, inputs)
            floor = relative_difference(reference, _observe(model, nudged, watch))
    return Difference(difference, floor)


def _observe(model: nn.Module, inputs: Inputs, watch: Sequence[str]) -> list[Any]:
    """The model's output, and what the layers of `watch` give at every call."""
    seen: list[Any] = []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _m, _x, out: seen.append(out)) for name in watch
    ]
    try:
        return [call(model, inputs), seen]
    finally:
        for handle in handles:
            handle.remove()


def _watched(probe: nn.Module, groups: Sequence[NeuronGroup], scales: Scales, inputs: Inputs) -> list[str]:
    """Layers to compare because the outputs alone say too little.

    A detector returns what passes its thresholds, often nothing; other outputs may not depend on the
    gates at all. Then the layers that keep all their outputs are compared as well.
    """
    with torch.no_grad():
        plain = call(probe, inputs)
        with gated_by(probe, groups, scales):
            effect = relative_difference(plain, call(probe, inputs))
    outputs = tensors_in(plain)
    if effect > 1e-6 and all(t.is_floating_point() and t.numel() for t in outputs):
        return []
    cut = {m.module for g in groups if g.prunable for m in g.members if m.role != "consumer"}
    kept = {m.module for g in groups if not g.prunable for m in g.producers}
    return sorted(kept - cut)


@contextlib.contextmanager
def gated_by(model: nn.Module, groups: Sequence[NeuronGroup], scales: Scales) -> Iterator[None]:
    """Scale every consumer's input for the length of a `with` block; attention is open meanwhile."""
    handles = []
    opened = attention.open_(model.get_submodule(m.module) for g in groups for m in g.heads)
    for name, columns in column_maps(model, groups).items():
        factor = columns(scales)
        if factor is None:
            continue

        def gate(module: nn.Module, args: tuple[Any, ...], factor: Tensor = factor) -> tuple[Any, ...]:
            return (scale_input(module, args[0], factor.to(args[0].device)), *args[1:])

        handles.append(model.get_submodule(name).register_forward_pre_hook(gate))
    try:
        yield
    finally:
        attention.close_(opened)
        for handle in handles:
            handle.remove()


def _turned_off(groups: Sequence[NeuronGroup], generator: torch.Generator, part: int) -> dict[str, Tensor]:
    """Scales whose zeros are every `_PARTS`-th neuron, from `part` on."""
    scales = random_scales(groups, generator, zeros=0.0)
    for scale in scales.values():
        if len(scale) > 1:
            scale[part::_PARTS] = 0.0
    return {name: s if bool((s > 0).any()) else torch.ones_like(s) for name, s in scales.items()}


def _with_noise(inputs: Inputs, generator: torch.Generator, least: int = 0) -> Inputs:
    """The inputs plus noise of their size: on constant images every mistake would pass.

    Tensors of fewer than `least` dimensions (boxes, which not every number can be) stay as they are.
    """

    def add(x: Tensor) -> Tensor:
        if not x.is_floating_point() or x.dim() < least:
            return x
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        scale = float(x.std()) if x.numel() > 1 else 0.0
        return x + (scale or 1.0) * noise.to(x.device)

    return map_tensors(add, inputs)


@torch.no_grad()
def _probe_inputs(probe: nn.Module, given: Inputs, generator: torch.Generator) -> Inputs:
    """Inputs that show mistakes and that the model takes in float64.

    Raises:
        UnsupportedModelError: it does not run in float64, or returns nothing to compare.
    """
    outputs: list[Tensor] = []
    for inputs in (_with_noise(given, generator), _with_noise(given, generator, least=3), given):
        try:
            outputs = tensors_in(call(probe, inputs))
            break
        except Exception as error:  # whatever the model's own forward raises
            if inputs is given:
                raise UnsupportedModelError(
                    f"the model does not run in float64, in which exactness is proved ({first_line(error)}). Its "
                    "forward fixes a dtype; use the dtype of the inputs or of a weight there."
                ) from error
    if not any(t.is_floating_point() for t in outputs):
        raise UnsupportedModelError(
            "the model returns no tensors (nor tuples, lists or dicts of them), so nothing can be proved about it."
        )
    return inputs


@torch.no_grad()
def _runs_in_training(probe: nn.Module, inputs: Inputs) -> bool:
    clone = copy.deepcopy(probe).train()
    try:
        call(clone, inputs)
    except Exception:  # such as a batch norm over a single value
        return False
    return True


def verify_groups(
    model: nn.Module, groups: Sequence[NeuronGroup], inputs: Inputs, *, seed: int = 0
) -> list[NeuronGroup]:
    """Prove every prunable group; those that fail come back as kept, with the reason.

    All groups are tried together with random scales; on failure the set is halved until the groups
    at fault are found.
    """
    generator = torch.Generator().manual_seed(seed)
    probe = randomize_norms_(copy.deepcopy(model).double().eval(), generator)
    given = to_dtype(inputs, torch.float64)
    inputs = _probe_inputs(probe, given, generator)
    trains = _runs_in_training(probe, given)
    # A layer of the user's own may depend on single neurons (a maximum over the weights), so there
    # every neuron is off once; elsewhere one draw is enough.
    own = any(layers.is_customized(module) for module in probe.modules())
    draws = [random_scales(groups, generator)]
    draws += [_turned_off(groups, generator, part) for part in range(_PARTS if own else 0)]
    watch = _watched(probe, groups, draws[0], inputs)

    def fault(chosen: list[NeuronGroup]) -> str | None:
        for scales in draws:
            why = fault_of({group.id: scales[group.id] for group in chosen})
            if why is not None:
                return why
        return None

    def fault_of(part: Scales) -> str | None:
        try:
            difference = removal_difference(probe, groups, part, inputs, watch=watch)
            if trains and difference.exact:  # auxiliary heads and the like run only in training
                small = remove_(copy.deepcopy(probe), groups, part).train()
                with torch.no_grad():
                    call(small, given)
        except Exception as error:  # whatever the model's own forward raises
            return f"the model fails without its neurons: {first_line(error)}"
        if difference.exact:
            return None
        return f"removal changes the output by {difference.relative:.2g} of its spread"

    reasons: dict[str, str] = {}

    def search(chosen: list[NeuronGroup]) -> list[NeuronGroup]:
        """The groups of `chosen` that are exact together."""
        why = fault(chosen)
        if why is None:
            return chosen
        if len(chosen) == 1:
            reasons[chosen[0].id] = why
            return []
        half = len(chosen) // 2
        good = search(chosen[:half]) + search(chosen[half:])
        return good if fault(good) is None else admit(good)

    def admit(chosen: list[NeuronGroup]) -> list[NeuronGroup]:
        """Groups that are exact apart but not together: take one after the other while they are."""
        accepted: list[NeuronGroup] = []
        for group in chosen:
            if fault([*accepted, group]) is None:
                accepted.append(group)
            else:
                reasons[group.id] = "it is exact alone but not together with other groups"
        return accepted

    search([group for group in groups if group.prunable])
    for name, why in reasons.items():
        logger.warning("group %s is kept: %s", name, why)
    return [replace(g, reason=reasons[g.id]) if g.id in reasons else g for g in groups]
