"""The `drop` target: trials by bisection, judged on validation data, that go on after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import DIGITS

import snnprune
from pipeline.conftest import MADE, names, optimize, same, stop_at, tree, weights
from snnprune import PruneConfig
from snnprune.errors import CollapsedLayerError, ConfigError, RunError, TargetError
from snnprune.learner.recovering import RecoverStage
from snnprune.measures import ACCURACY, Evaluation
from snnprune.pipeline import drop as module
from snnprune.registry import build


def quick_config(**changes):
    return PruneConfig(**{"target": {"drop": 0.05}, "epochs": 0.5, "trials": 4, **changes})


@pytest.fixture
def judged(monkeypatch):
    """Accuracies by share instead of measured ones; the dense model has 0.9."""

    def judge(wanted):
        asked = []

        made = module.Job.run

        def run(self, *args):
            asked.append(self.config.target["macs"])
            return made(self, *args)

        def evaluate(model, _data, metric, ranks):
            assert metric.info == ACCURACY
            return Evaluation(wanted(asked[-1]) if asked else 0.9, 0.0, 1)

        monkeypatch.setattr(module.Job, "run", run)
        monkeypatch.setattr("snnprune.pipeline.setting.evaluate", evaluate)
        return asked

    return judge


@pytest.fixture(scope="module")
def digits():
    torch.manual_seed(0)
    return build(DIGITS), *snnprune.load_data("digits", batch_size=128, augment=False)[:2]


def test_the_smallest_share_that_keeps_the_accuracy_is_returned(digits, judged):
    model, train, val = digits
    asked = judged(lambda share: 0.9 if share > 0.4 else 0.5)
    result = snnprune.optimize(model, train, val, quick_config())
    assert len(asked) == 4
    shares = [t["macs"] for t in result.report.trials]
    assert shares == asked
    assert [t["passed"] for t in result.report.trials] == [s > 0.4 for s in shares]
    best = min(s for s in shares if s > 0.4)
    assert best < 0.47, "four halvings end within a sixteenth"
    macs = result.report.compact.macs / result.report.dense.macs
    assert best - 0.01 <= macs <= best
    assert result.report.target == {"drop": 0.05}
    assert result.report.config["target"] == {"drop": 0.05}


def test_the_loss_of_accuracy_counts_against_the_dense_model_on_the_same_data(digits, judged):
    model, train, val = digits
    judged(lambda share: 0.85)  # exactly what is allowed
    result = snnprune.optimize(model, train, val, quick_config(trials=2))
    assert [t["passed"] for t in result.report.trials] == [True, True]
    judged(lambda share: 0.8499)
    with pytest.raises(TargetError, match=r"no trial kept the accuracy: even macs=0\.7.* lost 0\.0501"):
        snnprune.optimize(model, train, val, quick_config(trials=2))


def test_a_trial_is_the_run_that_its_share_alone_would_be(digits):
    model, train, val = digits
    result = snnprune.optimize(model, train, val, quick_config(target={"drop": 0.99}, trials=1))
    share = result.report.trials[0]["macs"]
    alone = snnprune.optimize(model, train, val, quick_config(target={"macs": share}))
    assert same(result.model.state_dict(), alone.model.state_dict())


def test_without_validation_data_it_is_refused(digits):
    model, train, _ = digits
    with pytest.raises(ConfigError, match="judged by accuracy on validation data"):
        snnprune.optimize(model, train, None, quick_config())


def test_all_of_the_accuracy_cannot_be_asked_for(digits):
    model, train, val = digits
    with pytest.raises(TargetError, match=r"drop=1\.0 is no fraction of accuracy"):
        snnprune.optimize(model, train, val, quick_config(target={"drop": 1}))


SHORT = ["--data", "digits", "--arch", DIGITS, "--epochs", "1", "--device", "cpu"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("call", [3, 9, 17])  # 7 steps of recovery each: in the 1st, 2nd and 3rd trial
def test_a_stopped_run_goes_on_with_the_trial_it_was_in(model, said, monkeypatch, call):
    options = [*SHORT, "--target", "drop=0.9", "--trials", "3"]
    assert optimize(model, *options, "--output", "whole") == 0
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, call)
        said(optimize(model, *options, "--output", "out"), 130)
    steps = [0]
    original = RecoverStage.train_step

    def counted(self, batch):
        steps[0] += 1
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(RecoverStage, "train_step", counted)
        assert optimize(model, *options, "--output", "out", "--resume") == 0
    assert steps[0] == 21 - call, "what was done is not done again"
    assert names(Path("out")) == MADE
    assert same(weights(Path("out")), weights(Path("whole")))
    first, second = (json.loads((Path(f) / "report.json").read_text()) for f in ("whole", "out"))
    for key in set(first) - {"seconds", "command", "date"}:
        assert first[key] == second[key], key


def test_trials_of_another_run_are_refused(digits, tmp_path, monkeypatch):
    model, train, val = digits
    stop_at(monkeypatch, RecoverStage, 8)
    with pytest.raises(KeyboardInterrupt):
        snnprune.optimize(model, train, val, quick_config(), checkpoint=tmp_path)
    with pytest.raises(RunError, match="belongs to another"):
        snnprune.optimize(model, train, val, quick_config(lr=0.01), checkpoint=tmp_path, resume=True)
    with pytest.raises(RunError, match="belongs to another"):
        snnprune.optimize(model, train, val, quick_config(target={"drop": 0.1}), checkpoint=tmp_path, resume=True)


def test_only_the_best_trial_keeps_its_checkpoint(digits, judged, tmp_path):
    model, train, val = digits
    asked = judged(lambda share: 0.9 if share > 0.4 else 0.5)
    snnprune.optimize(model, train, val, quick_config(), checkpoint=tmp_path)
    best = min(s for s in asked if s > 0.4)
    assert names(tmp_path) == {"trials.json", f"macs-{best:.6f}"}


def test_a_trial_that_collapses_has_not_kept_the_accuracy(digits, monkeypatch):
    model, train, val = digits
    original = module.Job.run

    def run(self, *args):
        if self.config.target["macs"] < 0.4:
            raise CollapsedLayerError("features.0: nothing would be left")
        return original(self, *args)

    monkeypatch.setattr(module.Job, "run", run)
    result = snnprune.optimize(model, train, val, quick_config(target={"drop": 0.99}, trials=3))
    assert [t["passed"] for t in result.report.trials] == [True, False, False]
    assert result.report.trials[1]["why"].startswith("features.0")
    assert result.report.compact.macs / result.report.dense.macs > 0.4


@pytest.mark.parametrize("first", ["drop=0.9", "macs=0.5"])
def test_another_kind_of_target_does_not_go_on_with_a_run(model, said, monkeypatch, first):
    other = {"drop=0.9": "macs=0.5", "macs=0.5": "drop=0.9"}[first]
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 9 if first.startswith("drop") else 3)
        said(optimize(model, *SHORT, "--target", first, "--output", "out"), 130)
    before = tree(Path("out.partial"))
    assert "interrupted run" in said(optimize(model, *SHORT, "--target", other, "--output", "out", "--resume"))
    assert tree(Path("out.partial")) == before


@pytest.mark.parametrize("content", ["[]", '{"identity": 1}', "{", '{"trials": [{}]}'])
def test_a_damaged_book_of_trials_is_refused(digits, tmp_path, content):
    model, train, val = digits
    (tmp_path / "trials.json").write_text(content)
    with pytest.raises(RunError, match=r"trials\.json"):
        snnprune.optimize(model, train, val, quick_config(), checkpoint=tmp_path, resume=True)


def test_trials_and_the_result_are_timed(digits, judged, timed, tmp_path):
    model, train, val = digits
    judged(lambda share: 0.9)
    result = snnprune.optimize(model, train, val, quick_config(trials=2))
    dense, _ = timed[0]
    for trial, (whole, compact) in zip(result.report.trials, timed, strict=True):
        assert whole == dense
        assert trial["latency"] == pytest.approx(compact / dense)
        assert trial["macs"] - 0.01 <= trial["latency"] <= trial["macs"], "as this machine is said to be"
    result.save(tmp_path / "run")
    assert result.report.latency["share"] == pytest.approx(result.report.trials[1]["latency"])
    assert json.loads((tmp_path / "run" / "report.json").read_text())["trials"] == result.report.trials
