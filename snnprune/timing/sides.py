"""Which numbers of a graph follow which columns of the network.

The network is cut a few times at random, so that no two groups shrink alike. A number that a cut has changed is
then a multiple of the one count of columns (or of heads) that has shrunk in the same proportions in every cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..budget.costs import Columns, LayerCost

Kept = Mapping[str, NDArray[np.bool_]]
Way = tuple[int, ...]  # counts in all cuts, in lowest terms: how something shrinks
_TRIES = 200
_OTHERS = 4  # cuts that are only counted, to see whether what shrinks alike always does


def way_of(counts: Sequence[int]) -> Way | None:
    """How counts shrink over the cuts; None of what does not."""
    common = math.gcd(*counts)
    if len(set(counts)) == 1 or common == 0:
        return None
    return tuple(count // common for count in counts)


@dataclass(frozen=True, slots=True)
class Side:
    """Columns of the network whose count numbers of the graph follow.

    Attributes:
        columns: the columns.
        counts: of them in every cut.
    """

    columns: Columns
    counts: tuple[int, ...]

    @property
    def full(self) -> int:
        """Columns of the whole network."""
        return self.columns.read


def sides_of(layers: Sequence[LayerCost], cuts: Sequence[Kept]) -> dict[Way, Side]:
    """Way -> the columns that shrink in it; of proportional ones, as heads and their channels, the fewest.

    Args:
        layers: of the cost model.
        cuts: kept neurons of every cut.
    """
    found: dict[Way, Side] = {}
    for layer in layers:
        for columns in (layer.inputs, layer.outputs):
            if columns is None or not columns.parts:
                continue
            counts = tuple(columns.count(kept) for kept in cuts)
            way = way_of(counts)
            if way is not None and (way not in found or counts < found[way].counts):
                found[way] = Side(columns, counts)
    return found


def ambiguous(layers: Sequence[LayerCost], cuts: Sequence[Kept], *, seed: int = 0) -> set[Way]:
    """Ways in which columns shrink in these cuts that would not shrink alike in others.

    Args:
        layers: of the cost model.
        cuts: kept neurons of every cut, of the same groups.
        seed: of the other cuts, which are drawn neuron by neuron.
    """
    rng = np.random.default_rng(seed)
    sizes = {name: len(mask) for name, mask in cuts[0].items()} if cuts else {}
    others = [{name: rng.random(size) < 0.6 for name, size in sizes.items()} for _ in range(_OTHERS)]
    seen: dict[Way, set[Way | None]] = {}
    for layer in layers:
        for columns in (layer.inputs, layer.outputs):
            if columns is None or not columns.parts:
                continue
            way = way_of([columns.count(kept) for kept in cuts])
            if way is not None:
                seen.setdefault(way, set()).add(way_of([columns.read, *(columns.count(kept) for kept in others)]))
    return {way for way, more in seen.items() if len(more) > 1}


def random_cuts(
    sizes: Mapping[str, int], shares: Sequence[tuple[float, float]], *, seed: int = 0
) -> list[dict[str, NDArray[np.bool_]]]:
    """Kept neurons of every group, of which no two shrink in the same way if their sizes allow.

    Args:
        sizes: group -> neurons.
        shares: of every cut, least and largest share of a group that stays.
        seed: of the draw.

    Returns:
        Of every cut, group -> (size,) boolean. Counts are multiples of 8 where a group is wide: what is timed of
        a cut is then like what will be made. A group for which no way is left stays whole in all of them, as its
        time would else be taken for that of another.
    """
    rng = np.random.default_rng(seed)
    taken: set[Way] = set()
    found: list[dict[str, NDArray[np.bool_]]] = [{} for _ in shares]
    anywhere = [(0.0, 1.0)] * len(shares)
    for name, size in sorted(sizes.items(), key=lambda at: (at[1], at[0])):  # the narrow have the least choice
        counts = [size] * len(shares)
        for attempt in range(2 * _TRIES):
            drawn = _draw(rng, size, shares if attempt < _TRIES else anywhere)
            way = way_of(drawn)
            if way is not None and way not in taken:
                taken.add(way)
                counts = drawn
                break
        for cut, count in zip(found, counts, strict=True):
            mask = np.zeros(size, dtype=bool)
            mask[rng.permutation(size)[:count]] = True
            cut[name] = mask
    return found


def _draw(rng: np.random.Generator, size: int, shares: Sequence[tuple[float, float]]) -> list[int]:
    step = 8 if size >= 64 else 1
    return [min(size, max(1, step * round(rng.uniform(*share) * size / step))) for share in shares]


@dataclass(frozen=True, slots=True)
class Rule:
    """A number of a graph as a multiple of a count."""

    place: int  # among the graph's numbers
    side: int  # among the piece's sides
    factor: Fraction


def rules_of(values: Sequence[Sequence[int]], sides: Sequence[Side]) -> list[Rule] | None:
    """By which rules the numbers of a graph vary; None where one of them follows none of the sides.

    Args:
        values: of every cut, all numbers of the graph.
        sides: that the graph knows.
    """
    table = np.array(values)
    found: list[Rule] = []
    for place in np.flatnonzero((table != table[0]).any(axis=0)):
        seen = [int(v) for v in table[:, place]]
        for number, side in enumerate(sides):
            if not side.counts[0]:
                continue
            factor = Fraction(seen[0], side.counts[0])
            if all(v == factor * c for v, c in zip(seen, side.counts, strict=True)):
                found.append(Rule(int(place), number, factor))
                break
        else:
            return None
    return found


def ways_of(known: Sequence[Mapping[str, tuple[int, list[int]]]]) -> dict[str, frozenset[Way]]:
    """Tensor -> the ways in which its dimensions shrink.

    Args:
        known: of every cut, tensor -> element type and dimensions.
    """
    found: dict[str, frozenset[Way]] = {}
    for name in known[0]:
        dims = [shape[name][1] for shape in known if name in shape]
        if len(dims) < len(known) or len({len(d) for d in dims}) > 1:
            continue  # named otherwise in another cut: it is compared with its piece, by its place
        ways = {way_of(counts) for counts in zip(*dims, strict=True)}
        found[name] = frozenset(way for way in ways if way is not None)
    return found


def divisor(rules: Sequence[Rule], side: int) -> int:
    """Counts of a side have to be multiples of this, or numbers of the graph would be fractions."""
    return math.lcm(1, *(rule.factor.denominator for rule in rules if rule.side == side))
