"""Scorer: the weights of a model in, one value per neuron out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...graph import NeuronGroup
from ...inputs import device_of, in_float32
from ..scoring import ScoreSource as Scores
from ..scoring import Start
from ..segments import Segments
from ..stacks import Stacks
from ..switcher import Switcher
from .evidence import Evidence
from .rows import STATISTICS, StackedRows
from .stacked import StackedMatrices, is_fc_group


class Scorer(nn.Module):
    """Gives every neuron of every prunable group a value `u`; its scale is `u` where it is kept.

    *Post-training* start: `u = 1 + spread * z`, where z starts as the relative norm of all weights of
    the neuron (its own and those that read it), so that the pretrained function is unharmed and the
    order is the one of the best hand-set rule. The U-Net's head starts at 0 and learns what to add.
    With evidence, z also holds the loss's sensitivity to the neuron, and `levels` says how groups compare
    under a budget: it moves the threshold of a group, not its scales.

    *Fresh* start (the papers'): fully connected layers enter as stacked matrices, others as rows, no
    sorting. The values of every group are standardised before the ReLU, at all times: scales are defined only
    up to a factor and a shift per layer, along which they otherwise drift until a layer is all on, all off or
    too large to learn. Mean 0.1 and variance 2 leave half of the neurons on, and the mean square of the scales
    is 1, so that signals keep their size (as in He et al. 2015, section 2.2).

    Args:
        model: the network whose weights are read; it is not kept.
        groups: its groups; only prunable ones get values.
        scores: `switcher` alone, with a free offset per neuron, or `free` scales without a switcher
            (the ablation).
        start: see above.
        evidence: how much the loss depends on each neuron and what it costs; None for the norm alone.
        spread: standard deviation of u around 1 at the post-training start.
        fresh_mean: mean of u over a group, after a fresh start.
        fresh_std: standard deviation of u over a group, after a fresh start.
        seed: of the initialisation.

    Raises:
        ConfigError: no group is prunable, or an unknown option.
    """

    @in_float32()
    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[NeuronGroup],
        *,
        scores: Scores = "switcher+offset",
        start: Start = "post-training",
        evidence: Evidence | None = None,
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
        chosen = [group for group in groups if group.prunable]
        if not chosen:
            raise ConfigError("no group of the model is prunable, so there is nothing to score.")
        self.ids = [group.id for group in chosen]
        self.spread, self.start = spread, start
        self.learns_offsets = scores != "switcher"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = start == "fresh"
            fc = [g for g in chosen if is_fc_group(model, g)] if fresh else []
            stacked = [g for g in chosen if g not in fc]
            self.matrices = StackedMatrices(model, fc) if fc else None
            self.fc_switcher = None
            if self.matrices is not None:
                stride = max(1, min(8, self.matrices.width // 32))
                self.fc_switcher = Switcher(len(fc), len(fc), self.matrices.width, stride=stride)
            within = None if evidence is None else evidence.within([g.id for g in stacked])
            self.rows = StackedRows(model, stacked, sort=not fresh, sensitivity=within) if stacked else None
            self.switcher = None
            if self.rows is not None:
                self.switcher = Switcher(
                    self.rows.in_channels,
                    1,
                    self.rows.width,
                    stride=4,
                    zero_head=not fresh,
                )
            # full-resolution row path
            self.path: nn.Linear | None = nn.Linear(STATISTICS, 1, bias=False)
        with torch.no_grad():
            trust = 0.0 if evidence is None else evidence.trust
            first = [0.0] * STATISTICS if fresh else [1.0] + [0.0] * (STATISTICS - 2) + [trust]
            self.path.weight.copy_(torch.tensor([first]))
        self.segments = Segments({g.id: g.size for g in chosen}, device_of(model))
        from ...surgery import column_maps
        from ..hooks import scales_weights

        self.stacks = Stacks(
            model, [f"{n}.weight" for n in column_maps(model, chosen) if scales_weights(model.get_submodule(n))]
        )
        size = self.segments.total if scores != "switcher" else 0
        self.offsets = nn.Parameter(torch.zeros(size), requires_grad=scores != "switcher")
        none = torch.zeros(len(chosen))
        self.register_buffer("shifts", none if evidence is None else spread * evidence.levels(self.ids))
        self.fresh_mean, self.fresh_std = fresh_mean, fresh_std
        self.to(device_of(model))
        if scores == "free":
            with torch.no_grad():
                raw = self.raw(model)
                self.offsets.copy_(self.segments.join({n: self._value(raw[n]) - 1 for n in self.ids}))
            self.matrices = self.fc_switcher = self.rows = self.switcher = self.path = None

    shifts: Tensor

    def switcher_parameters(self) -> list[nn.Parameter]:
        """Parameters of the networks that read weights."""
        return [p for p in self.parameters() if p is not self.offsets]

    def offset_parameters(self) -> list[nn.Parameter]:
        return [self.offsets] if self.learns_offsets else []

    def raw(self, model: nn.Module) -> dict[str, Tensor]:
        """The networks' outputs per group, before scaling and offsets."""
        found: dict[str, Tensor] = {}
        if self.matrices is not None and self.fc_switcher is not None:
            values = self.fc_switcher(self.matrices(model))
            for i, (name, size) in enumerate(zip(self.matrices.ids, self.matrices.sizes, strict=True)):
                found[name] = values[i, :size]
        if self.rows is not None and self.switcher is not None and self.path is not None:
            encoded = self.rows(model)
            values = self.switcher(encoded.matrix)[0].index_select(0, encoded.places)
            values = values + self.path(encoded.statistics).squeeze(1)
            found.update(zip(self.rows.ids, values.split(self.rows.sizes), strict=True))
        return found

    def _value(self, raw: Tensor) -> Tensor:
        if self.start == "fresh":
            return standardized(raw, self.fresh_mean, self.fresh_std)
        return 1 + self.spread * raw

    def forward(self, model: nn.Module, stacked=None) -> Tensor:
        """Group id -> (size,) values u, differentiable in the model's weights and in the scorer's."""
        raw = self.raw(model)
        values = {}
        for i, name in enumerate(self.ids):
            values[name] = (
                self._value(raw[name])
                if name in raw
                else torch.ones(self.segments.sizes[i], device=self.offsets.device)
            )
        flat = self.segments.join(values)
        return flat + self.offsets if self.learns_offsets else flat


def standardized(raw: Tensor, mean: float, std: float) -> Tensor:
    """Values of one layer moved and scaled to a mean and a standard deviation, differentiably."""
    return mean + std * (raw - raw.mean()) / (raw.std(correction=0) + 1e-6)
