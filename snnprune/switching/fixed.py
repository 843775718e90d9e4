"""A criterion's order in the place of a scorer: nothing of it learns, and what is kept has scale 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..graph import NeuronGroup
from ..inputs import device_of, in_float32
from ..ranks import current
from ..surgery import column_maps
from .hooks import gated_weights
from .scoring import ValueScorer
from .segments import Segments
from .stacks import Stacks


class FixedScorer(ValueScorer):
    """Gives every neuron the value 1, and the threshold the order of a criterion's scores.

    A budget looks at the order alone. So the scores are kept as ranks, which float32 tells apart also where they
    span many orders of magnitude. Of equal scores those at the beginning of their groups are the higher: where a
    criterion says the same of half of the model, all groups are to lose alike, not the last ones everything.

    Args:
        model: the network.
        groups: its groups.
        scores: group id -> (size,) scores of every prunable one; infinite for groups that go last.
    """

    @in_float32()
    def __init__(self, model: nn.Module, groups: Sequence[NeuronGroup], scores: Mapping[str, Tensor]) -> None:
        device = device_of(model)
        segments = Segments({group.id: group.size for group in groups if group.prunable}, device)
        super().__init__(
            segments,
            scores="switcher",
            start="post-training",
            spread=0.0,
            fresh_mean=0.0,
            fresh_std=1.0,
            device=device,
        )
        self.stacks = Stacks(model, gated_weights(model, column_maps(model, groups)).values())
        flat = segments.join({name: scores[name].double().cpu() for name in segments.names})
        ahead = segments.join(
            {name: torch.arange(len(scores[name])) / len(scores[name]) for name in segments.names}
        )
        order = torch.argsort(ahead, descending=True, stable=True)
        order = order[torch.argsort(flat[order], stable=True)]
        ranks = torch.empty(len(flat)).scatter_(0, order, torch.arange(float(len(flat)))).to(device)
        current().same_([ranks])  # last bits differ between GPUs
        self.register_buffer("order", ranks)

    order: Tensor

    @property
    def lifts(self) -> Tensor:
        """(neurons,) what is added to values before neurons are compared."""
        return self.order

    def drop_switcher(self) -> None:
        """There is none."""

    def forward(self, model: nn.Module, stacked: Sequence[Tensor] | None = None) -> Tensor:
        """(neurons,): ones, whatever the weights are."""
        return torch.ones_like(self.order)
