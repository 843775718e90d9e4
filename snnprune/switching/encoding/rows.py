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
from ..stacks import Stacks, tensor_of
from .columns import Columns, Units
from .encode import Encode
from .sources import Source
from .statistics import STATISTICS, Statistics
from .sums import RowSums
from .tensors import lay_out

_SIDES = ("incoming", "outgoing")
_ALIGNED = 4  # groups begin at multiples of this, so that pooling treats them alike


@dataclass(frozen=True, slots=True)
class Encoded:
    """All neurons of all groups, one after the other.

    Attributes:
        matrix: (1, in_channels, rows, width), the switcher's input.
        places: (neurons,), the row of the matrix that describes each neuron.
        statistics: (neurons, STATISTICS).
    """

    matrix: Tensor
    places: Tensor
    statistics: Tensor


@dataclass(frozen=True, slots=True)
class Side:
    """Where one side of a part lies: its neurons among all rows, its columns among those of all kernels."""

    rows: slice
    columns: slice


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part lies in the tables of all parts.

    Attributes:
        members: of the part.
        row_norms: of its rows.
        unit_norms: of its units.
        sides: whether the neurons are the units -> where that side lies.
        gathered: in the vector of all tables.
        by_norms: whether only the norms of its rows are read.
    """

    members: int
    row_norms: slice
    unit_norms: slice
    sides: dict[bool, Side]
    gathered: slice
    by_norms: bool

    @property
    def first(self) -> Side:
        """The side that comes first."""
        return next(iter(self.sides.values()))


class StackedRows(nn.Module):
    """The rows of all groups in one matrix, with a gap of zeros between groups."""

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[NeuronGroup],
        sources: Sequence[Sequence[Source]],
        stacks: Stacks,
        *,
        channels: int = 4,
        width: int = 16,
        gap: int = 4,
        sort: bool = True,
        importance: Sequence[Tensor] | None = None,
    ) -> None:
        """As many rows as neurons.

        Args:
            model: the network.
            groups: prunable groups.
            sources: of every group.
            stacks: that hold the sources' weights.
            channels: of the extractors, per side.
            width: of the rows.
            gap: rows of zeros between groups.
            sort: rows and columns by their norm.
            importance: per group (size,), standardised; a statistic that weights do not hold.
        """
        super().__init__()
        self.ids = [group.id for group in groups]
        self.sizes = [group.size for group in groups]
        self.neurons = sum(self.sizes)
        self.in_channels = 2 * channels + STATISTICS
        self.channels, self.width, self.sort = channels, width, sort
        every = [source for some in sources for source in some]
        shapes = [torch.Size((len(names), *tensor_of(model, names[0]).shape)) for names in stacks.names]
        laid = lay_out(model, every, stacks, shapes)
        self.parts, self.flat, self.flat_length = laid.parts, laid.flat, laid.length
        self.layout, rows, columns = self._places()
        self.parts_of = every  # the tensors of the kernels, in order
        found, units = self._sources(every)
        self.columns = Columns(units, columns, channels=channels, width=width, sort=sort)
        self._tables()
        self._owners(groups, sources, found, rows)
        known = torch.cat(list(importance)) if importance else torch.zeros(self.neurons)
        terms = torch.tensor([[sum(s.side == side for s in some) for side in _SIDES] for some in sources])
        self.statistics = Statistics(self.sizes, terms.float(), known)
        self._slots(gap)

    nothing: Tensor
    scattered: Tensor
    slots: Tensor
    members: Tensor
    inverse_sizes: Tensor
    source: Tensor
    neuron: Tensor
    side: Tensor
    neuron_side: Tensor
    feature_weight: Tensor
    energy_weight: Tensor
    pick_by_neuron: Tensor
    group: Tensor
    row_of: Tensor
    ranked: Tensor

    def forward(self, model: nn.Module, stacked: Sequence[Tensor]) -> Encoded:
        """Everything that the switcher sees, differentiable in the stacks and in the extractors."""
        matrix, statistics, places = Encode.apply(self, model, self.columns.weight, *stacked)  # type: ignore[misc]
        return Encoded(matrix, places, statistics)

    def place(self, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Row of every neuron, its rank within its group or its position; and the neuron of every row.

        Args:
            strength: (neurons,), >= 0.
        """
        if not self.sort:
            return self.row_of, self.ranked
        order = torch.sort(self.group - strength.contiguous().view(torch.int32), stable=True).indices
        places = torch.empty_like(order).index_copy_(0, order, self.row_of)
        neurons = order.new_full((len(self.ranked),), self.neurons).index_copy_(0, self.row_of, order)
        return places, neurons

    # -- tables, made once ---------------------------------------------------------------------

    def _keep(self, **tensors: Tensor) -> None:
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def _places(self) -> tuple[list[Place], int, int]:
        found, rows, columns, norms, gathered = [], 0, 0, 0, 0
        for part in self.parts:
            members, count, units, unit = part.shape
            sides = {}
            for turned in part.sides:
                height, width = (units, count * unit) if turned else (count, units * unit)
                more = members * height, 0 if part.by_norms else members * width
                sides[turned] = Side(slice(rows, rows + more[0]), slice(columns, columns + more[1]))
                rows, columns = rows + more[0], columns + more[1]
            middle, end = norms + members * count, norms + members * (count + units)
            size = 0 if part.index is None else part.index.numel()
            here = slice(gathered, gathered + size)
            found.append(Place(members, slice(norms, middle), slice(middle, end), sides, here, part.by_norms))
            norms, gathered = end, gathered + size
        self.norms, self.gathered = norms, gathered
        return found, rows, columns

    def _sources(self, every: Sequence[Source]) -> tuple[list[Tensor], list[Units]]:
        """Rows and columns of every source."""
        rows: dict[int, Tensor] = {}
        units: dict[int, Units] = {}
        for part, place in zip(self.parts, self.layout, strict=True):
            _, count, wide, unit = part.shape
            for number, member, turned in part.sources:
                source, side = every[number], place.sides[turned]
                height, width = (wide, count) if turned else (count, wide)
                neurons = len(source.channels) // source.per_neuron
                mine = torch.arange(0 if place.by_norms else source.length // source.unit)
                rows[number] = side.rows.start + member * height + torch.arange(neurons)
                norms = place.row_norms if turned else place.unit_norms
                begin = side.columns.start + member * width * unit
                units[number] = Units(source.unit, norms.start + member * width + mine, begin + mine * unit)
        return [rows[i] for i in range(len(every))], [units[i] for i in range(len(every))]

    def _tables(self) -> None:
        """Places in the flat vector for every table, and back."""
        indices = []
        for number, part in enumerate(self.parts):
            if part.index is not None:
                part.name = f"index_{number}"
                self._keep(**{part.name: part.index.flatten()})
                indices.append(part.index.flatten())
        self._keep(nothing=torch.zeros(1), scattered=torch.zeros(0, dtype=torch.int32))
        if indices:
            flat = torch.cat(indices).long()
            order = flat.argsort(stable=True)
            counts = torch.bincount(flat, minlength=self.flat_length + 1)[: self.flat_length]
            most = torch.arange(max(1, int(counts.max())))
            place = (counts.cumsum(0) - counts)[:, None] + most
            back = torch.where(most < counts[:, None], order[place.clamp_max(len(order) - 1)], self.gathered)
            self._keep(scattered=back.flatten().int())

    def _owners(
        self,
        groups: Sequence[NeuronGroup],
        sources: Sequence[Sequence[Source]],
        found: Sequence[Tensor],
        rows: int,
    ) -> None:
        """Which neuron, side and source every row belongs to, and what sums it enters."""
        slots = torch.zeros(rows, dtype=torch.long)
        source_of, neuron, side_of = (torch.zeros(rows, dtype=torch.long) for _ in range(3))
        feature, energy = torch.zeros(rows), torch.zeros(rows)
        for place in self.layout:
            for turned, side in place.sides.items():
                norms = place.unit_norms if turned else place.row_norms
                slots[side.rows] = torch.arange(norms.start, norms.stop)
        terms: list[Tensor] = []
        number = first = 0
        for group, some in zip(groups, sources, strict=True):
            mine = torch.arange(first, first + group.size)
            for side, name in enumerate(_SIDES):
                chosen = [number + i for i, source in enumerate(some) if source.side == name]
                own = torch.zeros(0, group.size, dtype=torch.long)
                terms.append(torch.stack([found[i] for i in chosen]) if chosen else own)
                for i in chosen:
                    at = found[i]
                    neuron[at], side_of[at], source_of[at] = mine, side, i
                    feature[at], energy[at] = 1 / len(chosen), 1 / some[i - number].length
            number, first = number + len(some), first + group.size
        self.sums = RowSums(terms, rows)
        split = self.sums.pick.split([t.shape[1] for t in terms])
        by_neuron = torch.cat([torch.stack(split[i : i + 2], 1) for i in range(0, len(split), 2)])
        widest = max((len(at) for at in found), default=0)
        members = torch.full((len(found), widest), rows)
        for i, at in enumerate(found):
            members[i, : len(at)] = at
        sizes = torch.tensor([len(at) * s.length for at, s in zip(found, self.parts_of, strict=True)]).float()
        self.sums.register_buffer("pick", by_neuron.flatten(), persistent=False)
        self._keep(
            slots=slots,
            members=members.flatten(),
            inverse_sizes=1 / sizes,
            source=source_of,
            neuron=neuron,
            side=side_of,
            neuron_side=2 * neuron + side_of,
            feature_weight=feature,
            energy_weight=energy,
            pick_by_neuron=torch.cat([by_neuron, torch.full((1, 2), rows)]),
        )

    def _slots(self, gap: int) -> None:
        """Rows of the matrix: group after group, a gap behind each."""
        slots, at = [], 0
        for size in self.sizes:
            slots.append(torch.arange(at, at + size))
            at += size + gap
            at += -at % _ALIGNED
        row_of = torch.cat(slots)
        ranked = torch.full((at,), self.neurons).index_copy_(0, row_of, torch.arange(self.neurons))
        lengths = torch.tensor(self.sizes)
        group = torch.arange(len(lengths)).repeat_interleave(lengths) << 32
        self.height = at
        self._keep(row_of=row_of, ranked=ranked, group=group)
