"""How far a gated model and a folded and removed one are apart."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import layers
from ..draws import Draws
from ..graph import NeuronGroup, selected
from ..inputs import Inputs, call, map_tensors, tensors_in
from ..layers import attention
from ..surgery.fold import fold_
from ..surgery.remove import remove_
from ..surgery.scales import Scales, column_maps, leave_alive_, scale_call

TOLERANCE = 1e-10  # of a difference between two models in float64, in spreads of the output


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two models are apart: max |a - b| over the standard deviation of a.

    Attributes:
        relative: that ratio.
        noise: the same ratio for the first model against itself, with its input changed in the last bit; 0 where
            it was not needed.
    """

    relative: float
    noise: float = 0.0

    @property
    def exact(self) -> bool:
        """Within 1e-10, or 10 x what rounding of the input alone does to this model."""
        return self.relative <= max(TOLERANCE, 10 * self.noise)


def relative_difference(reference: object, other: object) -> float:
    """Max |a - b| / spread of a over all tensors of two outputs; infinite when shapes or finiteness differ.

    The spread is the standard deviation, or the root mean square of those elements that differ at all
    where that is less: constants in an output (logits masked by -1e9) must not hide the rest.
    """
    worst = 0.0
    pairs = list(zip(tensors_in(reference), tensors_in(other), strict=True))
    for left, right in pairs:
        a, b = left.detach(), right.detach()
        if a.shape != b.shape:
            return float("inf")
        if a.is_complex():
            a, b = torch.view_as_real(a), torch.view_as_real(b)
        if not a.numel() or not a.is_floating_point():
            continue
        a, b = a.double(), b.double()
        differ = a != b
        if not bool(differ.any()):
            continue
        rest, other = a[differ], b[differ]
        if not bool(torch.isfinite(rest).all()) or not bool(torch.isfinite(other).all()):
            return float("inf")
        finite = a[torch.isfinite(a)]
        spread = float(rest.square().mean().sqrt())
        if len(finite) > 1 and 0 < (deviation := float(finite.std())) < spread:
            spread = deviation
        gap = float((rest - other).abs().max())
        worst = max(worst, gap / spread if spread > 0 else float("inf"))
    return worst


@torch.no_grad()
def randomize_norms_(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Give every norm random statistics and affine parameters, in place.

    Fresh batch norms (mean 0, variance 1, beta 0) hide mistakes: a channel that is zero before the
    norm is zero after it. With a random beta it is not. Parameters that are constant and next to zero (the
    head of a fresh transformer, layer scales of 1e-6) hide them even better and become random too.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel() > 1 and _next_to_zero(parameter):
            values = torch.randn(parameter.shape, generator=generator) / math.sqrt(
                max(1, parameter.numel() // max(1, len(parameter) if parameter.dim() else 1))
            )
            parameter.copy_((0.3 * values).to(parameter))

    def draw(tensor: Tensor, low: float, high: float) -> None:
        values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
        tensor.copy_((low + (high - low) * values).to(tensor))

    for module in model.modules():
        if layers.is_own(module):
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if isinstance(tensor, Tensor) and tensor.is_floating_point() and _constant(tensor):
                    first = float(tensor.flatten()[0])  # what is positive may have to be, such as a variance
                    draw(tensor, *((0.6 * first, 1.4 * first) if first else (-0.3, 0.3)))
        if not isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)):
            continue
        mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        if isinstance(mean, Tensor) and isinstance(variance, Tensor):
            center = mean.abs().mean() + variance.sqrt().mean()
            draw(mean, -0.3 * float(center), 0.3 * float(center))
            variance.mul_((0.6 + torch.rand(variance.shape, generator=generator)).to(variance))
        if isinstance(module.weight, Tensor) and isinstance(module.bias, Tensor):
            draw(module.weight, 0.6, 1.4)
            draw(module.bias, -0.4, 0.4)
    return model


def _next_to_zero(parameter: Tensor) -> bool:
    return _constant(parameter) and abs(float(parameter.flatten()[0])) < 1e-2


def _constant(tensor: Tensor) -> bool:
    return tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all())


def random_scales(
    groups: Sequence[NeuronGroup], generator: torch.Generator, zeros: float = 0.3
) -> dict[str, Tensor]:
    """Random scales in [0.5, 1.5] with a share of exact zeros for every prunable group, float64.

    No layer is emptied, also none that holds a part of a group only.
    """
    scales = {}
    for group in groups:
        if not group.prunable:
            continue
        scale = 0.5 + torch.rand(group.size, generator=generator, dtype=torch.float64)
        dead = torch.randperm(group.size, generator=generator)[: round(zeros * group.size)]
        scale[dead] = 0.0
        scales[group.id] = scale
    leave_alive_(groups, scales)
    return scales


