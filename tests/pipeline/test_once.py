"""What a run has once: its model is traced, proved, priced and measured once, however many trials it takes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from conftest import DIGITS

import snnprune
from pipeline.clocks import install
from pipeline.conftest import stop_at
from snnprune import PruneConfig
from snnprune.errors import RunError
from snnprune.learner.recovering import RecoverStage
from snnprune.metrics import count_params
from snnprune.pipeline import setting
from snnprune.proof import tracing
from snnprune.registry import build

ONCE = {"trace": 1, "find_groups": 1, "verify_groups": 1, "price": 1, "CostModel": 1}
TARGETS = {
    "macs": {"target": {"macs": 0.5}},
    "drop": {"target": {"drop": 0.99}, "trials": 3},
    "latency": {"target": {"latency": 0.7}},
}


@pytest.fixture
def digits():
    torch.manual_seed(0)
    return build(DIGITS), *snnprune.load_data("digits", batch_size=128, augment=False)


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    """How often the dense model was looked at, and how; cuts are timed by a clock that takes no time."""
    found: Counter[str] = Counter()

    def count(module, name: str, dense: bool = False) -> None:
        original = getattr(module, name)

        def counted(model, *args, **options):
            if not dense or count_params(model) == whole:
                found[name] += 1
            return original(model, *args, **options)

        monkeypatch.setattr(module, name, counted)

    whole = count_params(build(DIGITS))
    for name in ("trace", "price", "CostModel"):
        count(setting, name)
    for name in ("find_groups", "verify_groups"):
        count(tracing, name)
    count(setting, "evaluate", dense=True)
    install(monkeypatch, lambda share: share)
    return found


@pytest.mark.parametrize("tested", [False, True])
@pytest.mark.parametrize("kind", TARGETS)
def test_the_dense_model_is_looked_at_once(digits, calls, kind, tested):
    model, train, val, test = digits
    config = PruneConfig(epochs=0.5, **TARGETS[kind])
    result = snnprune.optimize(model, train, val, config, test=test if tested else None)
    # Trials are judged on the validation data; the report's figures are of the test data where there are any.
    expected = {**ONCE, "evaluate": 2 if tested and kind == "drop" else 1}
    assert calls == expected
    assert result.report.split == ("test" if tested else "val")
    assert result.report.dense.accuracy == snnprune.evaluate(model, test if tested else val).accuracy


@pytest.mark.parametrize("kind", TARGETS)
def test_so_it_is_by_a_run_that_goes_on(digits, calls, tmp_path, monkeypatch, kind):
    model, train, val, _ = digits
    config = PruneConfig(epochs=0.5, **TARGETS[kind])
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 5 if kind == "drop" else 2)
        with pytest.raises(KeyboardInterrupt):
            snnprune.optimize(model, train, val, config, checkpoint=tmp_path)
    calls.clear()
    snnprune.optimize(model, train, val, config, checkpoint=tmp_path, resume=True)
    assert set(calls.values()) == {1}, calls
    assert {"trace", "verify_groups", "evaluate"} <= calls.keys()


@pytest.mark.parametrize("kind", TARGETS)
def test_a_checkpoint_of_another_run_is_refused_before_the_model_is_traced(
    digits, calls, tmp_path, monkeypatch, kind
):
    model, train, val, test = digits
    config = PruneConfig(epochs=0.5, **TARGETS[kind])
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 5 if kind == "drop" else 2)
        with pytest.raises(KeyboardInterrupt):
            snnprune.optimize(model, train, val, config, checkpoint=tmp_path)
    calls.clear()
    changed = build(DIGITS)
    hold = PruneConfig(epochs=0.5, search=snnprune.SearchOptions(hold=4), **TARGETS[kind])
    for other, said in (
        ((model, train, val, hold), "search: hold was 1, now 4"),
        ((model, train, test, config), "validation data: content has changed"),
        ((changed, train, val, config), "weights has changed"),
    ):
        with pytest.raises(RunError, match=said):
            snnprune.optimize(*other, checkpoint=tmp_path, resume=True)
    assert not calls


def test_trials_are_judged_on_the_validation_data_and_reported_on_the_test_data(digits, monkeypatch):
    model, train, val, test = digits
    seen = []
    original = setting.evaluate

    def evaluate(model, data, **options):
        found = original(model, data, **options)
        seen.append((data, found.accuracy))
        return found

    monkeypatch.setattr(setting, "evaluate", evaluate)
    config = PruneConfig(epochs=0.5, **TARGETS["drop"])
    report = snnprune.optimize(model, train, val, config, test=test).report
    dense, dense_val, *trials, compact = seen
    assert [data.images is test.images for data, _ in (dense, compact)] == [True, True]
    assert all(data.images is val.images for data, _ in (dense_val, *trials))
    assert [t["val_accuracy"] for t in report.trials] == [accuracy for _, accuracy in trials]
    assert [t["drop"] for t in report.trials] == [dense_val[1] - accuracy for _, accuracy in trials]
    assert (report.dense.accuracy, report.compact.accuracy) == (dense[1], compact[1])
