"""Intervals against the examples in Newcombe's two papers of 1998 (Statistics in Medicine 17)."""

from __future__ import annotations

import pytest

from snnprune.intervals import fall_interval, share_interval


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_share_as_published(hits, count, low, high):
    """Pages 857 to 872, table I, method 3."""
    assert share_interval(hits / count, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("before", "after", "count", "low", "high"),
    [(9, 3, 10, 0.1705, 0.8090), (6, 2, 7, 0.0582, 0.8062), (0, 0, 10, -0.2775, 0.2775), (10, 0, 10, 0.6075, 1.0)],
)
def test_fall_as_published(before, after, count, low, high):
    """Pages 873 to 890, table II, method 10; those of its examples in which both counts are of equally many."""
    assert fall_interval(before / count, after / count, count) == pytest.approx((low, high), abs=5e-5)


def test_all_right():
    low, high = share_interval(1.0, 50)
    assert high == 1.0
    assert 0.9 < low < 1.0
