"""Texts that stay in their line, and lists that end."""

from __future__ import annotations

import pytest

from snnprune.errors import ConfigError, RunError, SnnPruneError, StructureError
from snnprune.shown import brief_repr, cut, first, largest, last, spread, visible

FORGED = ["\n", "\r", "\x0b", "\x0c", "\x1b[2J", "\x85", "\u2028", "\u2029", "\u202e", "\ud800", "\x00"]


@pytest.mark.parametrize("sign", FORGED, ids=repr)
def test_no_sign_ends_the_line_or_steers(sign):
    shown = visible(f"a{sign}b é語")
    assert shown.isprintable()
    assert shown[:2] == "a?"
    assert shown.endswith("b é語")
    assert len(shown) == len(f"a{sign}b é語")


@pytest.mark.parametrize("kind", [SnnPruneError, ConfigError, RunError, StructureError])
def test_messages_are_one_line_whatever_they_quote(kind):
    for sign in FORGED:
        message = str(kind(f"layer a{sign}wrote b is malformed."))
        assert message.isprintable()
        assert len(message.splitlines()) == 1
        assert message.startswith("layer a?")


def test_long_texts_are_cut_in_their_middle():
    assert cut("abc") == "abc"
    assert cut("x" * 300) == "x" * 300
    assert cut("a" * 999 + "b" * 999, 101) == "a" * 48 + " ... " + "b" * 48
    assert cut("abcdefghij", 5) == "ab…ij"
    assert cut("abcdefghij", 7, front=1 / 3) == "ab…ghij"
    assert cut(12) == "12"


class Long(str):
    """A text that notices when it is gone through."""

    def __iter__(self):
        raise AssertionError("all of it was looked at")


def test_long_texts_are_cut_before_they_are_looked_through():
    assert cut(Long("\n" + "x" * 1000), 11) == "?xxxx…xxxxx"


class Odd:
    def __repr__(self):
        raise TypeError


def test_values_that_cannot_be_written_are_told():
    assert brief_repr("a\n") == "'a\\n'"
    assert len(brief_repr([1] * 1000)) == 100
    assert brief_repr(10**5000) == "a number of 16610 bits"
    assert brief_repr([10**5000]) == "a list"
    assert brief_repr(Odd()) == "a Odd"


def test_lists_say_what_they_leave_out():
    items = list(range(10))
    assert first(items, 10, "rows") == (items, "")
    assert first(items, 3, "rows") == (
        [0, 1, 2],
        "Of 10 rows the 3 first are shown; the run's report.json holds all.",
    )
    assert last(items, 3, "rows", "--json prints all") == (
        [7, 8, 9],
        "Of 10 rows the 3 last are shown; --json prints all.",
    )
    assert largest(items, 3, "rows", lambda x: x % 7)[0] == [4, 5, 6]
    assert largest([1] * 5, 3, "rows", lambda x: x) == (
        [1] * 3,
        "Of 5 rows the 3 largest are shown; the run's report.json holds all.",
    )
    assert first([], 3, "rows") == last([], 3, "rows") == spread([], 3, "rows") == ([], "")
    assert spread([5], 3, "rows") == ([5], "")


def test_curves_keep_their_ends_at_equal_distances():
    chosen, said = spread(range(1_000_001), 1001, "points")
    assert chosen == list(range(0, 1_000_001, 1000))
    assert said == "Of 1,000,001 points 1,001 are shown; the run's report.json holds all."
    for count in range(1, 30):
        chosen, _ = spread(range(count), 7, "points")
        assert len(chosen) == min(count, 7)
        assert len(set(chosen)) == len(chosen)
        assert (chosen[0], chosen[-1]) == (0, count - 1)
