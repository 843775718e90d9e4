"""Widths at which pieces are timed."""

from __future__ import annotations

import pytest

from snnprune.timing.grid import beside, levels, middle, points


@pytest.mark.parametrize("full", [1, 2, 3, 7, 16, 33, 64, 100, 512, 3072])
@pytest.mark.parametrize("unit", [1, 3, 16])
def test_levels_are_in_range_in_order_and_whole(full, unit):
    full *= unit
    for count in (1, 2):
        for own in levels((full,) * count, (unit,) * count):
            assert own == sorted(set(own))
            assert own[-1] == full
            assert own[0] >= 1
            assert all(level % unit == 0 for level in own)


def test_wide_sides_are_timed_at_the_ends_of_stairs():
    (own,) = levels((512,), (1,))
    assert own == [64, 96, 192, 320, 416, 512]


def test_beside_starts_at_a_stair_and_fits():
    assert beside(512, 1) == [128, 129, 132, 136, 140, 144, 152, 160]
    assert beside(64, 1)[0] == 32
    assert beside(63, 1) == []
    assert beside(512, 2) == []


def test_points_are_the_grid_and_what_shows_stairs():
    assert points((), ()) == [()]
    own = levels((128, 64), (1, 1))
    every = points((128, 64), (1, 1))
    assert len(every) == len(set(every))
    assert {(a, b) for a in own[0] for b in own[1]} <= set(every)
    assert {(a, middle(own[1])) for a in beside(128, 1)} <= set(every)
    assert {(middle(own[0]), b) for b in beside(64, 1)} <= set(every)
    assert (128, 64) in every
