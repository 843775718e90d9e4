"""The cost as a sum over pairs of counts, in whole numbers that a device adds up in any order alike.

A layer costs `coefficient x inputs that stay x outputs that stay`. Written out for a model, that is a sum over
pairs of rows, `left x right`. A row counts columns: those that nothing removes, and for every **entry** a weight
where all neurons of the entry stay. Columns that the same neurons gate are one entry, so that a layer behind a
flattened feature map has an entry per channel, not one per column.

A time is no product. There a pair of counts is looked up in a table, which is made in `lookup`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .costs import Columns, Counted, LayerCost

_BITS = 60  # of the whole cost as a whole number: sums of three of them still fit into 64 bits


@dataclass(frozen=True, slots=True)
class Terms:
    """Tables of `cost = sum over pairs of left row x right row`, for one metric; or of pairs that are looked up.

    Attributes:
        gates: (most neurons of an entry, entries) flat neurons that gate the entry; -1 where it has fewer.
        rows: (entries,) row of every entry: pair i has the rows i (left) and `pairs + i` (right).
        weights: (entries,) what the entry adds to its row; coefficients are part of the left rows.
        fixed: (2 x pairs,) what every row has whatever goes.
        unit: whole numbers per multiply-add, parameter or millisecond, a power of two.
        dense: cost of the whole model in these whole numbers.
        lookup: what pairs cost that are no products; None where all are.
    """

    gates: NDArray[np.int64]
    rows: NDArray[np.int64]
    weights: NDArray[np.int64]
    fixed: NDArray[np.int64]
    unit: float
    dense: int
    lookup: Lookup | None = None

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.fixed) // 2

    def most(self, blocks: NDArray[np.int64]) -> NDArray[np.float64]:
        """(neurons,) what removing a block can save at most.

        A product falls most while all others stay. A time may fall by a whole stair at any width, wherever the
        other side of its table stands.

        Args:
            blocks: (neurons,) of every neuron, how many like it go together.
        """
        if self.lookup is not None:
            return self._looked_up(self.lookup, blocks)
        total = self.fixed.astype(np.float64)
        np.add.at(total, self.rows, self.weights)
        other = np.concatenate([total[self.pairs :], total[: self.pairs]])
        worth = self.weights * other[self.rows]
        found = np.zeros(len(blocks) + 1)  # the last one is for -1
        for gates in self.gates:
            np.add.at(found, gates, worth)
        return found[:-1] * blocks

    def _looked_up(self, lookup: Lookup, blocks: NDArray[np.int64]) -> NDArray[np.float64]:
        reach = np.zeros(len(self.fixed), dtype=np.int64)
        np.add.at(reach, self.rows, self.weights)
        places = [lookup.maps[f : f + r + 1] for f, r in zip(self.fixed, reach, strict=True)]
        gates = np.where(self.gates < 0, len(blocks), self.gates)
        pairs, at = np.unique((gates * len(reach) + self.rows).ravel(), return_inverse=True)
        neurons, rows = np.divmod(pairs, len(reach))
        weights = np.bincount(at, np.tile(self.weights, len(gates)), minlength=len(pairs)).astype(np.int64)
        lost = weights * np.append(blocks, 0)[neurons]
        kinds, kind = np.unique(rows * (1 + int(lost.max(initial=0))) + lost, return_inverse=True)
        falls = np.zeros(len(kinds))
        for i, key in enumerate(kinds):
            row, count = divmod(int(key), 1 + int(lost.max(initial=0)))
            falls[i] = lookup.fall(places[row], places[(row + self.pairs) % len(reach)], count)
        saved = np.bincount(neurons, falls[kind], minlength=len(blocks) + 1).astype(np.float64)
        return saved[: len(blocks)]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What pairs of counts cost, in whole numbers: `amounts[maps[left count] + maps[right count]]`.

    Every row counts from its own place in `maps` on, which its `fixed` begins with.

    Attributes:
        maps: (places,) of the left rows, where a row of a table begins in `amounts`; of the right ones, places
            behind that. Both never fall as a row counts up.
        amounts: (numbers,) all tables one after another.
    """

    maps: NDArray[np.int64]
    amounts: NDArray[np.int64]

    def fall(self, own: NDArray[np.int64], other: NDArray[np.int64], count: int) -> float:
        """The most that goes when so many columns go, of a row with these places beside one with the others."""
        first = np.flatnonzero(np.diff(own, prepend=-1))  # just above a stair most goes
        above, below = own[first], own[np.maximum(first - count, 0)]
        right = np.unique(other)
        return float((self.amounts[above[:, None] + right] - self.amounts[below[:, None] + right]).max())


@dataclass(frozen=True, slots=True)
class Side:
    """The columns of one side of a layer, counted by the neurons that gate them."""

    gates: NDArray[np.int64]  # (entries, most neurons), sorted rows, -1 where there are fewer
    counts: NDArray[np.float64]  # (entries,)
    fixed: float  # columns that nothing removes

    @property
    def key(self) -> tuple[bytes, bytes, float]:
        """What equal sides have in common."""
        return self.gates.tobytes(), self.counts.tobytes(), self.fixed


