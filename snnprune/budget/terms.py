"""The cost as a sum of products of counts, in whole numbers that a device adds up in any order alike.

A layer costs `coefficient x inputs that stay x outputs that stay`. Written out for a model, that is a sum over
pairs of rows, `left x right`. A row counts columns: those that nothing removes, and for every **entry** a weight
where all neurons of the entry stay. Columns that the same neurons gate are one entry, so that a layer behind a
flattened feature map has an entry per channel, not one per column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .costs import Columns, LayerCost, Metric

_BITS = 60  # of the whole cost as a whole number: sums of three of them still fit into 64 bits


@dataclass(frozen=True, slots=True)
class Terms:
    """Tables of `cost = sum over pairs of left row x right row`, for one metric.

    Attributes:
        gates: (most neurons of an entry, entries) flat neurons that gate the entry; -1 where it has fewer.
        rows: (entries,) row of every entry: pair i has the rows i (left) and `pairs + i` (right).
        weights: (entries,) what the entry adds to its row; coefficients are part of the left rows.
        fixed: (2 x pairs,) what every row has whatever goes.
        unit: whole numbers per multiply-add or parameter, a power of two.
        dense: cost of the whole model in these whole numbers.
    """

    gates: NDArray[np.int64]
    rows: NDArray[np.int64]
    weights: NDArray[np.int64]
    fixed: NDArray[np.int64]
    unit: float
    dense: int

    @property
    def pairs(self) -> int:
        """Number of products."""
        return len(self.fixed) // 2

    def most(self, neurons: int) -> NDArray[np.float64]:
        """(neurons,) what removing one neuron can save at most: what it saves while all others stay."""
        total = self.fixed.astype(np.float64)
        np.add.at(total, self.rows, self.weights)
        other = np.concatenate([total[self.pairs :], total[: self.pairs]])
        worth = self.weights * other[self.rows]
        found = np.zeros(neurons + 1)  # the last one is for -1
        for gates in self.gates:
            np.add.at(found, gates, worth)
        return found[:-1]


@dataclass(frozen=True, slots=True)
class _Side:
    """The columns of one side of a layer, counted by the neurons that gate them."""

    gates: NDArray[np.int64]  # (entries, most neurons), sorted rows, -1 where there are fewer
    counts: NDArray[np.float64]  # (entries,)
    fixed: float  # columns that nothing removes

    @property
    def key(self) -> tuple[bytes, bytes, float]:
        return self.gates.tobytes(), self.counts.tobytes(), self.fixed


def terms_of(layers: Sequence[LayerCost], metric: Metric, first: Mapping[str, int], dense: float) -> Terms:
    """The cost of these layers, and what is left of the model's, as products of counts.

    Args:
        layers: the layers' coefficients.
        metric: `macs` or `params`.
        first: group id -> place of its first neuron among those of all groups.
        dense: cost of the whole model; what the layers do not explain can not be removed.
    """
    sides: dict[tuple[bytes, bytes, float], _Side] = {}
    products: dict[tuple[tuple[bytes, bytes, float], ...], float] = {}
    alone: list[tuple[_Side, float]] = []
    spent = 0.0  # what the terms come to while everything stays
    for layer in layers:
        out, times_out = _side(layer.outputs, first)
        pair = layer.macs if metric == "macs" else layer.params
        single = 0.0 if metric == "macs" else layer.params_out
        if layer.inputs is None:
            single += pair
        elif pair:
            into, times_in = _side(layer.inputs, first)
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
    sides: Mapping[tuple[bytes, bytes, float], _Side],
    products: Mapping[tuple[tuple[bytes, bytes, float], ...], float],
    alone: Sequence[tuple[_Side, float]],
    rest: float,
    dense: float,
) -> Terms:
    """The tables; the last pair of rows has everything that is no product, times one."""
    unit = 2.0 ** (_BITS - math.ceil(math.log2(max(1.0, dense))))
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
        merged, place = np.unique(_joined([s.gates for s, _ in alone]).T, axis=0, return_inverse=True)
        amounts = np.concatenate([s.counts * factor for s, factor in alone])
        sums = np.bincount(place.ravel(), amounts, minlength=len(merged)).astype(np.float64)
        put(pairs - 1, merged, sums * unit, 1)
    fixed[pairs - 1], fixed[-1] = round(constant * unit), 1
    every, row, weight = _joined(gates), np.concatenate([*rows, []]).astype(np.int64), _flat(weights)
    total = fixed.astype(object)  # of Python's whole numbers, which have no end
    np.add.at(total, row, weight.astype(object))
    return Terms(every, row, weight, fixed, unit, int((total[:pairs] * total[pairs:]).sum()))


def _joined(gates: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """(most neurons of an entry, entries): all entries, with no line that only says -1."""
    depth = max((g.shape[1] for g in gates), default=1)
    wide = [np.pad(g, ((0, 0), (depth - g.shape[1], 0)), constant_values=-1) for g in gates]
    found = np.concatenate([*wide, np.zeros((0, depth), dtype=np.int64)]).T  # sorted, so that -1 comes first
    deep = int((found >= 0).any(axis=1).sum())
    return np.ascontiguousarray(found[-max(1, deep) :])


def _flat(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _whole(side: _Side) -> float:
    return side.fixed + float(side.counts.sum())


def _side(columns: Columns, first: Mapping[str, int]) -> tuple[_Side, float]:
    """The columns as entries, and the factor by which all counts were divided, so that like sides are the same."""
    gates = columns.gates(first)
    gated = gates[gates[:, -1] >= 0]
    if not len(gated):
        return _Side(gated, np.zeros(0), 1.0), float(len(gates))
    entries, counts = np.unique(gated, axis=0 if gated.shape[1] > 1 else None, return_counts=True)
    entries = entries.reshape(len(counts), -1)
    fixed = len(gates) - len(gated)
    common = math.gcd(fixed, *map(int, np.unique(counts)))
    return _Side(entries, counts / common, fixed / common), float(common)
