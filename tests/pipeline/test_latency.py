"""The `latency` target: cuts are timed, the share that was found is kept, and the final model is timed too."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import DIGITS

import snnprune
from pipeline.conftest import optimize, same, weights
from snnprune import PruneConfig
from snnprune.errors import ConfigError, TargetError
from snnprune.learner import Interrupted
from snnprune.metrics import count_macs
from snnprune.pipeline import latency
from snnprune.registry import build

QUICK = {"epochs": 0.5, "round_to": 1}


@pytest.fixture
def digits():
    torch.manual_seed(0)
    train, val, _ = snnprune.load_data("digits", batch_size=128, augment=False)
    return build(DIGITS), train, val


@pytest.fixture
def timed(monkeypatch):
    """A machine on which the time is the square root of the MACs; remembers what it timed."""
    seen = []

    def call(self, model):
        share = count_macs(model, self.sample) / count_macs(self.dense, self.sample)
        seen.append(share)
        return {
            "latency": share**0.5,
            "dense_ms": 1.0,
            "compact_ms": share**0.5,
            "provider": "CPUExecutionProvider",
        }

    monkeypatch.setattr(latency.Clock, "__call__", call)
    return seen


def test_the_most_macs_that_are_fast_enough_are_kept(digits, timed):
    model, train, val = digits
    result = snnprune.optimize(model, train, val, PruneConfig(target={"latency": 0.7}, **QUICK))
    kept = result.report.compact.macs / result.report.dense.macs
    assert 0.45 < kept <= 0.49
    assert result.report.target == {"latency": 0.7}
    *cuts, final = result.report.trials
    assert [t["passed"] for t in cuts] == [t["latency"] <= 0.7 for t in cuts]
    assert len(cuts) == 6
    assert final["final"] is True
    assert final["latency"] == pytest.approx(kept**0.5)
    assert json.dumps(result.report.to_dict())


def test_what_cannot_be_reached_says_what_was_measured(digits, timed):
    model, train, val = digits
    with pytest.raises(
        TargetError, match=r"latency=0\.05 was not reached: with 0\.\d+ of the MACs .* still takes 0"
    ):
        snnprune.optimize(model, train, val, PruneConfig(target={"latency": 0.05}, **QUICK))
    config = PruneConfig(target={"latency": 0.5}, granularity="connection", epochs=0.5)
    with pytest.raises(ConfigError, match="no meaning for connections"):
        snnprune.optimize(model, train, val, config)


@pytest.mark.parametrize("share", [0, 1.5, -1, True, float("nan"), "0.5"])
def test_shares_that_make_no_sense(share):
    with pytest.raises(TargetError, match="latency"):
        PruneConfig(target={"latency": share})
    with pytest.raises(TargetError, match="exactly one"):
        PruneConfig(target={"latency": 0.5, "macs": 0.5})


def test_a_stopped_run_goes_on_with_the_share_that_was_found(digits, timed, tmp_path):
    model, train, val = digits
    config = PruneConfig(target={"latency": 0.7}, **{**QUICK, "epochs": 2})
    whole = snnprune.optimize(model, train, val, config)

    def stop(event):
        if event.stage == "recover" and event.step:
            raise KeyboardInterrupt

    with pytest.raises((Interrupted, KeyboardInterrupt)):
        snnprune.optimize(model, train, val, config, checkpoint=tmp_path, callbacks=[stop])
    timed.clear()
    again = snnprune.optimize(model, train, val, config, checkpoint=tmp_path, resume=True)
    assert len(timed) == 1, "only the final model is timed"
    assert same(whole.model.state_dict(), again.model.state_dict())
    assert again.report.trials == whole.report.trials
    (tmp_path / "latency.json").write_text('{"identity": "x"}')
    with pytest.raises(snnprune.SnnPruneError, match="belongs to another model"):
        snnprune.optimize(model, train, val, config, checkpoint=tmp_path, resume=True)


def test_the_command_with_real_clocks(model, here, capsys):
    args = ["--data", "digits", "--arch", DIGITS, "--epochs", "1", "--device", "cpu", "--target", "latency=0.9"]
    assert optimize(model, *args, "--output", "out") == 0
    report = json.loads((here / "out" / "report.json").read_text())
    assert report["target"] == {"latency": 0.9}
    assert all(t["dense_ms"] > 0 and t["compact_ms"] > 0 for t in report["trials"])
    assert min(t["latency"] for t in report["trials"][:-1]) <= 0.9
    assert weights(here / "out")
    assert "timing cuts" in capsys.readouterr().out