def terms_of(layers: Sequence[LayerCost], metric: Counted, first: Mapping[str, int], dense: float) -> Terms:
    """The cost of these layers, and what is left of the model's, as products of counts.

    Args:
        layers: the layers' coefficients.
        metric: `macs` or `params`.
        first: group id -> place of its first neuron among those of all groups.
        dense: cost of the whole model; what the layers do not explain can not be removed.
    """
    sides: dict[tuple[bytes, bytes, float], Side] = {}
    products: dict[tuple[tuple[bytes, bytes, float], ...], float] = {}
    alone: list[tuple[Side, float]] = []
    spent = 0.0  # what the terms come to while everything stays
    for layer in layers:
        out, times_out = side_of(layer.outputs, first)
        pair = layer.macs if metric == "macs" else layer.params
        single = 0.0 if metric == "macs" else layer.params_out
        if layer.inputs is None:
            single += pair
        elif pair:
            into, times_in = side_of(layer.inputs, first)
            factor = pair * times_in * times_out
            if not len(into.counts) or not len(out.counts):  # one of them is a number that stays as it is
                moves, stays = (out, into) if not len(into.counts) else (into, out)
                alone.append((moves, factor * stays.fixed))
            else:
                key = tuple(sorted((into.key, out.key)))
                sides |= {into.key: into, out.key: out}
                products[key] = products.get(key, 0.0) + factor
            spent += factor * _whole(into) * _whole(out)
        if single:
            alone.append((out, single * times_out))
            spent += single * times_out * _whole(out)
    return _tables(sides, products, alone, dense - spent, dense)


def _tables(
    sides: Mapping[tuple[bytes, bytes, float], Side],
    products: Mapping[tuple[tuple[bytes, bytes, float], ...], float],
    alone: Sequence[tuple[Side, float]],
    rest: float,
    dense: float,
) -> Terms:
    """The tables; the last pair of rows has everything that is no product, times one."""
    unit = unit_of(max(1.0, dense))
    pairs = len(products) + 1
    fixed = np.zeros(2 * pairs, dtype=np.int64)
    gates: list[NDArray[np.int64]] = []
    rows: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.int64]] = []

    def put(row: int, side_gates: NDArray[np.int64], counts: NDArray[np.float64], factor: int) -> None:
        gates.append(side_gates)
        rows.append(np.full(len(counts), row, dtype=np.int64))
        weights.append(np.rint(counts).astype(np.int64) * factor)

    for i, ((a, b), factor) in enumerate(products.items()):
        for row, side, times in ((i, sides[a], round(factor * unit)), (pairs + i, sides[b], 1)):
            put(row, side.gates, side.counts, times)
            fixed[row] = round(side.fixed) * times
    constant = rest + sum(factor * side.fixed for side, factor in alone)
    if alone:
        merged, place = np.unique(joined([s.gates for s, _ in alone]).T, axis=0, return_inverse=True)
        amounts = np.concatenate([s.counts * factor for s, factor in alone])
        sums = np.bincount(place.ravel(), amounts, minlength=len(merged)).astype(np.float64)
        put(pairs - 1, merged, sums * unit, 1)
    fixed[pairs - 1], fixed[-1] = round(constant * unit), 1
    every, row, weight = joined(gates), flat(rows), flat(weights)
    total = fixed.astype(object)  # of Python's whole numbers, which have no end
    np.add.at(total, row, weight.astype(object))
    return Terms(every, row, weight, fixed, unit, int((total[:pairs] * total[pairs:]).sum()))


def joined(gates: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """(most neurons of an entry, entries): all entries, with no line that only says -1."""
    depth = max((g.shape[1] for g in gates), default=1)
    wide = [np.pad(g, ((0, 0), (depth - g.shape[1], 0)), constant_values=-1) for g in gates]
    found = np.concatenate([*wide, np.zeros((0, depth), dtype=np.int64)]).T  # sorted, so that -1 comes first
    deep = int((found >= 0).any(axis=1).sum())
    return np.ascontiguousarray(found[-max(1, deep) :])


def unit_of(dense: float) -> float:
    """Whole numbers per unit of a cost, a power of two."""
    return 2.0 ** (_BITS - math.ceil(math.log2(dense)))


def flat(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """All whole numbers one after another."""
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _whole(side: Side) -> float:
    return side.fixed + float(side.counts.sum())


def side_of(columns: Columns, first: Mapping[str, int]) -> tuple[Side, float]:
    """The columns as entries, and the factor by which all counts were divided, so that like sides are the same."""
    gates = columns.gates(first)
    gated = gates[gates[:, -1] >= 0]
    if not len(gated):
        return Side(gated, np.zeros(0), 1.0), float(len(gates))
    entries, counts = np.unique(gated, axis=0 if gated.shape[1] > 1 else None, return_counts=True)
    entries = entries.reshape(len(counts), -1)
    fixed = len(gates) - len(gated)
    common = math.gcd(fixed, *map(int, np.unique(counts)))
    return Side(entries, counts / common, fixed / common), float(common)
