"""A contest's book: what it says of runs that were interrupted or not timed, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from contests.conftest import CONFIG, hold, stop_at
from snnprune.errors import ExportError, RunError
from snnprune.learner import Checkpoint, Speed, speed
from snnprune.learner.recovering import RecoverStage
from snnprune.rivals import bout


@pytest.mark.parametrize("methods", [["ours"], ["dense"], ["l2:local"]])
def test_the_time_of_a_run_is_that_of_all_its_parts(model, data, tmp_path, monkeypatch, methods):
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 2)
        with pytest.raises(KeyboardInterrupt):
            hold(model, data, methods, folder=tmp_path)
    original = Checkpoint.load

    def long_ago(self):
        found = original(self)
        self.seconds += 1000.0
        return found

    monkeypatch.setattr(Checkpoint, "load", long_ago)
    assert hold(model, data, methods, folder=tmp_path, resume=True).rows[0]["seconds"] >= 1000.0


def test_a_cut_that_comes_out_another_way_is_recovered_anew(model, data, tmp_path, monkeypatch, caplog):
    """On a GPU what comes before the cut is not repeated to the last bit; the checkpoint is of the first cut."""
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 4)
        with pytest.raises(KeyboardInterrupt):
            hold(model, data, ["l2:local"], folder=tmp_path)
    original = bout.fit

    def smaller(way, network, example, count, limit, gradients):
        return original(way, network, example, count, 0.7 * limit, gradients)

    monkeypatch.setattr(bout, "fit", smaller)
    (row,) = hold(model, data, ["l2:local"], folder=tmp_path, resume=True).rows
    assert "its recovery begins anew" in caplog.text
    assert row["failed"] is None
    alone = hold(model, data, ["l2:local"]).rows[0]
    assert (row["value"], row["macs"]) == (alone["value"], alone["macs"])


def test_rows_without_times_beside_others_are_told(model, data, tmp_path, timed):
    hold(model, data, ["norm"], folder=tmp_path)
    found = hold(model, data, ["norm", "dense"], folder=tmp_path, time=True, resume=True)
    assert "some runs of norm were made without times" in str(found)
    assert "without times" not in str(hold(model, data, ["dense"], time=True))


def test_who_cannot_be_timed_says_so_and_the_others_are(model, data, timed, monkeypatch):
    beside = __import__("snnprune.runs.timer", fromlist=["SideBySide"]).SideBySide
    call, calls = beside.__call__, []

    def fails_once(self, compact, **options):
        calls.append(compact)
        if len(calls) == 1:
            raise ExportError("it has a loop")
        return call(self, compact, **options)

    monkeypatch.setattr(beside, "__call__", fails_once)
    found = hold(model, data, ["norm", "l2"], time=True)
    assert {row["method"]: row["times"] is None for row in found.rows} == {"norm": True, "l2": False}
    assert "norm: it could not be timed (it has a loop)" in str(found)
    calls.clear()
    assert "norm: it could not be timed (it has a loop)" in str(hold(model, data, ["norm"], time=True))


def test_the_book_holds_what_the_table_shows(model, data, tmp_path):
    found = hold(model, data, ["norm", "ours", "l2"], seeds=2, folder=tmp_path)
    book = json.loads((tmp_path / "contest.json").read_text())
    told = {one["method"]: one for one in book["standings"]}
    for one in found.standings:
        mean, half = one.mean
        assert told[one.name]["mean"] == mean
        assert told[one.name]["half"] == (half if math.isfinite(half) else None)
        assert told[one.name]["seeds"] == [0, 1]
        assert told[one.name]["macs"] == one.macs
    pairs = [
        a["value"] - b["value"] for seed in (0, 1)
        for a in found.rows for b in found.rows
        if (a["method"], b["method"], a["seed"], b["seed"]) == ("ours", "l2", seed, seed)
    ]  # fmt: skip
    assert told["l2"]["ours_less"] == pytest.approx(sum(pairs) / 2)
    assert told["ours"]["ours_less"] is None
    single = hold(model, data, ["norm"])
    (alone,) = single.to_dict()["standings"]
    assert (alone["half"], alone["ours_less"], alone["ours_less_half"]) == (None, None, None)


def test_what_rows_were_made_with_is_told_and_books_of_before_are_read(model, data, tmp_path, caplog):
    found = hold(model, data, ["norm"], folder=tmp_path)
    assert (found.rows[0]["device"], found.rows[0]["versions"]) == (found.device, found.versions)
    book = json.loads((tmp_path / "contest.json").read_text())
    for row in book["rows"]:  # as it was before rows said so
        del row["device"], row["versions"]
    book |= {"format": 2, "device": "A card", "versions": book["versions"] | {"torch": "1.0"}}
    del book["speed"]
    (tmp_path / "contest.json").write_text(json.dumps(book))
    caplog.clear()
    both = hold(model, data, ["norm", "l2"], folder=tmp_path, resume=True)
    assert "1 of the runs on file were made with another device or other versions" in caplog.text
    assert [row["device"] for row in both.rows] == ["A card", both.device]
    (told,) = [line for line in both.remarks() if "other devices or versions" in line]
    assert "A card, python" in told
    assert "torch 1.0" in told
    assert "(such as norm)" in told
    assert both.device in told
    assert not [line for line in found.remarks() if "versions" in line]


@pytest.mark.parametrize("stop", [False, True])
def test_all_recover_in_what_was_measured_once(model, data, tmp_path, monkeypatch, stop):
    """Where networks chose for themselves, one might learn in half precision and the other not."""
    monkeypatch.setattr(speed, "_MEASURED", ("cpu",))
    asked, used, original = [], [], RecoverStage._use

    def seconds(stage, batch):
        asked.append(sum(p.numel() for p in stage.model.parameters()))
        return Speed("bfloat16" if len(asked) == 1 else "float32", measured={"bfloat16": 0.5})

    def use(stage, chosen):
        used.append(chosen.precision)
        original(stage, chosen)

    monkeypatch.setattr(RecoverStage, "_measure", seconds)
    monkeypatch.setattr(RecoverStage, "_use", use)
    methods = ["norm", "dense", "l2:local", "l2-iterative:local"]
    if stop:
        with monkeypatch.context() as patch:
            stop_at(patch, RecoverStage, 2)
            with pytest.raises(KeyboardInterrupt):
                hold(model, data, methods, folder=tmp_path)
    found = hold(model, data, methods, folder=tmp_path, resume=stop)
    assert [row["failed"] for row in found.rows] == [None] * 4
    assert asked == [sum(p.numel() for p in model.parameters())], "once, by the dense network"
    assert set(used) == {"bfloat16"}
    assert len(used) >= 4
    assert found.speed.precision == "bfloat16"
    book = json.loads((tmp_path / "contest.json").read_text())
    assert book["speed"]["precision"] == "bfloat16"
    hold(model, data, [*methods, "l1"], folder=tmp_path, resume=True)
    assert len(asked) == 1, "it stands in the book"
    for row in book["rows"]:
        row["device"] = "A card"
    (tmp_path / "contest.json").write_text(json.dumps(book))
    assert hold(model, data, [*methods, "l1"], folder=tmp_path, resume=True).speed.precision == "float32"
    assert len(asked) == 2, "what one device is faster in says nothing of another"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda book: book | {"speed": {"precision": "float8"}},
        lambda book: book | {"speed": {"fast": True}},
        lambda book: book | {"rows": [book["rows"][0] | {"versions": "all"}]},
        lambda book: book | {"rows": {}},
        lambda book: book | {"rows": book["rows"] * 2},
        lambda book: book | {"rows": [book["rows"][0] | {"macs": -0.5}]},
        lambda book: book | {"rows": [book["rows"][0] | {"params": 1e300}]},
        lambda book: book | {"rows": [book["rows"][0] | {"steps": {"recover": "all"}}]},
        lambda book: book | {"rows": [book["rows"][0] | {"steps": {"recover": -3}}]},
        lambda book: "no book",
    ],
)
def test_a_damaged_book_is_refused_and_stays(model, data, tmp_path, spoil):
    hold(model, data, ["norm"], folder=tmp_path)
    path = tmp_path / "contest.json"
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    before = path.read_text()
    with pytest.raises(RunError, match="Remove its folder to start anew"):
        hold(model, data, ["norm"], folder=tmp_path, resume=True)
    assert path.read_text() == before
    path.write_text("{")
    with pytest.raises(RunError, match="Remove its folder to start anew"):
        hold(model, data, ["norm"], folder=tmp_path, resume=True)


def test_of_several_cuts_the_worst_is_told(model, data, monkeypatch):
    found = iter([1e-5, 0.5, 2e-6, 3e-7, 0.0])
    monkeypatch.setattr(bout, "inexactness", lambda *_: next(found))
    row = hold(model, data, ["l2-iterative:local"], CONFIG).rows[0]
    assert row["exact"] == 0.5
    assert "differ by up to 0.5 of" in row["note"]


@pytest.mark.parametrize("measured", [False, True])
def test_sparse_learning_computes_as_the_recovery_does(model, data, monkeypatch, measured):
    """In the precision that was asked for, or that was measured once for all."""
    seen, original = [], bout.learn_sparsely_

    def look(way, network, *args, steps):
        handle = network.inner.register_forward_hook(lambda _m, _x, out: seen.append(out.dtype))
        original(way, network, *args, steps=steps)
        handle.remove()
        assert seen.count(torch.bfloat16) == steps > 0

    monkeypatch.setattr(bout, "learn_sparsely_", look)
    if measured:
        monkeypatch.setattr(speed, "_MEASURED", ("cpu",))
        monkeypatch.setattr(RecoverStage, "_measure", lambda *_: Speed("bfloat16"))
    config = CONFIG if measured else replace(CONFIG, precision="bfloat16")
    assert hold(model, data, ["group-sparse:local"], config).rows[0]["failed"] is None
    assert seen


def test_a_function_that_failed_may_be_mended(model, data, tmp_path):
    def broken(model, groups):
        raise RuntimeError("no idea")

    def mended(model, groups):
        return {group.id: torch.arange(float(group.size)) for group in groups}

    found = hold(model, data, ["l2", ("mine", broken)], folder=tmp_path)
    assert [row["failed"] is None for row in found.rows] == [True, False]
    again = hold(model, data, ["l2", ("mine", mended)], folder=tmp_path, resume=True)
    assert [(row["method"], row["failed"]) for row in again.rows] == [("l2", None), ("mine", None)]
    assert again.rows[0] == found.rows[0]
    with pytest.raises(RunError, match="holds runs of another mine"):
        hold(model, data, [("mine", broken)], folder=tmp_path, resume=True)
