"""Times of results: when they are taken, and that none is lost."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import pytest
import torch
from conftest import compared
from torch import nn

import snnprune
from snnprune.errors import ConfigError, ExportError, RunError
from snnprune.export import ExportCheck
from snnprune.runs.timer import Timer
from snnprune.timing.serving import Serving

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
DATA = [(X, torch.arange(8) % 3)] * 3


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def result() -> snnprune.Result:
    config = snnprune.PruneConfig(target={"params": 0.6}, epochs=1, round_to=1)
    return snnprune.optimize(net(), DATA, DATA, config)


@pytest.fixture(autouse=True)
def quick(request, monkeypatch) -> None:
    """Saving without the second that a real export takes, but where that is what is tested."""

    def export(model, path: Path, example_inputs, **options) -> ExportCheck:
        path.write_bytes(b"a file")
        return ExportCheck(path, 0.0, 1e-7, (1,), 20, "none")

    if "real" not in request.node.name:
        monkeypatch.setattr("snnprune.runs.folder.export_onnx", export)


def written(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def test_a_result_is_timed_when_it_is_saved_with_its_file(tmp_path, timed):
    found = result()
    assert found.report.latency is None
    assert found.timer.limit - 4 == pytest.approx(found.report.dense.macs / 1e9, rel=1e-3)
    assert found.timer.serving == Serving()
    dense, compact = found.report.dense.macs, found.report.compact.macs
    found.save(tmp_path / "run")
    assert timed == [(dense, compact)]
    assert found.report.latency is not None
    assert written(tmp_path / "run")["latency"] == found.report.latency
    assert found.report.latency["share"] == pytest.approx(compact / dense)
    found.save(tmp_path / "again")
    assert len(timed) == 1, "once is enough"
    assert written(tmp_path / "again")["latency"] == found.report.latency


def test_who_wants_no_times_gets_none_and_may_have_them_later(tmp_path, timed):
    found = result()
    found.save(tmp_path / "a", time=False)
    found.save(tmp_path / "b", onnx=False)
    assert timed == []
    assert written(tmp_path / "a")["latency"] is written(tmp_path / "b")["latency"] is None
    found.save(tmp_path / "c")
    assert len(timed) == 1
    with pytest.raises(ConfigError, match="time=1 must be"):
        found.save(tmp_path / "d", time=1)


def test_times_that_the_run_has_taken_stay(tmp_path, timed):
    found = result()
    found.report.latency = compared(7.0, 5.0, predicted_ms=5.1).to_dict()
    found.save(tmp_path / "run")
    assert timed == []
    assert written(tmp_path / "run")["latency"] == compared(7.0, 5.0, predicted_ms=5.1).to_dict()


def test_the_dense_model_goes_once_it_is_timed(tmp_path, timed):
    found = result()
    dense = weakref.ref(found.timer.dense)
    gc.collect()
    assert dense() is not None
    found.save(tmp_path / "run")
    gc.collect()
    assert found.timer is None
    assert dense() is None


def test_nothing_is_timed_for_a_folder_that_is_taken(tmp_path, timed):
    with pytest.raises(RunError, match="exists already"):
        result().save(tmp_path)
    assert timed == []


@pytest.mark.parametrize("error", [ExportError("it has a loop"), RuntimeError("a user's own"), MemoryError()])
def test_a_model_that_cannot_be_timed_is_saved_without(tmp_path, timed, monkeypatch, caplog, error):
    def fails(*_args, **_options):
        raise error

    monkeypatch.setattr("snnprune.runs.timer.SideBySide.__call__", fails)
    found = result()
    found.save(tmp_path / "run")
    assert written(tmp_path / "run")["latency"] is None
    assert (tmp_path / "run" / "model.onnx").is_file()
    (warning,) = [r.getMessage() for r in caplog.records if "could not be timed" in r.getMessage()]
    assert str(error) in warning


def test_ctrl_c_is_no_failure_of_timing(timed, monkeypatch):
    def stop(*_args, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr("snnprune.runs.timer.SideBySide.__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        Timer(net(), X, Serving(), 100)(net())


def test_after_a_failure_nothing_is_tried_again(timed, monkeypatch, caplog):
    tries = []

    def fails(*_args, **_options):
        tries.append(1)
        raise ExportError("it has a loop")

    monkeypatch.setattr("snnprune.runs.timer.SideBySide.__init__", fails)
    timer = Timer(net(), X, Serving(), 100)
    assert [timer(net()), timer(net())] == [None, None]
    assert len(tries) == len(caplog.records) == 1
    assert (timer.failed, timer.why) == (True, "it has a loop")


def test_a_smaller_model_that_cannot_be_timed_costs_its_own_times_alone(timed, monkeypatch):
    beside = __import__("snnprune.runs.timer", fromlist=["SideBySide"]).SideBySide
    call, bad = beside.__call__, net()

    def fails(self, compact, **options):
        if compact is bad:
            raise ExportError("it has a loop")
        return call(self, compact, **options)

    monkeypatch.setattr(beside, "__call__", fails)
    timer = Timer(net(), X, Serving(), 100)
    assert timer(bad) is None
    assert (timer.failed, timer.why) == (False, "it has a loop")
    assert timer(net()) is not None
    assert timer.why == ""


def test_the_dense_model_is_made_ready_once_and_as_it_is_to_be_served(timed, monkeypatch):
    made = []
    beside = __import__("snnprune.runs.timer", fromlist=["SideBySide"]).SideBySide

    class Counted(beside):
        def __init__(self, dense, example_inputs, serving, *, limit) -> None:
            made.append((serving, limit))
            super().__init__(dense, example_inputs, serving, limit=limit)

    monkeypatch.setattr("snnprune.runs.timer.SideBySide", Counted)
    for serving, macs, limit in (
        (Serving(), 1e6, 4.001),
        (Serving(), 4e9, 8.0),
        (Serving(batch=2), 4e9, 12.0),
        (Serving(batch=32), 4e9, 20.0),
    ):
        timer = Timer(net(), X, serving, macs)
        assert timer(net()).batch == timer(net()).batch == serving.batch
        assert made.pop() == (serving, pytest.approx(limit))
        assert made == []


def test_real_models_are_timed_by_a_clock_that_costs_nothing(monkeypatch, tmp_path):
    """The whole way, but for the waiting: what is timed are the two exported files."""
    from conftest import TIMES

    from snnprune.timing import compared as module
    from snnprune.timing.clock import measure

    now = [0.0]

    def quick(calls, **options):
        def call(cost, real):
            real()
            now[0] += cost

        slowed = {
            name: lambda c=c, cost=cost: call(cost, c)
            for (name, c), cost in zip(calls.items(), (0.02, 0.01), strict=True)
        }
        options |= {"cpu": None, "now": lambda: now[0], "used": lambda: 0.0}
        return measure(slowed, **options)

    monkeypatch.setattr(Timer, "__call__", TIMES)
    monkeypatch.setattr(module, "measure", quick)
    found = result()
    found.save(tmp_path / "run")
    times = written(tmp_path / "run")["latency"]
    assert (times["dense_ms"], times["compact_ms"]) == (pytest.approx(20), pytest.approx(10))
    assert (times["share"], times["refused"], times["engine"]) == (pytest.approx(0.5), None, "cpu")


def test_where_a_time_decides_it_is_watched_for_longest():
    assert Timer(net(), X, Serving(), 1e6).limit == pytest.approx(4.001)
    assert Timer(net(), X, Serving(), 1e6, patient=True).limit == 20
