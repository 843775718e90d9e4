"""The `latency` target: the clock has the last word, whatever was predicted; engines are closed forms."""

from __future__ import annotations

import json
import math

import pytest
import torch
from conftest import DIGITS

import snnprune
from pipeline.clocks import DENSE_MS, install
from pipeline.conftest import same
from snnprune import PruneConfig
from snnprune.errors import TargetError
from snnprune.learner import Interrupted
from snnprune.pipeline.latency import _next
from snnprune.registry import build

QUICK = {"epochs": 0.5, "round_to": 1}


@pytest.fixture
def digits():
    torch.manual_seed(0)
    train, val, _ = snnprune.load_data("digits", batch_size=128, augment=False)
    return build(DIGITS), train, val


def trials_of(result):
    return [trial for trial in result.report.trials if "final" not in trial]


@pytest.mark.parametrize(
    "clock",
    [
        lambda macs: macs,
        lambda macs: 1.4 * macs,
        lambda macs: 0.6 * macs,
        lambda macs: 0.2 + 0.8 * macs,
        lambda macs: macs**0.5,
    ],
)
def test_the_search_ends_where_the_clock_says(digits, monkeypatch, clock):
    seen = install(monkeypatch, clock)
    result = snnprune.optimize(*digits, PruneConfig(target={"latency": 0.6}, **QUICK))
    kept = result.report.compact.macs / result.report.dense.macs
    assert 0.9 * 0.6 < clock(kept) <= 0.6
    trials = trials_of(result)
    assert len(trials) == len(seen) - 1 <= 5, "the last is the result itself"
    assert [t["passed"] for t in trials] == [t["latency"] <= 1.02 * 0.6 for t in trials]
    assert [t["predicted_ms"] for t in trials] == pytest.approx(
        [DENSE_MS * share for share in seen[:-1]], rel=1e-6
    )
    final = result.report.trials[-1]
    assert final["final"] is True
    assert final["latency"] == pytest.approx(clock(kept))
    assert json.dumps(result.report.to_dict())


def test_milliseconds_are_met_likewise(digits, monkeypatch):
    install(monkeypatch, lambda macs: 1.3 * macs)
    result = snnprune.optimize(*digits, PruneConfig(target={"latency": f"{0.5 * DENSE_MS}ms"}, **QUICK))
    assert 0.45 * DENSE_MS < result.report.trials[-1]["compact_ms"] <= 0.5 * DENSE_MS


def test_what_stays_too_slow_is_never_accepted(digits, monkeypatch):
    install(monkeypatch, lambda macs: 0.65 + 0.3 * macs)
    with pytest.raises(
        TargetError, match=r"latency=0\.6 was not reached: the fastest cut .* takes 1\.\d+ ms"
    ) as error:
        snnprune.optimize(*digits, PruneConfig(target={"latency": 0.6}, **QUICK))
    assert "At its floor the model is predicted to take 0." in str(error.value)
    assert "What takes longest in the dense model is" in str(error.value)


def test_a_clock_that_is_refused_leaves_the_prediction(digits, monkeypatch, caplog):
    install(monkeypatch, lambda macs: None)
    result = snnprune.optimize(*digits, PruneConfig(target={"latency": 0.6}, **QUICK))
    assert 0.5 < result.report.compact.macs / result.report.dense.macs <= 0.6
    assert "it was too busy" in caplog.text
    assert all("passed" not in trial for trial in result.report.trials)


def test_a_clock_that_is_refused_later_does_not_undo_what_was_fast(digits, monkeypatch):
    times = iter([0.3, None, None])
    install(monkeypatch, lambda macs: next(times))
    result = snnprune.optimize(*digits, PruneConfig(target={"latency": 0.6}, **QUICK))
    assert result.report.compact.macs / result.report.dense.macs <= 0.6, (
        "and not the wider cut, which nobody timed"
    )


def test_a_stopped_run_goes_on_with_what_was_settled(digits, monkeypatch, tmp_path):
    seen = install(monkeypatch, lambda macs: 1.3 * macs)
    config = PruneConfig(target={"latency": 0.7}, **{**QUICK, "epochs": 2})
    whole = snnprune.optimize(*digits, config)

    def stop(event):
        if event.stage == "recover" and event.step:
            raise KeyboardInterrupt

    with pytest.raises((Interrupted, KeyboardInterrupt)):
        snnprune.optimize(*digits, config, checkpoint=tmp_path, callbacks=[stop])
    kept = json.loads((tmp_path / "latency.json").read_text())
    assert 0 < kept["settled"] < kept["share"] == pytest.approx(0.7)
    seen.clear()
    again = snnprune.optimize(*digits, config, checkpoint=tmp_path, resume=True)
    assert len(seen) == 1, "only the result is timed"
    assert same(whole.model.state_dict(), again.model.state_dict())
    assert again.report.trials == whole.report.trials


def test_a_run_that_was_stopped_while_it_settled_keeps_no_trial_twice(digits, monkeypatch, tmp_path):
    install(monkeypatch, lambda macs: 1.3 * macs)
    config = PruneConfig(target={"latency": 0.7}, **QUICK)
    whole = snnprune.optimize(*digits, config)

    def stop(event):
        if event.stage == "check":  # the cut is settled, and no checkpoint of the recovery is there yet
            raise KeyboardInterrupt

    with pytest.raises((Interrupted, KeyboardInterrupt)):
        snnprune.optimize(*digits, config, checkpoint=tmp_path, callbacks=[stop])
    seen = install(monkeypatch, lambda macs: 0.9 * macs)  # another look would say something else
    again = snnprune.optimize(*digits, config, checkpoint=tmp_path, resume=True)
    assert len(seen) == 1
    assert same(whole.model.state_dict(), again.model.state_dict())
    assert len(trials_of(again)) == len(trials_of(whole))


def test_connections_save_no_time(digits):
    with pytest.raises(TargetError, match="cannot be met by switching connections: zeros save no time"):
        snnprune.optimize(*digits, PruneConfig(target={"latency": 0.5}, granularity="connection", epochs=0.5))


@pytest.mark.parametrize("share", [0, 1.5, -1, True, float("nan"), "0.5"])
def test_shares_that_make_no_sense(share):
    with pytest.raises(TargetError, match="latency"):
        PruneConfig(target={"latency": share})
    with pytest.raises(TargetError, match="exactly one"):
        PruneConfig(target={"latency": 0.5, "macs": 0.5})


def test_the_next_share():
    assert _next({0.5: 1.25}, 0.5) == pytest.approx(0.5 * 0.97 / 1.25)
    assert _next({0.5: 10.0}, 0.5) == 0.25, "no more than half at once"
    assert _next({0.5: 0.1}, 0.5) == 1.0
    # a constant that nothing removes: the line through two points meets the aim at once
    line = {0.5: 0.6 + 0.8 * 0.5, 0.6: 0.6 + 0.8 * 0.6}
    assert _next(line, 0.5) == pytest.approx((0.97 - 0.6) / 0.8)
    assert math.isfinite(_next({0.5: 1.2, 0.4: 1.2}, 0.4))
