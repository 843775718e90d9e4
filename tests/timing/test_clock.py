"""The clock, on machines that are made up: quiet, busy, bursting, drifting, in two moods."""

from __future__ import annotations

import math

import numpy as np
import pytest

from snnprune.errors import ConfigError
from snnprune.timing import clock
from snnprune.timing.clock import measure
from timing.machines import Machine, noisy


def test_a_quiet_machine_tells_exactly_and_soon():
    found = Machine().measure(dense=0.5, small=0.125)
    assert found.ratio("small") == pytest.approx(0.25, rel=1e-12)
    assert found.ratio("dense", "small") == pytest.approx(4.0, rel=1e-12)
    assert (found.first, found.ratio("dense"), found.ratio_spread("dense")) == ("dense", 1.0, 0.0)
    assert found["dense"].ms == pytest.approx(500)
    assert found.trusted
    assert found.require() is found
    assert found["dense"].calls == found["small"].calls == 48


def test_calls_take_turns():
    machine = Machine()
    machine.measure({"most": 3, "warm_up": 2}, a=0.2, b=0.3, c=0.1)
    assert machine.log == ["a", "b", "c"] * 5


def test_what_is_told_are_quantiles_of_all_timings():
    order = np.random.default_rng(0).permutation(100)
    found = Machine().measure(
        {"most": 100, "limit": 99.0, "spread": 0.001}, a=lambda _t, n: 0.01 * (1 + order[(n - 1) % 100])
    )
    told = found["a"].ms, found["a"].median_ms, found["a"].p90_ms
    assert told == pytest.approx(tuple(np.quantile(10.0 * np.arange(1, 101), [0.1, 0.5, 0.9])))
    assert found["a"].calls == 100


def test_warm_up_does_not_count():
    slow_start = lambda _t, n: 9.0 if n < 4 else 0.1  # noqa: E731
    found = Machine().measure({"warm_up": 4, "limit": 1000.0}, a=slow_start)
    assert found["a"].p90_ms == pytest.approx(100)
    cut = Machine().measure({"warm_up": 10, "limit": 10.0, "most": 3}, a=2.0)
    assert cut["a"].calls == 3


def test_warm_up_ends_after_a_tenth_of_the_limit():
    machine = Machine()
    machine.measure({"warm_up": 10, "limit": 20.0, "most": 1}, a=1.5)
    assert len(machine.log) == 2 + 1


def test_a_slow_moment_that_meets_all_leaves_the_ratio():
    """Twice as slow most of the time: the quick moments are the time, and the ratio always stands."""

    def mood(time):
        return 1.0 if 8 < time % 16 < 12 else 2.0

    options = {"least": 64.0, "limit": 100.0}
    found = Machine().measure(options, a=lambda t, _n: 0.02 * mood(t), b=lambda t, _n: 0.01 * mood(t))
    assert found.ratio("b") == pytest.approx(0.5, rel=0.01)
    assert found["a"].ms == pytest.approx(20)
    assert found["a"].median_ms == pytest.approx(40)
    early = Machine().measure({"most": 48}, a=lambda t, _n: 0.02 * mood(t), b=lambda t, _n: 0.01 * mood(t))
    assert early.ratio("b") == pytest.approx(0.5, rel=0.01)
    assert early["a"].ms == pytest.approx(40)


def test_bursts_on_one_file_do_not_move_it():
    draw = np.random.default_rng(3)
    found = Machine().measure(a=0.02, b=lambda _t, _n: 0.01 * (8.0 if draw.random() < 0.6 else 1.0))
    assert found.ratio("b") == pytest.approx(0.5)
    assert found.trusted
    assert found["b"].median_ms == pytest.approx(80)


def test_two_moods_of_one_file_are_refused():
    """The first half at one time, the second at another: the spread is the distance between them."""
    found = Machine().measure({"most": 96}, a=0.02, b=lambda _t, n: 0.01 if n <= 24 else 0.015)
    assert found.ratio("b") == pytest.approx(0.5)
    assert found.ratio_spread("b") == pytest.approx(0.5)
    assert found["b"].calls == 96
    assert "its ratio varies by 50.0%" in str(found.ratio_refused("b"))
    assert not found.trusted
    assert found.ratio_refused("a") is None


@pytest.mark.parametrize(("off", "refused"), [(0.04, False), (0.06, True)])
def test_a_ratio_that_varies_by_more_than_two_and_a_half_times_the_aim_is_refused(off, refused):
    found = Machine().measure({"most": 96}, a=0.02, b=lambda _t, n: 0.01 if n <= 24 else 0.01 * (1 + off))
    assert found.ratio_spread("b") == pytest.approx(off)
    assert (found.ratio_refused("b") is not None) == refused
    assert found.trusted != refused


def test_it_is_looked_at_now_and_then(monkeypatch):
    """Who looks after every call ends in a lucky moment."""
    looks, settled = [], clock._settled
    monkeypatch.setattr(clock, "_settled", lambda found: looks.append(found["a"].calls) or settled(found))
    Machine().measure({"most": 200, "limit": 1e4}, a=lambda _t, n: 0.01 * (1 + n))
    assert looks == [48, 60, 75, 94, 118, 148, 185]


