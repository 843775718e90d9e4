"""What the bisection of the `drop` target asks and answers, with trials that cost nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from conftest import compared

from snnprune import PruneConfig
from snnprune.errors import TargetError
from snnprune.measures import Accuracy, Evaluation
from snnprune.pipeline import drop as module
from snnprune.pipeline.drop import DropSearch
from snnprune.timing.compared import Compared

KEYS = {"macs", "val_metric", "val_value", "val_accuracy", "val_loss", "drop", "passed"}


@pytest.fixture
def search(monkeypatch):
    """A search whose trial at a share ends with the accuracy that a function gives for it."""

    def begin(accuracy, times=lambda _: None, **options):
        seen = []

        class Shared:
            config = PruneConfig(target={"drop": 0.05}, **options)
            val, metric, validated = "validation data", Accuracy(), Evaluation(0.9, 0.1, 100)

            def prepare(self) -> None:
                seen.append("dense")

            def least_share(self) -> float:
                return 0.0

            def timer(self, model) -> Compared | None:
                return times(model)

            def tell(self, *args, **values) -> None:
                pass

            def validate(self, model) -> Evaluation:
                seen.append(model)
                return Evaluation(accuracy(model), 0.1, 100)

        class Job:
            def __init__(self, setting, config) -> None:
                self.config = config

            def open(self, place, *, resume) -> None:
                assert place is None
                assert not resume

            def run(self) -> float:
                return self.config.target["macs"]

        monkeypatch.setattr(module, "Job", Job)
        return DropSearch(Shared(), 0.05, None, resume=False), seen

    return begin


def test_the_best_trial_that_passed_is_returned_and_not_the_last(search):
    trials, _ = search(lambda share: 0.9 if share >= 0.5 else 0.5, trials=4)
    job, compact = trials.run()
    assert [t["macs"] for t in trials.trials] == [0.5, 0.25, 0.375, 0.4375]
    assert [t["passed"] for t in trials.trials] == [True, False, False, False]
    assert compact == job.config.target["macs"] == 0.5


def test_every_trial_that_passes_is_better_than_the_one_before(search):
    trials, _ = search(lambda share: 0.9 if share >= 0.3 else 0.5, trials=4)
    _, compact = trials.run()
    assert [t["macs"] for t in trials.trials] == [0.5, 0.25, 0.375, 0.3125]
    assert [t["passed"] for t in trials.trials] == [True, False, True, True]
    assert compact == 0.3125


def test_the_dense_model_and_every_trial_are_judged_on_validation_data(search):
    trials, seen = search(lambda share: 0.9, trials=3)
    trials.run()
    assert seen == ["dense", 0.5, 0.25, 0.125]


@pytest.mark.parametrize(("accuracy", "passes"), [(0.95, True), (0.85, True), (0.8499, False)])
def test_a_trial_may_lose_what_is_allowed(search, accuracy, passes):
    trials, _ = search(lambda share: accuracy, trials=1)
    if passes:
        trials.run()
    else:
        with pytest.raises(TargetError, match=r"lost 0\.0501 of the validation accuracy \(0\.9000\)"):
            trials.run()
    assert trials.trials[0]["drop"] == pytest.approx(0.9 - accuracy)


def test_every_trial_is_timed_beside_the_dense_model(search):
    trials, _ = search(lambda share: 0.9, lambda share: compared(8.0, 8.0 * share), trials=2)
    trials.run()
    assert [t["latency"] for t in trials.trials] == [t["macs"] for t in trials.trials] == [0.5, 0.25]
    assert [(t["dense_ms"], t["compact_ms"], t["spread"]) for t in trials.trials] == [(8, 4, 0.02), (8, 2, 0.02)]
    assert not any("refused" in t for t in trials.trials)


def test_a_trial_whose_time_is_not_to_be_believed_says_why(search):
    def times(share):
        return compared(None, None, refused="it varies by 31 %") if share == 0.5 else None

    trials, _ = search(lambda share: 0.9, times, trials=2)
    trials.run()
    first, second = trials.trials
    assert (first["latency"], first["dense_ms"], first["refused"]) == (None, None, "it varies by 31 %")
    assert set(second) == KEYS


def test_one_of_several_processes_times(search, monkeypatch):
    trials, _ = search(lambda share: 0.9, lambda share: compared(), trials=1)
    monkeypatch.setattr(module, "current", lambda: SimpleNamespace(first=False, wait=lambda: None))
    trials.run()
    assert set(trials.trials[0]) == KEYS
