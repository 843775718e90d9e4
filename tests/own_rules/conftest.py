"""Layers of users' own, rules for them, and what must hold of a pruned network that has them."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snnprune
from snnprune.metrics import count_macs, count_params
from snnprune.proof import random_scales, randomize_norms_, relative_difference
from snnprune.surgery import fold_, remove_
from snnprune.switching import Options, switch_neurons


class Tint(nn.Module):
    """Per channel a factor and an offset, with names of its own; the offset is not one-dimensional."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hue, self.shade = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(1, width, 1))
        self.register_buffer("seen", torch.ones(width))
        self.warmth = nn.Parameter(torch.tensor([0.3]))
        self.colours = width

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.colours
        return self.warmth * x * (self.hue / self.seen).view(-1, 1, 1) + self.shade[..., None]


class PointConv(nn.Module):
    """A 1x1 convolution with a kernel of (in, out), and an activation."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.kernel, self.shift = nn.Parameter(torch.randn(fan_in, fan_out)), nn.Parameter(torch.randn(fan_out))
        self.fan_in, self.fan_out = fan_in, fan_out

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.fan_in
        return F.silu((x.movedim(1, -1) @ self.kernel + self.shift).movedim(-1, 1))


class TurnedLinear(nn.Module):
    """x W + b with a weight of (in, out), and a gate read by a second one."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.w, self.gate = nn.Parameter(torch.randn(fan_in, fan_out)), nn.Parameter(torch.randn(fan_out, fan_in))
        self.b = nn.Parameter(torch.randn(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.w + self.b) * torch.sigmoid(x @ self.gate.t())


class ConvReLU(nn.Module):
    """Convolution and activation in one, with the names of PyTorch's."""

    def __init__(self, in_channels: int, out_channels: int, groups: int = 1) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels // groups, 3, 3))
        self.bias = nn.Parameter(torch.randn(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.conv2d(x, self.weight, self.bias, padding=1, groups=self.groups))


class LinearLike(nn.Module):
    """The names of a linear layer, less those that it does not need."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in))

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x @ self.weight.t())


class Mixing(nn.Module):
    """Every channel less the mean of all."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


class Deeper(PointConv):
    """A class that derives from one with a rule."""


class Blur(nn.Module):
    """A depthwise convolution with a stride: every channel by itself, but of another size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kernel, self.width = nn.Parameter(torch.randn(width, 1, 3, 3)), width

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, stride=2, padding=1, groups=self.width)


class Backwards(nn.Module):
    """Says that entry i of its parameter is channel i's, and takes it for the last but i."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.width = nn.Parameter(torch.ones(width)), width

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma.flip(0).view(-1, 1, 1)


class Largest(nn.Module):
    """Says that it treats every channel by itself, and divides by the largest of all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.view(-1, 1, 1) / x.abs().amax((1, 2, 3), keepdim=True)


class Affine(PointConv):
    """Says that it reads by a weight, and adds its input's sign to what it reads, which no weight can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.5 * x.sign())


class TwoInputs(Tint):
    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return super().forward(x) + other.mean()


X = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def net(middle: nn.Module | None = None, first: nn.Module | None = None) -> nn.Module:
    return nn.Sequential(
        first or nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.SiLU(),
        middle or nn.Identity(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 4),
    )


def exact(model: nn.Module, seed: int, x: Tensor = X) -> dict[str, snnprune.NeuronGroup]:
    """Gated, folded and removed agree in float64, and what is removed is no more there; returns the groups."""
    model = randomize_norms_(model.double().eval(), torch.Generator().manual_seed(seed))
    groups = snnprune.trace(model, x[:2])
    scales = random_scales(groups, torch.Generator().manual_seed(seed))
    with switch_neurons(model, groups, x[:2], Options(scores=None)) as gated:
        gated.set_scales(scales)
        reference = gated(x).detach()
        small = gated.compact()
        kept = {name: (scale > 0).numpy() for name, scale in scales.items()}
        assert gated.cost.cost("params", kept) == pytest.approx(count_params(small), abs=0.5)
        assert gated.cost.cost("macs", kept) == pytest.approx(count_macs(small, x), abs=0.5)
    folded = fold_(copy.deepcopy(model), groups, scales)
    assert relative_difference(reference, model(x)) > 1e-3
    assert relative_difference(reference, folded(x)) <= 1e-10
    assert relative_difference(reference, small(x)) <= 1e-10
    assert relative_difference(reference, remove_(folded, groups, scales)(x)) <= 1e-10
    assert count_params(small) < count_params(model)
    return {group.id: group for group in groups}


def all_rules() -> list[snnprune.Registration]:
    """Rules for all layers above but those that lie."""
    sizes = {"fan_in": "inputs", "fan_out": "outputs"}
    return [
        snnprune.register_layer(Tint, channels={"hue": 0, "shade": 1, "seen": 0}, sizes=["colours"]),
        snnprune.register_layer(
            PointConv, inputs={"kernel": 0}, outputs={"kernel": 1, "shift": 0}, sizes=sizes, axis=1
        ),
        snnprune.register_layer(TurnedLinear, inputs={"w": 0, "gate": 1}, outputs={"w": 1, "gate": 0, "b": 0}),
        snnprune.register_layer(Blur, channels={"kernel": 0}, sizes=["width"]),
        snnprune.register_layer(ConvReLU, like=nn.Conv2d),
        snnprune.register_layer(LinearLike, like=nn.Linear),
        snnprune.register_layer(Mixing, mixes="it subtracts the mean of all channels"),
    ]


@pytest.fixture
def rules() -> Iterator[None]:
    made = all_rules()
    yield
    for rule in made:
        rule.remove()


def members(group: snnprune.NeuronGroup) -> set[tuple[str, str]]:
    return {(m.module, m.role) for m in group.members}