def test_a_ratio_that_drifts_is_refused_however_long_it_is_measured():
    def spread(most):
        found = Machine().measure(
            {"most": most, "limit": 1e6, "spread": 0.0001}, a=0.02, b=lambda _t, n: 0.01 * (1 + n / most)
        )
        assert found["a"].calls == most
        return found.ratio_spread("b")

    few, many = spread(100), spread(3000)
    assert many == pytest.approx(few, rel=0.1)
    assert few > 0.2
    both = Machine().measure(
        {"most": 300, "steady_times": False}, a=lambda t, _n: 0.02 * 1.1**t, b=lambda t, _n: 0.01 * 1.1**t
    )
    assert both.trusted


def test_noise_widens_the_spread_and_the_measurement_grows():
    quiet, loud = (
        Machine().measure({"limit": 1e4}, a=noisy(0.02, 1, scale), b=noisy(0.01, 2, scale))
        for scale in (0.01, 3.0)
    )
    assert loud["a"].calls > 4 * quiet["a"].calls
    early = [
        Machine().measure({"most": 50}, a=noisy(0.02, 1, s), b=noisy(0.01, 2, s)).ratio_spread("b")
        for s in (0.01, 3.0)
    ]
    assert early[1] > 10 * early[0]
    assert quiet.trusted
    assert loud.trusted
    assert loud.ratio("b") == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("scale", [0.1, 0.5, 2.0])
def test_the_spread_holds_the_ratio(scale):
    """Where nothing drifts: in nearly all of many measurements the truth lies within the spread that was told."""
    held = 0
    for seed in range(30):
        found = Machine().measure(
            {"limit": 3.0}, a=noisy(0.02, 2 * seed, scale), b=noisy(0.01, 2 * seed + 1, scale)
        )
        held += abs(found.ratio("b") - 0.5) <= found.ratio_spread("b") * found.ratio("b")
    assert held >= 27


def test_a_limit_ends_it_and_too_few_timings_say_nothing():
    found = Machine().measure({"limit": 10.0}, a=3.0, b=1.0)
    assert found["a"].calls == 5
    assert found["a"].spread == math.inf
    assert found.ratio_refused("b") == "it was timed 5 times only, and how far a time varies shows from 6 on"
    assert Machine().measure({"limit": 12.0}, a=3.0, b=1.0).trusted
    assert Machine().measure({"most": 2}, a=0.1)["a"].calls == 2


def test_at_least_so_many_seconds():
    machine = Machine()
    assert machine.measure({"least": 1.0}, a=0.002)["a"].calls == pytest.approx(500, rel=0.25)


def test_short_calls_are_repeated_within_a_timing():
    machine = Machine()
    found = machine.measure({"most": 7}, short=0.0003, long=0.002)
    assert machine.log.count("short") == 1 + 7 * 4
    assert machine.log.count("long") == 1 + 7
    assert found["short"].ms == pytest.approx(0.3)
    assert found["short"].calls == 7


def test_one_file_alone_has_a_spread_too():
    assert Machine().measure(a=0.01)["a"].spread == pytest.approx(0)
    drifting = Machine().measure({"limit": 10.0}, a=lambda t, _n: 0.01 * 1.1**t)
    assert drifting["a"].spread > 0.3
    assert "its time varies by" in str(drifting.why)
    assert not drifting.trusted
    settled = Machine().measure({"limit": 100.0}, a=noisy(0.01, 5))
    assert settled["a"].spread <= 0.02


def test_times_that_count_are_waited_for():
    def drift(steady):
        machine = Machine()
        return machine.measure(
            {"steady_times": steady, "limit": 5.0}, a=lambda t, _n: 0.02 * 1.2**t, b=lambda t, _n: 0.01 * 1.2**t
        )

    waited, ended = drift(True), drift(False)
    assert ended["a"].calls == 48
    assert waited["a"].calls > 100
    assert "its time" in str(waited.why)
    assert ended.why is None


def test_an_interrupted_call_has_its_own_time():
    """The long call is interrupted every time, the short one now and then: time that passes has a wrong ratio."""
    machine = Machine(others=1.0)
    draw = np.random.default_rng(0)

    def interrupted(own, chance):
        def run() -> None:
            machine.ran += own
            machine.time += own + (0.03 if draw.random() < chance else 0.0)

        return run

    calls = {"long": interrupted(0.02, 1.0), "short": interrupted(0.01, 0.3)}
    given = {"now": lambda: machine.time, "used": lambda: machine.time, "least": 0.0}
    found = measure(calls, cpu=lambda: machine.ran, **given)
    assert found.ratio("short") == pytest.approx(0.5)
    assert found["long"].ran == pytest.approx(0.4)
    assert found["long"].ms == pytest.approx(20)
    assert measure(calls, cpu=None, **given).ratio("short") == pytest.approx(0.2)


@pytest.mark.parametrize(
    "options",
    [
        {"spread": 0},
        {"spread": 1.0},
        {"limit": 0},
        {"most": 0},
        {"warm_up": -1},
        {"least": -1},
        {"steady_times": 2},
    ],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        measure({"a": lambda: None}, **options)


def test_nothing_to_time():
    with pytest.raises(ConfigError, match="nothing to time"):
        measure({})


def test_the_spread_of_a_closed_form():
    """Eight stretches of 1 to 8 ms: the four slowest have 5 as their low quantile, the whole has 1."""
    walls = np.repeat(np.arange(1.0, 9.0), 20) / 1000
    found = clock._timing(walls, None)
    assert found.ms == pytest.approx(1.0)
    assert len(found.halves) == math.comb(8, 4)
    assert found.spread == pytest.approx(4.0)
    seven = clock._timing(walls[:7], None)
    assert len(seven.halves) == math.comb(7, 3)
    assert clock._timing(walls[:5], None).spread == math.inf
