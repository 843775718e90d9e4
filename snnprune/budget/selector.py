"""The selection that meets a budget, on the device of the scores, without waiting for it.

**Search.** The costs of many sets of kept neurons are one table: of every entry of the terms (see `terms`) the
level (see `ranking`) says from which set on it stays, so that one scatter and one running sum give every row's
count in every set, and products of the rows (of times: what is looked up for them) the costs. Where a model has
many neurons, a first table looks at every `lead`-th level, and a second one at those between.

**Fill.** The threshold keeps all above it that fits. Where one block more is a large part of the model, that
leaves much of the budget, and blocks below the threshold are to fill it. For that the second table has further
orders beside the threshold's own: some leave dear groups out, so that the others may go on, and some have smaller
blocks. The threshold's order is taken where it ends within half the slack of the target; else the first that does
so, or the one that comes closest; one with smaller blocks only where all others end more than the slack below.

**Give back.** Where even that ends far below, what the threshold keeps is too much to leave room for one block
more. So where single neurons are a large part of the model, the orders of whole blocks are also tried from
thresholds that keep less, down to a quarter of the budget; of those that come nearer the one that gives back least
is taken, and filled as far as it goes, also in smaller blocks. Times are left out: the clock that looks at the
result mends them.

Groups of a set (see `uniform`) are one unit: they are left out together, and a block of each goes at once.

All sums of costs are of whole numbers, so the same scores give the same neurons on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .ranking import Members, Ranked, Ranking, Row
from .tables import Table
from .terms import Terms

SLACK = 0.01
_ONE_TABLE = 1 << 18  # numbers in a table that looks at every level
_FILL_TABLE = 1 << 18
_FEW = 4  # dear groups of which every set is left out in turn
_ORDERS = 1 << 15  # neurons times orders
_HUGE = 1 << 61  # more than any cost
_MISSED = 5 * SLACK  # below the target; from there on the threshold may give something back
_STARTS = 6  # thresholds that keep less, to be tried where a neuron is more than the slack
_DEEPEST = 0.25  # of the budget, from which orders are tried
_GIVE_BACK = 1 << 17  # neurons times orders times thresholds


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
        plan = _plan(terms, groups, steps)
        rows = plan.rows
        lead = 1
        if len(terms.fixed) * neurons > _ONE_TABLE:
            lead = 1 << ((neurons.bit_length() + 1) // 2)
        self._ranking = Ranking(groups, rows, floor=floor, lead=lead, device=device)
        self.neurons, self._lead, self._rounds = neurons, lead, plan.rounds
        elements, orders = self._ranking.elements, len(rows) + (len(plan.back) - 1) * plan.whole
        self._from_less = slice(1, 1 + plan.whole)
        begins = [0] * len(rows) + [at for at in range(1, len(plan.back)) for _ in range(plan.whole)]
        self._start_of = torch.tensor(begins, device=device)
        lookup = terms.lookup
        if lookup is not None:
            lookup = torch.from_numpy(lookup.maps).to(device), torch.from_numpy(lookup.amounts).to(device)
        self._first = Table.of(terms, 1, (elements - 1) // lead + 1, 0, device, lookup)
        window = max(lead, min(elements, max(64, _FILL_TABLE // (len(rows) * len(terms.fixed)))))
        self._window = window if len(rows) > 1 else lead
        self._equal = plan.equal
        self._second = Table.of(terms, orders, self._window + 2, 1, device, lookup)
        gates = np.where(terms.gates < 0, 0, terms.gates + lead)  # element 0 always stays
        self._gates = torch.from_numpy(gates).to(device)
        self._weights = torch.from_numpy(terms.weights).to(device)
        # what rounding may do to the share that is asked for: a millionth of a multiply-add, not of a millisecond
        spare = max(1e-6 * terms.unit if lookup is None else 0.0, 1e-12 * terms.dense)
        # The bounds: of the cost for every threshold; and for every round of every order the cost from which on it
        # needs no more. The threshold takes all it can, what follows in a second round as much as whole blocks.
        enough = spare - np.array(plan.below if len(rows) > 1 else [0.0, 0.5 * SLACK]) * terms.dense
        again = np.concatenate([enough[1:2], enough[1:]])
        # Thresholds that keep less are for targets that would be missed by far; a second round adds alone.
        late = [np.full(orders - len(rows), spare - below * terms.dense) for below in (_MISSED, SLACK)]
        later = np.concatenate([again, late[1]])
        own = [float(_HUGE)], enough[1:], late[0]
        shift = np.concatenate([[spare] * len(plan.back), *own, *[later] * (plan.rounds - 1)])
        self._shift, self._starts = torch.from_numpy(shift).to(device), len(plan.back)
        parts = np.concatenate([plan.back, np.ones(len(shift) - len(plan.back))]) * terms.dense
        self._parts = torch.from_numpy(parts).to(device)

    def __call__(self, scores: Tensor, share: float | Tensor) -> tuple[Tensor, Tensor]:
        """The neurons that stay.

        Args:
            scores: (neurons,) of all groups one after another; higher is better.
            share: kept share of the dense cost, in (0, 1]; a number, or a 0-dim tensor (float64, for a share is
                met to the last neuron) on the device.

        Returns:
            (neurons,) booleans, and a 0-dim boolean: False where even the floors cost more than the share, or
            where a score is not finite; the first are then of no use.
        """
        ranked = self._ranking(scores)
        levels = ranked.levels
        bounds = (self._shift + self._parts * share).long()
        coarse = levels[:1] if self._lead == 1 else levels[:1] >> (self._lead.bit_length() - 1)
        if self._ranking.capped:
            coarse = coarse.clamp(max=self._first.sets - 1)
        costs = self._first.costs(self._numbers(coarse), self._weights)
        limits = bounds[: self._starts]
        found = torch.searchsorted(costs[0], limits, right=True)  # (starts,) sets of the first table that fit
        if self._ranking.capped:  # of which the last one holds what never stays
            found = found.clamp(max=self._first.sets - 1)
        spread = ranked.order[-2] - ranked.order[self._lead]  # not finite where a score is not
        fits = spread < found[0] * torch.inf  # 0 x inf is no number, and nothing is below that
        if len(levels) == 1:
            stays = self._above(ranked, costs[0], found, bounds)
        else:
            stays = self._filled(levels, found, bounds)
        return stays[self._lead : self._lead + self.neurons], fits

    def floors(self, scores: Tensor) -> Tensor:
        """(neurons,) booleans: who stays whatever the budget."""
        return self._ranking(scores).levels[0, self._lead : self._lead + self.neurons] == 0

    def _above(self, ranked: Ranked, costs: Tensor, found: Tensor, bounds: Tensor) -> Tensor:
        """(elements,) who is above the threshold, where its own order is the only one.

        Equal scores go together, unless so many are equal that the target would be missed.
        """
        cut = found
        if self._lead > 1:
            beyond = torch.sub(ranked.levels, found, alpha=self._lead).clamp(-1, self._window)
            between = self._second.costs(self._numbers(beyond), self._weights)[0, 1:-1]
            cut = torch.add(torch.searchsorted(between, bounds[:1], right=True), found, alpha=self._lead)
        first = torch.searchsorted(ranked.order, ranked.order[cut.clamp(max=len(ranked.order) - 1)])
        many = cut - first > self._equal if self._lead > 1 else costs[first - 1] < bounds[2]
        return ranked.levels[0] < torch.where(many, cut, first)

    def _filled(self, levels: Tensor, found: Tensor, bounds: Tensor) -> Tensor:
        """(elements,) who stays by the best of several orders.

        They begin at the last set of the first table that fits: the threshold itself, or, where that looks at
        every `lead`-th level, at most so many levels before it.
        """
        beyond = torch.sub(levels, found[:1], alpha=self._lead)  # negative: stays already
        beyond = beyond | (beyond[:1] >> 63)  # what the first order keeps, all keep
        if len(found) > 1:
            less = found[1:, None].clamp(min=1)  # the floors stay from every threshold
            kept = torch.sub(levels[:1], less, alpha=self._lead) >> 63
            late = torch.sub(levels[self._from_less], less[:, :, None], alpha=self._lead) | kept[:, None]
            beyond = torch.cat([beyond, late.flatten(0, 1)])
        beyond = beyond.clamp(-1, self._window)
        stays, order = beyond[0], self._start_of[:1]
        for number, enough in enumerate(bounds[self._starts :].chunk(self._rounds)):
            if number:
                if len(found) > 1:  # from the threshold of the order that was taken, in blocks of all sizes
                    begin = found[self._start_of[order]]
                    again = torch.sub(levels, begin, alpha=self._lead).clamp(-1, self._window)
                    beyond = torch.cat([again, beyond[len(levels) :]])
                beyond = beyond.masked_fill(stays, -1)
            costs = self._second.costs(self._numbers(beyond), self._weights)[:, :-1]
            worth = torch.minimum(costs, enough[:, None]).masked_fill(costs > bounds[0], -1)
            best = worth.argmax()  # the first of the best ones
            sets = self._window + 1
            order, last = (best // sets).view(1), best % sets
            if (
                self._second.lookup is not None
            ):  # what is free stays: the last set of this order that costs the same
                own = torch.index_select(costs, 0, order)
                last = (own <= torch.take(costs, best)).sum() - 1
            stays = torch.index_select(beyond, 0, order)[0] < last
        return stays

    def _numbers(self, levels: Tensor) -> Tensor:
        """(orders, entries): an entry stays as long as the last of its neurons."""
        if len(self._gates) == 1:
            return levels[:, self._gates[0]]
        return levels[:, self._gates].amax(1)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a model's budget is to be met.

    Attributes:
        rows: the orders to look at.
        below: how far below the target each of them need not go on, as a share of the dense cost.
        rounds: how often to look at them.
        equal: neurons that cost no more than half the slack, however dear.
        back: what the thresholds keep from which the orders are looked at, as shares of the budget; the first all.
        whole: orders of whole blocks, which come after the threshold's own; they are looked at from all of these.
    """

    rows: list[Row]
    below: list[float]
    rounds: int
    equal: int
    back: list[float]
    whole: int


