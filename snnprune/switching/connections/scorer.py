"""Weights of fully connected layers in, one value per connection out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...inputs import device_of, in_float32
from ..encoding import ScoreSource, Start
from ..encoding.scorer import standardized
from ..encoding.sources import over_rms, z_scores
from .switcher import MatrixSwitcher, sorted_patches, spread_patches

FEATURES = 5  # relative magnitude, the weight, norms of its row and of its column, sensitivity
_REACH = 3.0
_LEAST = 1e-30


class ConnectionScorer(nn.Module):
    """Gives every connection of the switched layers a value `u`; its scale is `u` where it is kept.

    As with neurons, `u = 1 + spread * z` at the *post-training* start, where z is the weight's magnitude
    relative to its layer's plus, with a sensitivity, how much the loss depends on it; the switcher's head
    starts at 0. At the *fresh* start all parts are random, and the values of every layer are standardised, at all
    times.

    Args:
        model: the network whose weights are read; it is not kept.
        names: the switched layers.
        scores: `switcher`, `switcher+offset`, or `free` (an offset alone).
        start: `post-training` or `fresh`.
        sensitivity: layer -> (out, in), mean squares of the loss's gradient by every connection's scale.
        trust: how strongly the start leans on the sensitivity, against the magnitude's 1.
        spread: standard deviation of u around 1 at the post-training start.
        fresh_mean: mean of u over a layer, after a fresh start.
        fresh_std: standard deviation of u over a layer, after a fresh start.
        seed: of the initialisation.

    Raises:
        ConfigError: an unknown option.
    """

    @in_float32()
    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        *,
        scores: ScoreSource = "switcher+offset",
        start: Start = "post-training",
        sensitivity: Mapping[str, Tensor] | None = None,
        trust: float = 0.5,
        spread: float = 0.05,
        fresh_mean: float = 0.1,
        fresh_std: float = 2**0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if scores not in ("switcher", "switcher+offset", "free"):
            raise ConfigError(f"scores={scores!r} is unknown; use switcher, switcher+offset or free.")
        if start not in ("post-training", "fresh"):
            raise ConfigError(f"start={start!r} is unknown; use post-training or fresh.")
        self.names, self.start, self.spread = list(names), start, spread
        self.learns_offsets = scores != "switcher"
        fresh = start == "fresh"
        for i, known in enumerate(_in_one_unit(sensitivity, names)):
            self.register_buffer(f"sensitivity_{i}", known)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.switcher: MatrixSwitcher | None = MatrixSwitcher(FEATURES, FEATURES + 1, zero_head=not fresh)
            first = torch.randn(FEATURES) if fresh else torch.tensor([1.0, 0.0, 0.0, 0.0, trust])
            self.path: nn.Parameter | None = nn.Parameter(first)
        shapes = [weight_of(model, name).shape for name in self.names]
        learns = self.learns_offsets
        self.offsets = nn.ParameterList(
            nn.Parameter(torch.zeros(s if learns else (0,)), requires_grad=learns) for s in shapes
        )
        self.fresh_mean, self.fresh_std = fresh_mean, fresh_std
        self.to(device_of(model))
        with torch.no_grad():
            if scores == "free":
                values = self(model)
                for offset, name in zip(self.offsets, self.names, strict=True):
                    offset.copy_(values[name] - 1)
                self.switcher = self.path = None

    def switcher_parameters(self) -> list[nn.Parameter]:
        """Parameters of the networks that read weights."""
        own = {id(p) for p in self.offsets.parameters()}
        return [p for p in self.parameters() if id(p) not in own]

    def raw(self, model: nn.Module) -> list[Tensor]:
        """What switcher and path say, per layer (out, in), before scaling and offsets."""
        assert self.switcher is not None
        assert self.path is not None
        weights = [over_rms(weight_of(model, name).float()) for name in self.names]
        relative = [w.abs() / (w.detach().abs().mean() + _LEAST) - 1 for w in weights]
        unit = torch.cat([r.detach().flatten() for r in relative]).std(correction=0) + 1e-6
        found = []
        for i, (weight, magnitude) in enumerate(zip(weights, relative, strict=True)):
            known = getattr(self, f"sensitivity_{i}")
            norms = [torch.log(weight.square().mean(dim) + 1e-8) for dim in (1, 0)]
            across, down = z_scores(norms[0])[:, None], z_scores(norms[1])[None]
            full = torch.zeros_like(weight)
            features = torch.stack([magnitude / unit, weight, across + full, down + full, known + full])
            order = [norm.detach().argsort(descending=True) for norm in norms]
            maps = self.switcher(sorted_patches(features, *order))
            mix = spread_patches(maps, *order)
            found.append(mix[-1] + ((mix[:-1] + self.path[:, None, None]) * features).sum(0))
        return found

    def forward(self, model: nn.Module) -> dict[str, Tensor]:
        """Layer -> (out, in) values u, differentiable in the model's weights and in the scorer's."""
        if self.switcher is None:
            return {name: 1 + offset for name, offset in zip(self.names, self.offsets, strict=True)}
        values = {}
        for i, (name, raw) in enumerate(zip(self.names, self.raw(model), strict=True)):
            fresh = self.start == "fresh"
            values[name] = standardized(raw, self.fresh_mean, self.fresh_std) if fresh else 1 + self.spread * raw
            if self.learns_offsets:
                values[name] = values[name] + self.offsets[i]
        return values


def weight_of(model: nn.Module, name: str) -> Tensor:
    """The weight of a layer, (out, in)."""
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def _in_one_unit(sensitivity: Mapping[str, Tensor] | None, names: Sequence[str]) -> list[Tensor]:
    """Logarithms around the mean of all layers, in one unit; what nothing depends on stands at the lower end."""
    if sensitivity is None:
        return [torch.zeros(1, 1) for _ in names]
    logs = [torch.log(sensitivity[n].detach().double().cpu()) if n in sensitivity else None for n in names]
    live = torch.cat([log[torch.isfinite(log)] for log in logs if log is not None] or [torch.zeros(0)])
    if not len(live):
        return [torch.zeros(1, 1) for _ in names]
    centre, unit = live.mean(), live.std(correction=0) + 1e-6
    return [
        torch.zeros(1, 1) if log is None else ((log - centre) / unit).clamp(-_REACH, _REACH).float()
        for log in logs
    ]
