"""A network into which a test puts what its code does, and what must hold of it when it is cut."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from own_rules.conftest import exact
from torch import Tensor, nn

import snnprune
from snnprune.proof import random_scales, randomize_norms_

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Seen:
    """The network as `middle` sees it: what comes out of its convolutions has gone through their batch norms."""

    def __init__(self, net: Code) -> None:
        self.net = net

    def a(self, x: Tensor) -> Tensor:
        return self.net.norm_a(self.net.a(x))

    def b(self, x: Tensor) -> Tensor:
        return self.net.norm_b(self.net.b(x))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.net, name)


class Code(nn.Module):
    """Two convolutions with 16 channels and a norm each, whatever `middle` makes of them, and a reader."""

    def __init__(self, middle: Callable[[Any, Tensor], Tensor], width: int = 16, **tensors: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
        self.norm_a, self.norm_b = nn.BatchNorm2d(16), nn.BatchNorm2d(16)
        self.last, self.head = nn.Conv2d(width, 5, 1), nn.Conv2d(5, 4, 1)
        self.middle = middle
        for name, tensor in tensors.items():
            if isinstance(tensor, (nn.Parameter, nn.Module)):
                setattr(self, name, tensor)
            else:
                self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.last(self.middle(Seen(self), x))).mean((2, 3), keepdim=True))


def cut(model: nn.Module, x: Tensor = X, seed: int = 0) -> dict[str, snnprune.NeuronGroup]:
    """The groups, after gated, folded and removed have agreed; those that are kept included."""
    return exact(model, seed, x)


def parts(group: snnprune.NeuronGroup) -> dict[tuple[str, str], int]:
    """What holds the neurons, and along which dimension; but for the norms of `Code`."""
    return {(m.module, m.role): m.dim for m in group.members if not m.module.startswith("norm_")}


def kept_on_disk(make: Callable[[], nn.Module], x: Tensor, folder: Path, *, onnx: bool = True) -> nn.Module:
    """Cut a network, save it, load it into a fresh one, export it; all compute the same. Returns the small one.

    Statistics of norms are drawn before.
    """
    model = randomize_norms_(make().eval(), torch.Generator().manual_seed(0))
    groups = snnprune.trace(model, x)
    scales = random_scales(groups, torch.Generator().manual_seed(0))
    with snnprune.attach(copy.deepcopy(model), x, switcher=None) as gated:
        gated.set_scales({name: scale.float() for name, scale in scales.items()})
        small = gated.compact().eval()
    snnprune.save(small, folder / "small")
    assert torch.equal(snnprune.load(folder / "small", model=make()).eval()(x), small(x))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    if onnx:
        snnprune.export_onnx(small, folder / "small.onnx", example_inputs=x)  # raises when the outputs differ
    return small
