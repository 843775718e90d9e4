"""The selection that meets a budget, on the device of the scores, without waiting for it.

**Search.** The cost of many sets of kept neurons at once is a table: for every entry of the terms (see `terms`) its
level (see `ranking`) says from which set on it stays, so one scatter and one running sum give every row's count
in every set, and a product of the rows the costs. Where a model has many neurons, a first table looks at every
`lead`-th level and a second one at those between.

**Fill.** The threshold keeps all that fits above it. Where one more block is a large part of the model, that leaves
much of the budget; then blocks below the threshold fill it. The second table has, besides the threshold's own
order, rows for that: with the dearest groups left out, so that the rest of the order may go on, and with smaller
blocks. The best row is taken: the threshold's, where it ends within half the slack; else the first that does; else, and
only where whole blocks end more than the slack below the target, one with smaller blocks.

All sums are of whole numbers, so the same scores give the same neurons on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .ranking import Members, Ranking, Row
from .terms import Terms

SLACK = 0.01
_ONE_TABLE = 1 << 18  # numbers in a table that looks at every level
_FILL_TABLE = 1 << 18
_HUGE = 1 << 61  # more than any cost


@dataclass(frozen=True, slots=True)
class _Table:
    """Costs of sets that grow: an entry with number i stays from the i-th set on."""

    start: Tensor  # (orders, rows x sets): what rows have in the first set
    place: Tensor  # (entries,) of every entry's row
    rows: int
    sets: int

    @staticmethod
    def of(terms: Terms, orders: int, sets: int, shift: int, device: torch.device) -> _Table:
        """The table for entries whose numbers begin at -shift."""
        rows = len(terms.fixed)
        start = np.zeros((orders, rows, sets), dtype=np.int64)
        start[:, :, 0] = terms.fixed
        if orders > 1:
            start[0, terms.pairs - 1, 1:] = (
                1  # of sets that cost the same, the threshold's order takes the largest
            )
        place = terms.rows * sets + shift
        return _Table(
            torch.from_numpy(start.reshape(orders, -1)).to(device), torch.from_numpy(place).to(device), rows, sets
        )

    def costs(self, numbers: Tensor, weights: Tensor) -> Tensor:
        """(orders, sets) costs, for (orders, entries) numbers of the set from which an entry stays."""
        counts = torch.scatter_add(self.start, 1, numbers + self.place, weights.expand(len(numbers), -1))
        left, right = counts.view(-1, 2, self.rows // 2, self.sets).cumsum(-1).unbind(1)
        return (left * right).sum(1)


class Selector:
    """Chooses the neurons with the highest scores whose cost fits into a budget.

    Calling it launches a fixed sequence of operations, whatever the scores, and reads nothing back; it may be
    captured in a graph.

    Args:
        terms: the cost of the model.
        groups: what floors ask of its groups, in the order of their neurons.
        steps: neurons in a block of every group, for the multiples asked for; then for smaller ones, to be
            taken where whole blocks are too coarse. The last may be all 1.
        floor: least share that stays of every part of a group.
        device: where scores are.

    Attributes:
        neurons: of all groups.
    """

    def __init__(
        self,
        terms: Terms,
        groups: Sequence[Members],
        steps: Sequence[tuple[int, ...]],
        *,
        floor: float,
        device: torch.device,
    ) -> None:
        neurons = sum(g.size for g in groups)
        rows, limits = _orders(terms, groups, steps)
        lead = 1
        if len(terms.fixed) * neurons > _ONE_TABLE:
            lead = 1 << ((neurons.bit_length() + 1) // 2)
        self._ranking = Ranking(groups, rows, floor=floor, lead=lead, device=device)
        self.neurons, self._lead = neurons, lead
        elements = self._ranking.elements
        self._first = _Table.of(terms, 1, (elements - 1) // lead + 1, 0, device)
        window = max(lead, min(elements, max(64, _FILL_TABLE // (len(rows) * len(terms.fixed)))))
        self._window = window if len(rows) > 1 else lead
        self._second = _Table.of(terms, len(rows), self._window + 2, 1, device)
        gates = np.where(terms.gates < 0, 0, terms.gates + lead)  # element 0 always stays
        self._gates = torch.from_numpy(gates).to(device)
        self._weights = torch.from_numpy(terms.weights).to(device)
        spare = max(1e-6 * terms.unit, 1e-12 * terms.dense)  # what rounding may do to the share that is asked for
        self._whole = torch.tensor(float(terms.dense), dtype=torch.float64, device=device)
        below = np.array([0.0, *limits]) * terms.dense
        shift = np.concatenate([spare - below[:1], [float(_HUGE)], spare - below[2:]])
        self._shift = torch.from_numpy(shift).to(device)

    def __call__(self, scores: Tensor, share: float | Tensor) -> tuple[Tensor, Tensor]:
        """The neurons that stay.

        Args:
            scores: (neurons,) of all groups one after another; higher is better.
            share: kept share of the dense cost, in (0, 1]; a number, or a 0-dim tensor (float64, for a share is
                met to the last neuron) on the device.

        Returns:
            (neurons,) booleans, and a 0-dim boolean: False where even the floors cost more than the share, or where
            a score is not finite; the first are then of no use.
        """
        ranked = self._ranking(scores)
        levels = ranked.levels
        bounds = (self._shift + self._whole * share).long()
        coarse = levels[:1] if self._lead == 1 else levels[:1] >> (self._lead.bit_length() - 1)
        costs = self._first.costs(self._numbers(coarse), self._weights)
        found = torch.searchsorted(costs[0], bounds[:1], right=True)  # (1,) sets of the first table that fit
        fits = ranked.spread < found[0] * torch.inf  # 0 x inf is no number, and nothing is below that
        if self._lead == 1 and len(levels) == 1:
            stays = levels[0] < found
        else:
            stays = self._between(levels, found, bounds)
        return stays[self._lead : self._lead + self.neurons], fits

    def floors(self, scores: Tensor) -> Tensor:
        """(neurons,) booleans: who stays whatever the budget."""
        return self._ranking(scores).levels[0, self._lead : self._lead + self.neurons] == 0

    def _between(self, levels: Tensor, found: Tensor, bounds: Tensor) -> Tensor:
        """(elements,) who stays: sets between two of the first table, and those that fill the budget."""
        beyond = torch.sub(levels, found, alpha=self._lead)  # negative: stays already
        if len(levels) > 1:
            beyond = beyond | (beyond[:1] >> 63)  # what the threshold's order keeps, all keep
        beyond = beyond.clamp(-1, self._window)
        costs = self._second.costs(self._numbers(beyond), self._weights)[:, :-1]
        if len(levels) == 1:
            return beyond[0] < torch.searchsorted(costs[0, 1:], bounds[:1], right=True)
        worth = torch.where(costs > bounds[0], -1, torch.minimum(costs, bounds[1:, None]))
        best = worth.argmax()  # the first of the best ones
        sets = self._window + 1
        return torch.index_select(beyond, 0, best // sets)[0] < best % sets

    def _numbers(self, levels: Tensor) -> Tensor:
        """(orders, entries): an entry stays as long as the last of its neurons."""
        if len(self._gates) == 1:
            return levels[:, self._gates[0]]
        return levels[:, self._gates].amax(1)


def _orders(
    terms: Terms, groups: Sequence[Members], steps: Sequence[tuple[int, ...]]
) -> tuple[list[Row], list[float]]:
    """The orders to look at, and how far below the target, as a share of the dense cost, each need not go on.

    Orders after the first are only for models of which a block is more than half the slack, those with smaller
    blocks for models of which a block is more than the slack: else the threshold ends close enough by itself.
    """
    neurons = sum(g.size for g in groups)
    most = terms.most(neurons) / max(1, terms.dense)
    ends = np.cumsum([g.size for g in groups])
    dear = np.array([most[end - g.size : end].max(initial=0.0) for g, end in zip(groups, ends, strict=True)])
    loose = np.array([g.least < g.size for g in groups], dtype=bool)
    everyone = (True,) * len(groups)
    rows, limits = [Row(steps[0], everyone)], [0.0]
    for number, step in enumerate(steps):
        block = dear * np.array(step) * loose
        largest = float(block.max(initial=0.0))
        if number == 0 and largest <= 0.5 * SLACK and not any(g.reads for g in groups):
            break
        if number > 0 and float((dear * np.array(steps[0]) * loose).max(initial=0.0)) <= SLACK:
            break
        rows.append(Row(step, everyone))
        limits.append(0.5 * SLACK if number == 0 else SLACK)
        while largest > 0.5 * SLACK:
            largest = max(0.5 * largest, 0.5 * SLACK)
            opened = tuple(bool(b) for b in block <= largest)
            if opened != rows[-1].open and any(o and m for o, m in zip(opened, loose, strict=True)):
                rows.append(Row(step, opened))
                limits.append(limits[-1])
    return rows, limits
