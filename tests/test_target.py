"""Targets as users write them."""

from __future__ import annotations

import pytest

import snnprune
from snnprune.budget import COUNTED, Budget, Latency, parse_drop, parse_latency, parse_target, read_target
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
        ({"drop": -0.5}, "no amount that a metric may lose"),
        ({"latency": 0}, "latency=0 is no share of the dense time"),
        ({"latency": 1.5}, "latency=1.5 is no share of the dense time"),
        ({"latency": "0.5"}, "latency=0.5 is no share of the dense time, nor a time; .* such as 3ms"),
        ({"latency": "0ms"}, "latency=0ms is no share"),
        ({"latency": "-3ms"}, "latency=-3ms is no share"),
        ({"latency": "3 m s"}, "latency=3 m s is no share"),
        ({"latency": "1e999s"}, "latency=1e999s is no share"),
        ({"latency": "1\x1b[2Jms"}, r"latency=1\?\[2Jms is no share"),
        ({"latency": "9" * 5000 + "ms"}, "latency=9+ ... 9+ms is no share"),
        ({"macs": "3ms"}, "macs=3ms is no share of the dense macs"),
        ({"drop": "3ms"}, "drop=3ms is no amount"),
    ],
)
def test_anything_else_is_told_at_once(target, said):
    with pytest.raises(TargetError, match=said):
        snnprune.PruneConfig(target=target)


def test_what_needs_a_whole_run_is_no_target_of_a_single_cut():
    with pytest.raises(TargetError, match="'drop' is unknown here; use macs, params or latency"):
        parse_target({"drop": 0.1})


@pytest.mark.parametrize(
    ("written", "ms", "value"),
    [
        ("3ms", 3.0, "3ms"),
        (" 2.5 ms ", 2.5, "2.5ms"),
        ("900us", 0.9, "0.9ms"),
        ("900µs", 0.9, "0.9ms"),
        ("1.5e-3s", 1.5, "1.5ms"),
        (".25ms", 0.25, "0.25ms"),
        ("1234567.5ms", 1234567.5, "1234567.5ms"),
    ],
)
def test_times_are_written_in_one_way(written, ms, value):
    found = parse_latency({"latency": written})
    assert found == Latency(None, pytest.approx(ms))
    assert read_target({"latency": written}) == {"latency": value}
    assert read_target({"latency": value}) == {"latency": value}
    assert str(found) == value
    assert snnprune.PruneConfig(target={"latency": written}).to_dict()["target"] == {"latency": value}


def test_a_time_is_a_share_once_the_dense_one_is_known():
    assert Latency(None, 3.0).of(12.0) == 0.25
    assert Latency(None, 30.0).of(12.0) == 1.0, "a model that is fast enough"
    assert Latency(0.5, None).of(12.0) == 0.5
    assert (Latency(0.5, None).value, str(Latency(0.25, None))) == (0.5, "0.25")
    assert read_target({"latency": 1}) == {"latency": 1.0}
    with pytest.raises(TargetError, match="latency=3ms is a time, and a budget is a share"):
        parse_target({"latency": "3ms"})
    with pytest.raises(TargetError, match="latency=2 is no share of the dense time"):
        parse_target({"latency": 2})


def test_where_times_are_not_known_counted_costs_alone_are_targets():
    assert parse_target({"macs": 0.5}, COUNTED) == Budget("macs", 0.5)
    with pytest.raises(TargetError, match="'latency' is unknown here; use macs or params"):
        parse_target({"latency": 0.5}, COUNTED)
