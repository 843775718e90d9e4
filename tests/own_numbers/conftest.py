"""Cut a network, and compare all its forms with the gated one."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import snnprune
from snnprune.proof.difference import randomize_norms_
from snnprune.surgery.scales import leave_alive_


def cut(
    make: Callable[[], nn.Module], folder: Any, *shape: int, seed: int = 0
) -> tuple[dict[str, Any], nn.Module]:
    """Cut every third neuron of all groups, and see that nothing else changes. Statistics of norms are drawn.

    Gated, folded, cut, copied, loaded twice in float64; the ONNX file of the cut network in float32.

    Returns:
        The groups by name, and the compact model.
    """
    torch.manual_seed(seed)
    model = make().double().eval()
    randomize_norms_(model, torch.Generator().manual_seed(seed))
    x = torch.randn(*shape, dtype=torch.float64)
    gated = snnprune.attach(model, x, switcher=None)
    draw = torch.Generator().manual_seed(seed)
    scales = {}
    groups = [group for group in gated.groups if group.prunable]
    for group in groups:
        scales[group.id] = 0.5 + torch.rand(group.size, generator=draw, dtype=torch.float64)
        scales[group.id][torch.randperm(group.size, generator=draw)[: group.size // 3]] = 0.0
    leave_alive_(groups, scales)
    gated.set_scales(scales)
    with torch.no_grad():
        wanted = gated(x)
        small = gated.compact().eval()
        kept = {name: (scale > 0).numpy() for name, scale in scales.items()}
        assert gated.cost.cost("params", kept) == sum(p.numel() for p in small.parameters())
        same(gated.fold()(x), wanted)
        gated.detach()
        same(small(x), wanted)
        same(copy.deepcopy(small)(x), wanted)
        file = io.BytesIO()
        torch.save(small, file)
        file.seek(0)
        same(torch.load(file, weights_only=False)(x), wanted)
        snnprune.save(small, folder / "small")
        again = snnprune.load(folder / "small", model=make().double())
        same(again(x), wanted)
        snnprune.save(again, folder / "again")  # what was loaded is as good as what was cut
        same(snnprune.load(folder / "again", model=make().double())(x), wanted)
    single = copy.deepcopy(small).float().train().eval()  # some compute anew what evaluation uses
    snnprune.export_onnx(single, folder / "small.onnx", example_inputs=x.float())  # raises when the outputs differ
    return {group.id: group for group in snnprune.trace(model, x)}, small


def same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= 1e-10 * float(wanted.std())


class Around(nn.Module):
    """A convolution before and after what is tried, so that its channels can go."""

    def __init__(self, middle: nn.Module, width: int, out: int | None = None) -> None:
        super().__init__()
        self.first, self.norm, self.middle = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), middle
        self.last = nn.Conv2d(out or width, 5, 1)

    def forward(self, x):
        return self.last(torch.relu(self.middle(torch.relu(self.norm(self.first(x)))))).mean((2, 3))
