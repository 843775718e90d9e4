"""Which numbers of a graph follow which columns."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from snnprune.budget.costs import Columns
from snnprune.timing.sides import Rule, Side, ambiguous, divisor, random_cuts, rules_of, sides_of, way_of, ways_of

SHARES = ((0.55, 1.0), (0.3, 0.8), (0.15, 0.55))


def columns(*parts):
    width = sum(size for _, size in parts)
    made, at = [], 0
    for name, size in parts:
        made.append((name, np.arange(at, at + size), np.arange(size)))
        at += size
    return Columns(width, tuple(made))


def layer(inputs, outputs):
    return SimpleNamespace(inputs=inputs, outputs=outputs)


def test_ways():
    assert way_of([12, 6, 9]) == (4, 2, 3) == way_of([4, 2, 3])
    assert way_of([5, 5, 5]) is None
    assert way_of([0, 0, 0]) is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [[2] * 6, [3] * 12, [4] * 30, [8] * 40, [16, 64, 64, 512] * 20])
def test_no_two_groups_shrink_alike(sizes, seed):
    named = {f"g{i}": size for i, size in enumerate(sizes)}
    cuts = random_cuts(named, SHARES, seed=seed)
    ways = Counter(way_of([int(cut[name].sum()) for cut in cuts]) for name in named)
    assert all(count == 1 for way, count in ways.items() if way is not None), ways
    assert all(cut[name].any() for cut in cuts for name in named)
    if min(sizes) > 2:
        assert None not in ways


def test_a_group_without_a_way_of_its_own_stays_whole():
    cuts = random_cuts({f"g{i}": 2 for i in range(40)}, SHARES)
    ways = [way_of([int(cut[f"g{i}"].sum()) for cut in cuts]) for i in range(40)]
    assert len({way for way in ways if way is not None}) == 6 == sum(way is not None for way in ways)
    whole = next(i for i, way in enumerate(ways) if way is None)
    assert all(cut[f"g{whole}"].all() for cut in cuts)


def test_columns_that_shrink_alike_by_chance_are_ambiguous():
    masks = [{"a": np.arange(8) < n, "b": np.arange(16) < 2 * n} for n in (7, 5, 2)]
    one, other = columns(("a", 8)), columns(("b", 16))
    assert ambiguous([layer(one, other)], masks) == {(7, 5, 2)}
    assert ambiguous([layer(one, None), layer(None, one)], masks) == set()
    assert ambiguous([layer(one, None)], []) == set()


def test_heads_and_their_channels_are_one_way_and_the_fewest_count():
    every = np.arange(24)
    heads, channels = columns(("h", 4)), Columns(24, (("h", every, every // 6),))
    masks = [{"h": np.arange(4) < n} for n in (3, 2, 1)]
    assert ambiguous([layer(channels, heads)], masks) == set()
    found = sides_of([layer(channels, heads)], masks)
    assert found == {(3, 2, 1): Side(heads, (3, 2, 1))}
    assert found[3, 2, 1].full == 4


def test_rules():
    a, b = Side(columns(("a", 12)), (12, 6, 9)), Side(columns(("b", 10)), (10, 4, 3))
    values = [[7, 24, 4, 5, 10], [7, 12, 2, 2, 4], [7, 18, 3, 1.5, 3]]
    rules = rules_of([[int(2 * v) for v in row] for row in values], [a, b])
    assert rules == [
        Rule(1, 0, Fraction(4)),
        Rule(2, 0, Fraction(2, 3)),
        Rule(3, 1, Fraction(1)),
        Rule(4, 1, Fraction(2)),
    ]
    assert divisor(rules, 0) == 3
    assert divisor(rules, 1) == 1
    assert rules_of([[1], [2], [4]], [a, b]) is None, "it follows neither"
    assert rules_of([[3], [3], [3]], [a]) == []
    assert rules_of([[3], [2], [1]], [Side(columns(("c", 3)), (0, 2, 1))]) is None


def test_ways_of_tensors_that_are_named_otherwise_in_another_cut():
    known = [{"x": (1, [2, 8]), "y": (1, [3])}, {"x": (1, [2, 4]), "z": (1, [3])}]
    assert ways_of(known) == {"x": frozenset({(2, 1)})}
    assert ways_of([{"x": (1, [2, 8])}, {"x": (1, [16])}]) == {}
