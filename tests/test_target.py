"""Targets as users write them."""

from __future__ import annotations

import pytest

import snnprune
from snnprune.budget import Budget, Latency, parse_drop, parse_latency, parse_target, read_target
from snnprune.errors import TargetError


def test_each_parser_takes_its_own_and_leaves_the_rest():
    assert parse_target(None) is parse_drop(None) is parse_latency(None) is None
    assert parse_target({"params": 1}) == Budget("params", 1.0)
    assert parse_drop({"drop": 0}) == 0.0
    assert parse_latency({"latency": 0.5}) == Latency(0.5, None)
    assert parse_target({"latency": 0.5}) == Budget("latency", 0.5)
    assert parse_drop({"latency": 0.5}) is parse_latency({"drop": 0.1}) is parse_drop({"macs": 0.5}) is None


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("macs=0.5", "is no mapping; write"),
        (0.5, "is no mapping"),
        ({}, "exactly one of macs, params, drop, latency"),
        ({"macs": 0.5, "drop": 0.1}, "exactly one"),
        ({"flops": 0.5}, "'flops' is unknown"),
        ({"macs": True}, "macs=True is no share"),
        ({"params": "half"}, "params=half is no share"),
        ({"macs": float("nan")}, "macs=nan is no share"),
        ({"drop": 1.0}, "no fraction of accuracy"),
        ({"latency": 0}, "no share of the dense time"),
    ],
)
def test_anything_else_is_told_at_once(target, said):
    with pytest.raises(TargetError, match=said):
        snnprune.PruneConfig(target=target)


def test_what_needs_a_whole_run_is_no_target_of_a_single_cut():
    with pytest.raises(TargetError, match="'drop' is unknown here; use macs, params or latency"):
        parse_target({"drop": 0.1})