def _plan(terms: Terms, groups: Sequence[Members], steps: Sequence[tuple[int, ...]]) -> _Plan:
    """The orders that this model needs.

    Those after the first are for models of which a block is more than half the slack, those with smaller blocks
    for models of which a block is more than the slack: else the threshold ends close enough by itself. Where even
    a neuron of some group is more than the slack, what is left after a first round is filled by a second.
    """
    sizes = [g.size for g in groups]
    unit = _units(groups)

    def saved(step: Sequence[int]) -> NDArray[np.float64]:
        """(units,) share of the dense cost that goes with a block at most, of all groups of a set together."""
        found = terms.most(np.repeat(np.asarray(step, dtype=np.int64), sizes)) / max(1, terms.dense)
        parts = np.split(found, np.cumsum(sizes)[:-1]) if groups else []
        every = [p.max(initial=0.0) if g.loose else 0.0 for g, p in zip(groups, parts, strict=True)]
        return np.bincount(unit, every).astype(np.float64)

    neuron = saved([1] * len(groups))
    loose = np.bincount(unit, [g.loose for g in groups]) > 0
    rows, below = [Row(steps[0], (True,) * len(groups))], [0.0]
    blocks = [saved(step) for step in steps]
    largest = float(blocks[0].max(initial=0.0))
    if largest > 0.5 * SLACK:
        tried = len(steps) if largest > SLACK else 1
        most = max(3, _ORDERS // (tried * (1 + len(loose) + sum(g.size for g in groups))))
        for number, (step, block) in enumerate(zip(steps[:tried], blocks, strict=False)):
            opened = _open(block, loose, most)
            rows += [Row(step, tuple(o[i] for i in unit)) for o in opened]
            below += [0.5 * SLACK if number == 0 else SLACK] * len(opened)
    whole = below.count(0.5 * SLACK)
    rounds = 2 if len(rows) > 1 and neuron.max() > SLACK else 1
    back = [1.0]
    if rounds > 1 and terms.lookup is None:
        starts = min(_STARTS, max(4, _GIVE_BACK // (whole * (1 + sum(sizes)))))
        back += [1 - (1 - _DEEPEST) * at / starts for at in range(1, starts + 1)]
    return _Plan(rows, below, rounds, int(0.5 * SLACK / largest) if largest else sum(sizes), back, whole)


def _units(groups: Sequence[Members]) -> NDArray[np.int64]:
    """(groups,) numbers from 0 on, the same for groups that only go together."""
    keys = [(-1, i) if group.set is None else (group.set, 0) for i, group in enumerate(groups)]
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys], dtype=np.int64)


def _open(block: NDArray[np.float64], loose: NDArray[np.bool_], most: int) -> list[tuple[bool, ...]]:
    """Which groups or sets of them may get more neurons, in the orders to look at: all; then without dear ones.

    Args:
        block: (units,) share of the dense cost that a block costs at most.
        loose: (units,) whether it has neurons that may go.
        most: number of orders at most; at least 2.
    """
    dear = [int(i) for i in np.argsort(-block, kind="stable") if block[i] > 0.5 * SLACK]
    without: list[tuple[int, ...]]
    if len(dear) <= _FEW and 2 ** len(dear) <= most:
        without = [c for n in range(len(dear) + 1) for c in combinations(dear, n)]
    else:  # one of the dearest; or all whose blocks cost more than a half, a quarter, ... of what the dearest does
        halved = block[dear[0]] * 0.5 ** np.arange(1, 1 + math.ceil(math.log2(block[dear[0]] / (0.5 * SLACK))))
        cheap = [tuple(i for i in dear if block[i] > max(b, 0.5 * SLACK)) for b in halved][1 - most :]
        single = [(i,) for i in dear[: min(2 * _FEW, most - 1 - len(cheap))]]
        without = [(), *single, *cheap]
    found = [tuple(i not in gone for i in range(len(block))) for gone in without]
    return [opened for opened in dict.fromkeys(found) if (loose & np.array(opened, dtype=bool)).any()]
