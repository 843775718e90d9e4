"""Weights of fully connected layers in, one value per connection out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ...inputs import device_of, in_float32
from ..encoding.sources import over_rms, z_scores
from ..scoring import ScoreSource, Start, ValueScorer
from ..segments import Segments
from .switcher import MatrixSwitcher, sorted_patches, spread_patches
from .weights import weight_of

FEATURES = 5  # relative magnitude, the weight, norms of its row and of its column, sensitivity
_MAGNITUDE, _SIGNED = 0, 1  # of those
_REACH = 3.0
_LEAST = 1e-30


class ConnectionScorer(ValueScorer):
    """Gives every connection of the switched layers a value `u`; its scale is `u` where it is kept.

    As with neurons, `u = 1 + spread * z` at the *post-training* start, where z is the weight's magnitude
    relative to its layer's plus, with an importance, how much the loss depends on it; the switcher's head
    starts at 0. At the *fresh* start all parts are random, and the values of every layer are standardised, at all
    times; but the path prefers large weights to small ones, and the sign of a weight has no say before it is
    learned. Else a layer keeps its negative weights alone with one seed, and is dead behind a ReLU from the
    first step on, and its positive ones with another.

    Args:
        model: the network whose weights are read; it is not kept.
        names: the switched layers.
        scores: `switcher`, `switcher+offset`, or `free` (an offset alone).
        start: `post-training` or `fresh`.
        importance: layer -> (out, in), mean squares of the loss's gradient by every connection's scale.
        trust: how strongly the start leans on the importance, against the magnitude's 1.
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
        importance: Mapping[str, Tensor] | None = None,
        trust: float = 0.5,
        spread: float = 0.05,
        fresh_mean: float = 0.1,
        fresh_std: float = 2**0.5,
        seed: int = 0,
    ) -> None:
        where = device_of(model)
        shapes = {name: weight_of(model, name).shape for name in names}
        super().__init__(
            Segments({name: shape.numel() for name, shape in shapes.items()}, where),
            scores=scores,
            start=start,
            spread=spread,
            fresh_mean=fresh_mean,
            fresh_std=fresh_std,
            device=where,
        )
        self.names = list(names)
        fresh = start == "fresh"
        for i, known in enumerate(_in_one_unit(importance, names)):
            self.register_buffer(f"importance_{i}", known)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.switcher: MatrixSwitcher | None = MatrixSwitcher(FEATURES, FEATURES + 1, zero_head=not fresh)
            first = torch.randn(FEATURES) if fresh else torch.tensor([1.0, 0.0, 0.0, 0.0, trust])
            first[_MAGNITUDE], first[_SIGNED] = first[_MAGNITUDE].abs(), 0.0
            nn.init.zeros_(self.switcher.head.weight[_SIGNED])
            self.path: nn.Parameter | None = nn.Parameter(first)
        self.to(where)
        if scores == "free":
            with torch.no_grad():
                self.become_free(self(model))

    def drop_switcher(self) -> None:
        """Leave the offsets alone."""
        self.switcher = self.path = None

    def raw(self, model: nn.Module) -> list[Tensor]:
        """What switcher and path say, per layer (out, in), before scaling and offsets."""
        assert self.switcher is not None
        assert self.path is not None
        weights = [over_rms(weight_of(model, name).float()) for name in self.names]
        relative = [w.abs() / (w.detach().abs().mean() + _LEAST) - 1 for w in weights]
        unit = torch.cat([r.detach().flatten() for r in relative]).std(correction=0) + 1e-6
        found = []
        for i, (weight, magnitude) in enumerate(zip(weights, relative, strict=True)):
            known = getattr(self, f"importance_{i}")
            norms = [torch.log(weight.square().mean(dim) + 1e-8) for dim in (1, 0)]
            across, down = z_scores(norms[0])[:, None], z_scores(norms[1])[None]
            full = torch.zeros_like(weight)
            features = torch.stack([magnitude / unit, weight, across + full, down + full, known + full])
            order = [norm.detach().argsort(descending=True) for norm in norms]
            maps = self.switcher(sorted_patches(features, *order))
            mix = spread_patches(maps, *order)
            found.append(mix[-1] + ((mix[:-1] + self.path[:, None, None]) * features).sum(0))
        return found

    def forward(self, model: nn.Module) -> Tensor:
        """(connections,) values u, layer by layer; differentiable in the model's weights and in the scorer's."""
        return self.value_of(
            None if self.switcher is None else torch.cat([raw.flatten() for raw in self.raw(model)])
        )


def _in_one_unit(importance: Mapping[str, Tensor] | None, names: Sequence[str]) -> list[Tensor]:
    """Logarithms around the mean of all layers, in one unit; what nothing depends on stands at the lower end."""
    if importance is None:
        return [torch.zeros(1, 1) for _ in names]
    logs = [torch.log(importance[n].detach().double().cpu()) if n in importance else None for n in names]
    live = torch.cat([log[torch.isfinite(log)] for log in logs if log is not None] or [torch.zeros(0)])
    if not len(live):
        return [torch.zeros(1, 1) for _ in names]
    centre, unit = live.mean(), live.std(correction=0) + 1e-6
    return [
        torch.zeros(1, 1) if log is None else ((log - centre) / unit).clamp(-_REACH, _REACH).float()
        for log in logs
    ]
