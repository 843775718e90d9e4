"""Times as terms: pairs of counts that are looked up, in whole numbers.

Parts whose counts and maps are the same are one pair, whose tables are added up; so are all parts that depend on
one count alone. Tables hold only what counts of this model can reach, and equal ones are stored once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .costs import Columns
from .terms import Lookup, Side, Terms, flat, joined, side_of, unit_of
from .times import TimedPart

_Ints = NDArray[np.int64]


class _Store:
    """Arrays one after another, equal ones once."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, bytes], int] = {}
        self._arrays: list[_Ints] = []
        self._end = 0

    def put(self, array: _Ints) -> int:
        """Where the array begins."""
        key = array.size, array.tobytes()
        if key not in self._places:
            self._places[key], self._end = self._end, self._end + array.size
            self._arrays.append(array.ravel())
        return self._places[key]

    def all(self) -> _Ints:
        """All of them."""
        return flat(self._arrays)


def timed_terms(parts: Sequence[TimedPart], first: Mapping[str, int]) -> Terms:
    """The time of these parts as terms that are looked up.

    Args:
        parts: the parts; together they take some time.
        first: group id -> place of its first neuron among those of all groups.
    """
    unit = unit_of(math.fsum(part.dense for part in parts))
    known: dict[int, tuple[Side | None, _Ints]] = {}
    sides: dict[Hashable, Side] = {}
    tables: dict[Hashable, tuple[list[Side | None], list[_Ints], _Ints]] = {}
    for part in parts:
        table = np.rint(part.table * unit).astype(np.int64)
        found: list[Side | None] = []
        maps: list[_Ints] = []
        for columns, places in ((part.inputs, part.rows), (part.outputs, part.columns)):
            side, counts = _reached(columns, first, known)
            if side is not None:
                side = sides.setdefault(side.key, side)
            found.append(side)
            maps.append(places[counts])
        table, maps = _small(table, maps)
        if found[1] is None or (found[0] is not None and found[0].key > found[1].key):
            found, maps, table = found[::-1], maps[::-1], table.T  # equal pairs have their sides in the same order
        if found[0] is None:  # on one side alone: whatever its map, a number for every count
            table, maps = table[:, maps[1]], [maps[0], np.arange(len(maps[1]))]
        key = *(None if side is None else side.key for side in found), *(m.tobytes() for m in maps)
        sums = tables[key][2] if key in tables else 0
        tables[key] = found, maps, table + sums
    return _terms(list(tables.values()), unit)


def _reached(
    columns: Columns | None, first: Mapping[str, int], known: dict[int, tuple[Side | None, _Ints]]
) -> tuple[Side | None, _Ints]:
    """A side and every count that it can have; None, and the only count, of one that stays as it is."""
    if columns is None:
        return None, np.zeros(1, dtype=np.int64)
    if id(columns) not in known:
        side, times = side_of(columns, first)
        counts = np.arange(round(side.fixed), round(side.fixed + side.counts.sum()) + 1) * round(times)
        known[id(columns)] = (side if len(side.counts) else None), counts
    return known[id(columns)]


def _small(table: _Ints, maps: Sequence[_Ints]) -> tuple[_Ints, list[_Ints]]:
    """Table and maps without rows and columns that no count has, or that cost what those before them cost."""
    found = []
    for axis, places in enumerate(maps):
        used, at = np.unique(places, return_inverse=True)
        table = np.take(table, used, axis)
        other = np.ones(len(used), dtype=bool)
        other[1:] = np.diff(table, axis=axis).any(axis=1 - axis)
        table = np.compress(other, table, axis)
        found.append((np.cumsum(other) - 1)[at])
    return table, found


def _terms(tables: Sequence[tuple[list[Side | None], list[_Ints], _Ints]], unit: float) -> Terms:
    pairs = max(1, len(tables))
    maps, amounts = _Store(), _Store()
    fixed = np.zeros(2 * pairs, dtype=np.int64)
    gates, rows, weights = [], [], []
    for i, (sides, places, table) in enumerate(tables):
        left = amounts.put(np.ascontiguousarray(table)) + table.shape[1] * places[0]
        for row, side, own in ((i, sides[0], left), (pairs + i, sides[1], places[1])):
            fixed[row] = maps.put(own)
            if side is not None:
                gates.append(side.gates)
                rows.append(np.full(len(side.counts), row, dtype=np.int64))
                weights.append(np.rint(side.counts).astype(np.int64))
    dense = sum(int(table[-1, -1]) for _, _, table in tables)
    lookup = Lookup(maps.all(), amounts.all())
    return Terms(joined(gates), flat(rows), flat(weights), fixed, unit, dense, lookup)
