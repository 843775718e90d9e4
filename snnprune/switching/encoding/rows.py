"""Fixed-length rows for the neurons of any layer, and the one matrix in which they are stacked.

Each group has small feature extractors of its own, one per weight tensor, whose outputs are averaged per
side. Rows are sorted by their norm before they are stacked and put back afterwards, and so are columns. So
the switcher's convolutions along the rows see neighbours in strength, not in position, and permuting a
layer's neurons only permutes their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...graph import NeuronGroup
from .patches import Extractor
from .sources import sources_of

STATISTICS = 4  # relative joint norm, z-scores of incoming and outgoing norm, and the sensitivity
_SIDES = ("incoming", "outgoing")


@dataclass(frozen=True, slots=True)
class Encoded:
    """All neurons of all groups, one after the other.

    Attributes:
        matrix: (in_channels, rows, width), the switcher's input.
        places: (neurons,), the row of the matrix that describes each neuron.
        statistics: (neurons, STATISTICS).
    """

    matrix: Tensor
    places: Tensor
    statistics: Tensor


class StackedRows(nn.Module):
    """The rows of all groups in one matrix, with a gap of zeros between groups."""

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[NeuronGroup],
        *,
        channels: int = 4,
        width: int = 16,
        gap: int = 4,
        sort: bool = True,
        sensitivity: Sequence[Tensor] | None = None,
    ) -> None:
        """As many rows as neurons.

        Args:
            model: the network.
            groups: prunable groups.
            channels: of the extractors, per side.
            width: of the rows.
            gap: rows of zeros between groups.
            sort: rows and columns by their norm.
            sensitivity: per group (size,), standardised; a statistic that weights do not hold.
        """
        super().__init__()
        self.ids = [group.id for group in groups]
        self.sizes = [group.size for group in groups]
        total = sum(self.sizes)
        self.in_channels = 2 * channels + STATISTICS
        self.channels, self.width, self.sort = channels, width, sort
        self.extractors = nn.ModuleList()
        rows: list[Tensor] = []  # of every extractor: 2 x neuron + side
        members, slots = [], []
        first = at = 0
        for number, (group, size) in enumerate(zip(groups, self.sizes, strict=True)):
            for source in sources_of(model, group):
                self.extractors.append(Extractor(source, channels, width, sort=sort))
                rows.append(2 * torch.arange(first, first + size) + _SIDES.index(source.side))
            members.append(torch.full((size,), number))
            slots.append(torch.arange(at, at + size))
            first += size
            at += size + gap + (-(size + gap) % 4)  # aligned, so that pooling treats groups alike
        self.height = at
        found = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long)
        known = torch.cat(list(sensitivity)) if sensitivity else torch.zeros(total)
        self.register_buffer("sensitivity", known)
        sources = torch.zeros(2 * total).index_add(0, found, torch.ones(len(found)))
        for name, value in (
            ("rows", found),
            ("group", torch.cat(members)),
            ("slots", torch.cat(slots)),
            ("sources", sources),
            ("count", torch.tensor(self.sizes, dtype=torch.float)),
        ):
            self.register_buffer(name, value, persistent=False)

    sensitivity: Tensor
    rows: Tensor
    group: Tensor
    slots: Tensor
    sources: Tensor
    count: Tensor

    def forward(self, model: nn.Module) -> Encoded:
        """Everything that the switcher sees, differentiable in the weights and in the extractors."""
        features, energy = self._sides(model)
        statistics = self._statistics(energy)
        features = features.view(len(self.group), -1, self.channels, self.width)
        every = [features.flatten(1, 2), statistics[:, :, None].expand(-1, -1, self.width)]
        places = self._places(statistics[:, 0].detach())
        matrix = statistics.new_zeros(self.height, self.in_channels, self.width)
        return Encoded(matrix.index_copy(0, places, torch.cat(every, 1)).transpose(0, 1), places, statistics)

    def _sides(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Sums over the sources of every side: features (2 x neurons, channels, width), energy (2 x neurons,)."""
        parts = [extractor(model) for extractor in self.extractors]
        size = self.width * self.channels
        features = self.sensitivity.new_zeros(len(self.sources), size)
        energy = self.sensitivity.new_zeros(len(self.sources))
        if parts:
            features = features.index_add(0, self.rows, torch.cat([part[0] for part in parts]))
            energy = energy.index_add(0, self.rows, torch.cat([part[1] for part in parts]))
        features = features / self.sources.clamp_min(1)[:, None]
        return features.view(-1, self.width, self.channels).transpose(1, 2), energy

    def _statistics(self, energy: Tensor) -> Tensor:
        """(neurons, STATISTICS) of the summed energies.

        The first one is the norm of all weights of the neuron relative to the group's mean, less 1:
        comparable between groups, so that a group of equals is not ranked as if half of it were
        weak, and dead neurons do not hide the rest; in one unit for all groups. Then come standardised log
        norms of the neuron's own weights and of those that read it, and the sensitivity. A side without
        weights (pixels have none of their own) is 0.
        """
        both, sources = energy.view(-1, 2), self.sources.view(-1, 2)
        norm = torch.sqrt(both.sum(1) / sources.sum(1).clamp_min(1) + 1e-12)
        relative = norm / self._mean(norm.detach()[:, None])[:, 0] - 1
        relative = relative / (relative.detach().std(correction=0) + 1e-6)
        logs = 0.5 * torch.log(both / sources.clamp_min(1) + 1e-8)
        centred = logs - self._mean(logs.detach())
        spread = self._mean(centred.detach().square()).sqrt()
        scores = torch.where(sources > 0, centred / (spread + 1e-6), 0.0)
        return torch.cat([relative[:, None], scores, self.sensitivity[:, None]], 1)

    def _mean(self, values: Tensor) -> Tensor:
        """Every neuron gets the mean of its group: (neurons, n) -> (neurons, n)."""
        sums = values.new_zeros(len(self.count), values.shape[1]).index_add(0, self.group, values)
        return (sums / self.count[:, None]).index_select(0, self.group)

    def _places(self, strength: Tensor) -> Tensor:
        """Row of every neuron: its rank within its group, or its position."""
        if not self.sort:
            return self.slots
        order = strength.argsort(descending=True)
        order = order[self.group[order].argsort(stable=True)]
        return torch.empty_like(order).index_copy(0, order, self.slots)
