"""Who takes part: names, ways, objects and functions."""

from __future__ import annotations

import re

import pytest
import torch_pruning as tp

from snnprune.errors import ConfigError
from snnprune.rivals import DEFAULT, METHODS
from snnprune.rivals.entrants import entrants


def mine(model, groups):
    return {}


def names(methods, ways="our-surgery"):
    return [e.name for e in entrants(methods, ways)]


def test_the_ways_of_a_criterion():
    assert names(["ours", "free", "norm", "lamp"]) == ["ours", "free scales", "norm", "lamp"]
    both = ["ours", "lamp", "lamp, as it is, local", "lamp, as it is, global"]
    assert names(["ours", "lamp"], "both") == both
    assert names(["ours", "lamp"], "as-they-are") == [both[0], *both[2:]]


@pytest.mark.parametrize("ways", ["our-surgery", "as-they-are", "both"])
def test_one_scope_of_their_pruner(ways):
    assert names(["ours", "lamp:global", "growing:local"], ways) == [
        "ours", "lamp, as it is, global", "growing, as it is, local",
    ]  # fmt: skip
    assert names(["lamp:global", "lamp:local"], ways) == names(["lamp"], "as-they-are")[::-1]
    for wrong in ("ours:local", "lamp:all", "dense:global", "lmap:local", ":local"):
        with pytest.raises(ConfigError, match="behind it local or global"):
            entrants([wrong], ways)
    with pytest.raises(ConfigError, match="takes part twice"):
        entrants(["lamp", "lamp:local"], "as-they-are")


def test_only_criteria_that_are_not_ours_are_rivals():
    found = entrants(["all"], "both")
    assert {e.name for e in found if not e.rival} == {"ours", "free scales", "norm", "dense, trained on"}
    assert len(found) == 3 + 3 * 8 + 5 * 2 + 1
    assert len(entrants(["all"], "our-surgery")) == 3 + 8 + 1
    assert set(DEFAULT) <= set(METHODS)


def test_objects_and_functions():
    found = entrants([tp.importance.LAMPImportance(p=1), mine], "both")
    assert [e.name for e in found] == [
        "LAMPImportance", "LAMPImportance, as it is, local", "LAMPImportance, as it is, global", "mine",
    ]  # fmt: skip
    assert "p=1" in found[0].words
    assert "test_entrants.mine " in found[-1].words
    assert isinstance(found[1].importance()(), tp.importance.LAMPImportance)
    assert isinstance(entrants(["l1"], "as-they-are")[0].importance()(), tp.importance.GroupMagnitudeImportance)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["lmap"], "Did you mean lamp?"),
        (["xyzzy"], "use all, or some of ours, free"),
        (["l2", "l2"], "l2 takes part twice"),
        (["all", "l2"], "l2 takes part twice; give each method once ('all' holds every one)."),
        (["l2-iterative"], "need --as-they-are or --both"),
        (["lamp", "bn-sparse"], "bn-sparse cannot take part"),
        ([], "nobody takes part"),
        ([3], "Give a name, an importance of torch-pruning, or a function"),
        ([tp.importance.LAMPImportance], "Make an instance of it"),
    ],
)
def test_what_makes_no_sense_is_refused(methods, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        entrants(methods, "our-surgery")
