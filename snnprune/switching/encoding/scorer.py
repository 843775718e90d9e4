"""Scorer: the weights of a model in, one value per neuron out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...graph import NeuronGroup
from ...inputs import device_of, in_float32
from ...surgery import column_maps
from ..hooks import gated_weights
from ..scoring import ScoreSource, Start, ValueScorer, check_scorer
from ..segments import Segments
from ..stacks import Stacks
from ..switcher import Switcher
from .evidence import Evidence
from .rows import StackedRows
from .sources import sources_of
from .stacked import StackedMatrices, is_fc_group
from .statistics import STATISTICS


class Scorer(ValueScorer):
    """Gives every neuron of every prunable group a value `u`; its scale is `u` where it is kept.

    *Post-training* start: `u = 1 + spread * z`, where z starts as the relative norm of all weights of
    the neuron (its own and those that read it), so that the pretrained function is unharmed and the
    order is the one of the best hand-set rule. The U-Net's head starts at 0 and learns what to add.
    With evidence, z also holds the loss's dependence on the neuron, and `shifts` says how groups compare
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
        scores: ScoreSource = "switcher+offset",
        start: Start = "post-training",
        evidence: Evidence | None = None,
        spread: float = 0.05,
        fresh_mean: float = 0.1,
        fresh_std: float = 2**0.5,
        seed: int = 0,
    ) -> None:
        check_scorer(scores, start)
        chosen = [group for group in groups if group.prunable]
        if not chosen:
            raise ConfigError("no group of the model is prunable, so there is nothing to score.")
        device = device_of(model)
        super().__init__(
            Segments({group.id: group.size for group in chosen}, device),
            scores=scores,
            start=start,
            spread=spread,
            fresh_mean=fresh_mean,
            fresh_std=fresh_std,
            device=device,
        )
        self.ids, self.sizes = self.segments.names, self.segments.sizes
        fresh = start == "fresh"
        fc = [g for g in chosen if is_fc_group(model, g)] if fresh else []
        stacked = [g for g in chosen if g not in fc]
        sources = [sources_of(model, group) for group in stacked]
        read = [source.name for some in sources for source in some]
        self.stacks = Stacks(model, [*gated_weights(model, column_maps(model, groups)).values(), *read])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.matrices = StackedMatrices(model, fc) if fc else None
            self.fc_switcher = None
            if self.matrices is not None:
                stride = max(1, min(8, self.matrices.width // 32))
                self.fc_switcher = Switcher(len(fc), len(fc), self.matrices.width, stride=stride)
            within = None if evidence is None else evidence.within([g.id for g in stacked])
            self.rows = None
            if stacked:
                self.rows = StackedRows(model, stacked, sources, self.stacks, sort=not fresh, importance=within)
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
        none = torch.zeros(len(chosen))
        self.register_buffer("shifts", none if evidence is None else spread * evidence.shifts(self.ids))
        self._order_matrices([g.id for g in fc])
        self.to(device)
        if scores == "free":
            with torch.no_grad():
                self.become_free(self.value_of(self.raw(model)))

    shifts: Tensor
    of_matrices: Tensor

    @property
    def lifts(self) -> Tensor:
        """(neurons,) what is added to values before neurons of different groups are compared."""
        return self.segments.spread(self.shifts)

    def drop_switcher(self) -> None:
        """Leave the offsets alone."""
        self.matrices = self.fc_switcher = self.rows = self.switcher = self.path = None

    def raw(self, model: nn.Module, stacked: Sequence[Tensor] | None = None) -> Tensor:
        """(neurons,): the networks' outputs, before scaling and offsets.

        Args:
            model: the network.
            stacked: what `stacks(model)` gives; made here if not given.
        """
        found: list[Tensor] = []
        if self.matrices is not None and self.fc_switcher is not None:
            found.append(self.fc_switcher(self.matrices(model)).reshape(-1))
        if self.rows is not None and self.switcher is not None and self.path is not None:
            encoded = self.rows(model, self.stacks(model) if stacked is None else stacked)
            values = self.switcher(encoded.matrix).view(-1).index_select(0, encoded.places)
            found.append(values + self.path(encoded.statistics).squeeze(1))
        return found[0] if self.matrices is None else torch.cat(found).index_select(0, self.of_matrices)

    def _order_matrices(self, fc: Sequence[str]) -> None:
        """Where each neuron's value lies when those of the stacked matrices, padded, come before all others."""
        if self.matrices is None:
            return
        padded, at = [], self.matrices.height * len(fc)
        for name, size in zip(self.ids, self.sizes, strict=True):
            first = at
            if name in fc:
                first = self.matrices.height * list(fc).index(name)
            else:
                at += size
            padded.append(torch.arange(first, first + size))
        self.register_buffer("of_matrices", torch.cat(padded), persistent=False)

    def forward(self, model: nn.Module, stacked: Sequence[Tensor] | None = None) -> Tensor:
        """(neurons,): values u of all groups, one after the other, in the order of `ids`.

        Differentiable in the model's weights and in the scorer's.

        Args:
            model: the network.
            stacked: what `stacks(model)` gives, where it is needed elsewhere too; made here if not given.
        """
        return self.value_of(None if self.path is None else self.raw(model, stacked))
