"""The books of trials and cuts that an interrupted run left: other forms are refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from snnprune import PruneConfig
from snnprune.budget import Latency
from snnprune.errors import RunError
from snnprune.pipeline.drop import BOOK, DropSearch
from snnprune.pipeline.latency import LATENCY, LatencySearch


def setting(target):
    return SimpleNamespace(config=PruneConfig(target=target), identity=lambda config: {"weights": "f"})


TRIAL = {"macs": 0.5, "val_accuracy": 0.9, "drop": 0.0, "passed": True}


def trials(folder, content):
    search = DropSearch(setting({"drop": 0.01}), 0.01, folder, resume=True)
    (folder / BOOK).unlink(missing_ok=True)
    search.known()
    (folder / BOOK).write_text(json.dumps({"identity": search.identity, "trials": content}))
    return search.known()


@pytest.mark.parametrize(
    "content",
    [
        [{**TRIAL, "macs": "0.5"}],
        [{**TRIAL, "macs": 1}],
        [{**TRIAL, "passed": 1}],
        [{**TRIAL, "drop": "x"}],
        [{**TRIAL, "latency": [0.5]}],
        [{**TRIAL, "refused": {}}],
        [{"macs": 0.5}],
        [3],
        3,
        None,
    ],
)
def test_trials_of_another_form_are_refused(tmp_path, content):
    with pytest.raises(RunError, match="malformed"):
        trials(tmp_path, content)
    timed = {"latency": 0.5, "dense_ms": 2.0, "compact_ms": None, "spread": 0.01, "refused": "it varies"}
    assert trials(tmp_path, [TRIAL, {**TRIAL, **timed, "macs": 0.25, "drop": None}]).keys() == {0.5, 0.25}


def share(folder, **content):
    kept = {"identity": {"weights": "f", "latency": 0.5}, "share": 0.4, "settled": None, "dense_ms": 2.0}
    (folder / LATENCY).write_text(json.dumps({**kept, "trials": [], **content}))
    return LatencySearch(setting({"latency": 0.5}), Latency(0.5, None), folder, resume=True).share


@pytest.mark.parametrize(
    "content",
    [
        {"share": "0.4"},
        {"share": 0},
        {"share": 2},
        {"share": True},
        {"share": None},
        {"settled": 1.5},
        {"settled": "0.4"},
        {"settled": False},
        {"dense_ms": 0},
        {"dense_ms": None},
        {"trials": [3]},
        {"trials": 3},
    ],
)
def test_a_share_of_another_form_is_refused(tmp_path, content):
    with pytest.raises(RunError, match="malformed"):
        share(tmp_path, **content)
    assert share(tmp_path) == 0.4


def test_times_of_another_run_are_refused(tmp_path):
    with pytest.raises(RunError, match="belongs to another"):
        share(tmp_path, identity={"weights": "f", "latency": 0.6})
