"""Fixed-length rows for the neurons of any layer, and the one matrix in which they are stacked.

Each group has small feature extractors of its own: one per weight tensor, a strided convolution over
each neuron's weights (arXiv 2110.05954, section 3.3.2), whose outputs are averaged per side. Rows are
sorted by their norm before they are stacked and put back afterwards, and so are columns. So the
switcher's convolutions along the rows see neighbours in strength, not in position, and permuting a
layer's neurons only permutes their scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..graph import NeuronGroup
from .sources import Source, sort_columns, sources_of, standardize, z_scores

STATISTICS = 4  # relative joint norm, z-scores of incoming and outgoing norm, and the sensitivity


class RowExtractor(nn.Module):
    """A strided convolution over a neuron's weights: (neurons, length) -> (neurons, channels, width)."""

    def __init__(self, length: int, channels: int, width: int) -> None:
        super().__init__()
        self.kernel = max(1, math.ceil(length / width))
        self.width = width
        self.weight = nn.Parameter(torch.randn(self.kernel, channels) / math.sqrt(self.kernel))

    def forward(self, rows: Tensor) -> Tensor:
        """Zero-padded to `kernel * width`, cut into `width` patches, each mapped to `channels`."""
        rows = F.pad(rows, (0, self.kernel * self.width - rows.shape[1]))
        patches = rows.view(len(rows), self.width, self.kernel)
        return (patches @ self.weight).transpose(1, 2)


class GroupRows(nn.Module):
    """Rows and statistics of one group."""

    def __init__(self, model: nn.Module, group: NeuronGroup, channels: int, width: int) -> None:
        super().__init__()
        self.size = group.size
        self.channels, self.width = channels, width
        self.sources: list[Source] = sources_of(model, group)
        self.extractors = nn.ModuleList(RowExtractor(s.length, channels, width) for s in self.sources)

    def forward(self, model: nn.Module, *, sort: bool) -> tuple[Tensor, Tensor]:
        """Features (neurons, 2 * channels, width) and statistics of the weights (neurons, STATISTICS - 1).

        The first statistic is the norm of all weights of the neuron relative to the group's mean, less
        1: comparable between groups, so that a group of equals is not ranked as if half of it were
        weak, and dead neurons do not hide the rest. The others are standardised log norms of the
        neuron's own weights and of those that read it. A side without weights (pixels have none of
        their own) is 0.
        """
        sides: dict[str, list[Tensor]] = {"incoming": [], "outgoing": []}
        energy: dict[str, list[Tensor]] = {"incoming": [], "outgoing": []}
        like = next(iter(model.parameters()))
        for source, extract in zip(self.sources, self.extractors, strict=True):
            rows = standardize(source.rows(model).float())
            energy[source.side].append(rows.square().mean(1))
            sides[source.side].append(extract(sort_columns(rows, source.unit) if sort else rows))
        empty = torch.zeros(self.size, self.channels, self.width, device=like.device)
        features = torch.cat([_mean(sides[s], empty) for s in ("incoming", "outgoing")], 1)
        none = torch.zeros(self.size, device=like.device)
        together = _mean([*energy["incoming"], *energy["outgoing"]], none)
        norm = torch.sqrt(together + 1e-12)
        relative = norm / norm.detach().mean() - 1
        logs = [0.5 * torch.log(_mean(energy[s], none) + 1e-8) for s in ("incoming", "outgoing")]
        return features, torch.stack([relative, *map(z_scores, logs)], 1)


def _mean(parts: Sequence[Tensor], empty: Tensor) -> Tensor:
    return torch.stack(list(parts)).mean(0) if parts else empty


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
        known = torch.cat(list(sensitivity)) if sensitivity else torch.zeros(sum(self.sizes))
        self.register_buffer("sensitivity", known)
        self.in_channels = 2 * channels + STATISTICS
        self.width, self.gap, self.sort = width, gap, sort
        self.groups = nn.ModuleList(GroupRows(model, g, channels, width) for g in groups)

    sensitivity: Tensor

    def forward(self, model: nn.Module) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Matrix (in_channels, rows, width); per group its row numbers and its statistics.

        `rows[g][i]` is the row of the matrix that describes neuron i of group g.
        """
        parts: list[Tensor] = []
        places, statistics = [], []
        at = 0
        encoded = [encode(model, sort=self.sort) for encode in self.groups]
        every = torch.cat([stats[:, 0].detach() for _, stats in encoded])
        unit = torch.ones(STATISTICS - 1, device=every.device)
        unit[0] = every.std(correction=0) + 1e-6  # one unit of relative norm for all groups
        sensitivity = self.sensitivity.split(self.sizes)
        for (features, stats), size, known in zip(encoded, self.sizes, sensitivity, strict=True):
            stats = torch.cat([stats / unit, known[:, None]], 1)
            full = torch.cat([features, stats[:, :, None].expand(-1, -1, self.width)], 1)
            if self.sort:
                order = stats[:, 0].detach().argsort(descending=True)
                full = full.index_select(0, order)
                place = torch.empty_like(order)
                place[order] = torch.arange(size, device=order.device)
            else:
                place = torch.arange(size, device=full.device)
            pad = self.gap + (-(size + self.gap) % 4)  # aligned, so that pooling treats groups alike
            parts.append(F.pad(full, (0, 0, 0, 0, 0, pad)))
            places.append(place + at)
            statistics.append(stats)
            at += size + pad
        return torch.cat(parts).transpose(0, 1), places, statistics