@torch.no_grad()
def removal_difference(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    scales: Scales,
    inputs: Inputs,
    *,
    watch: Sequence[str] | None = None,
) -> Difference:
    """Difference between the gated model and the folded and removed one, and the model's own noise.

    Args:
        model: a float64 network in eval mode; it is copied.
        groups: its groups.
        scales: the scales to try.
        inputs: float64 example inputs.
        watch: layers whose outputs are compared too; by default some are where the outputs say too little.
    """
    removed = remove_(fold_(copy.deepcopy(model), groups, scales), groups, scales)
    return gated_difference(model, removed, groups, scales, inputs, watch=watch)


@torch.no_grad()
def gated_difference(
    model: nn.Module,
    other: nn.Module,
    groups: Sequence[NeuronGroup],
    scales: Scales,
    inputs: Inputs,
    *,
    watch: Sequence[str] | None = None,
    seed: int = 0,
    outputs: Sequence[str] = (),
) -> Difference:
    """Difference between a model under gates and another one, and the noise of the first.

    Args:
        model: a network in eval mode.
        other: what is compared with it.
        groups: its groups.
        scales: of the gates.
        inputs: what both take.
        watch: as for `removal_difference`.
        seed: of what the network draws.
        outputs: paths of the outputs that matter; none for all.
    """
    if watch is None:
        watch = layers_to_watch(model, groups, scales, inputs, outputs)
    with gated_by(model, groups, scales):
        return measured(
            lambda x: _observe(model, x, watch, outputs),
            lambda x: _observe(other, x, watch, outputs),
            inputs,
            seed=seed,
        )


def measured(
    reference: Callable[[Inputs], Any], other: Callable[[Inputs], Any], inputs: Inputs, *, seed: int = 0
) -> Difference:
    """Difference between two forms of one network that draw the same, and the noise of the first."""
    draws = Draws(seed)
    left, right = draws.both(lambda: reference(inputs), lambda: other(inputs))
    difference, noise = relative_difference(left, right), 0.0
    if TOLERANCE < difference < 1e-3:
        nudged = map_tensors(lambda x: x * (1 + 1e-15) if x.is_floating_point() else x, inputs)
        noise = relative_difference(left, draws.run(lambda: reference(nudged)))
    return Difference(difference, noise)


def _observe(model: nn.Module, inputs: Inputs, watch: Sequence[str], outputs: Sequence[str]) -> list[Any]:
    """What the layers of `watch` give at every call, and the model's output where it is smooth.

    A detector's output is not: of two boxes with all but equal scores rounding decides which comes first.
    """
    seen: list[Any] = []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _m, _x, out: seen.append(out)) for name in watch
    ]
    try:
        output = selected(call(model, inputs), outputs)
    finally:
        for handle in handles:
            handle.remove()
    decides = any(not t.is_floating_point() and not t.is_complex() for t in tensors_in(output))
    return [seen] if seen and decides else [seen, output]


@torch.no_grad()
def layers_to_watch(
    probe: nn.Module,
    groups: Sequence[NeuronGroup],
    scales: Scales,
    inputs: Inputs,
    outputs: Sequence[str] = (),
) -> list[str]:
    """Layers to compare because the outputs alone say too little.

    A detector returns what passes its thresholds, often nothing; other outputs may not depend on the
    gates at all. Then the layers that keep all their outputs are compared as well.
    """
    draws = Draws()
    plain = selected(draws.run(lambda: call(probe, inputs)), outputs)
    with gated_by(probe, groups, scales):
        effect = relative_difference(plain, selected(draws.run(lambda: call(probe, inputs)), outputs))
    if effect > 1e-6 and all(t.is_floating_point() and t.numel() for t in plain):
        return []
    cut = {m.module for g in groups if g.prunable for m in g.members if m.role != "consumer"}
    kept = {m.module for g in groups if not g.prunable for m in g.producers}
    return sorted(kept - cut)


@contextlib.contextmanager
def gated_by(model: nn.Module, groups: Sequence[NeuronGroup], scales: Scales) -> Iterator[None]:
    """Scale every consumer's input for the length of a `with` block; attention is open meanwhile."""
    handles = []
    for name, columns in column_maps(model, groups).items():
        factor = columns(scales)
        if factor is None:
            continue

        def gate(module: nn.Module, args: Any, kwargs: Any, factor: Tensor = factor) -> tuple[Any, Any]:
            return scale_call(module, args, kwargs, factor)

        handles.append(model.get_submodule(name).register_forward_pre_hook(gate, with_kwargs=True))
    try:
        with attention.opened(model):
            yield
    finally:
        for handle in handles:
            handle.remove()
