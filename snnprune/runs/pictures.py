"""Feature maps of pruned against strengthened kernels (arXiv 2110.05954, figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import layers
from ..graph import Member, NeuronGroup
from ..inputs import Inputs, device_of

_LAYERS, _MAPS, _SIDE, _LEAST = 3, 8, 96, 4


@torch.no_grad()
def feature_maps(
    model: nn.Module, groups: Sequence[NeuronGroup], scales: Mapping[str, Tensor], sample: Inputs
) -> dict[str, Tensor]:
    """Outputs of some convolutions for one input: of pruned kernels, and of those with the largest scales.

    Args:
        model: the dense network.
        groups: its groups.
        scales: group id -> (size,) scales.
        sample: (batch, channels, height, width); of other inputs there are no pictures.

    Returns:
        `input` (channels, height, width) and, for up to three layers from front to back, `<layer>|pruned` and
        `<layer>|strengthened`, (at most 8, height, width): uint8, each map from its smallest to its largest value.
        Empty where no convolution lost a kernel.
    """
    if not isinstance(sample, Tensor) or sample.dim() != 4:
        return {}
    found = [(m, scales[g.id]) for g in groups if g.id in scales for m in _convolutions(model, g)]
    found = [(m, s) for m, s in found if bool((s == 0).any())]
    if not found:
        return {}
    outputs = _outputs(model, sample[:1], [member.module for member, _ in found])
    seen = [(m, s) for m, s in found if m.module in outputs and min(outputs[m.module].shape[1:]) >= _LEAST]
    if not seen:
        return {}
    image = sample[0] if sample.shape[1] in (1, 3) else sample[0, :1]
    pictures = {"input": _bytes(image.float().cpu(), together=True)}
    for at in sorted({round(i * (len(seen) - 1) / (_LAYERS - 1)) for i in range(_LAYERS)}):
        member, scale = seen[at]
        values = scale.cpu()[torch.tensor(member.neurons)]
        channels = torch.tensor(member.channels)
        order = values.argsort(descending=True, stable=True)
        chosen = {"pruned": channels[values == 0], "strengthened": channels[order[: int((values > 0).sum())]]}
        for kind, which in chosen.items():
            pictures[f"{member.module}|{kind}"] = _bytes(outputs[member.module][which[:_MAPS]])
    return pictures


def _outputs(model: nn.Module, sample: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Maps of some layers, (channels, height, width) on the CPU; the model stays as it is."""
    outputs: dict[str, Tensor] = {}
    modes = {module: module.training for module in model.modules()}
    handles = [model.get_submodule(name).register_forward_hook(_keep(outputs, name)) for name in names]
    try:
        model.eval()(sample.to(device_of(model)))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return outputs


def _convolutions(model: nn.Module, group: NeuronGroup) -> list[Member]:
    return [m for m in group.producers if layers.is_conv(model.get_submodule(m.module))][:1]


def _keep(outputs: dict[str, Tensor], name: str):
    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4:
            outputs[name] = output[0].float().cpu()

    return hook


def _bytes(maps: Tensor, *, together: bool = False) -> Tensor:
    """(n, height, width) from smallest to largest value, each map or all alike; no side longer than `_SIDE`."""
    side = max(maps.shape[1:])
    if side > _SIDE:
        size = [max(1, round(_SIDE * s / side)) for s in maps.shape[1:]]
        maps = F.interpolate(maps[None], size=size, mode="area")[0]
    dims = (0, 1, 2) if together else (1, 2)
    low, high = maps.amin(dims, keepdim=True), maps.amax(dims, keepdim=True)
    return (255 * (maps - low) / (high - low).clamp_min(1e-12)).round().to(torch.uint8)
