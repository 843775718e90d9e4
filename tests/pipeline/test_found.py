"""What a search has found: it is saved and read as a whole, and every field of a checkpoint is looked at."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import DIGITS

import snnprune
from pipeline.conftest import same, stop_at
from snnprune import PruneConfig
from snnprune.errors import RunError
from snnprune.learner import Event
from snnprune.learner.checkpoint import _read, _write
from snnprune.learner.recovering import RecoverStage
from snnprune.pipeline.found import Found
from snnprune.registry import build

COUNT = {"id": "a", "size": 4, "kept": 2, "weakened": 1, "strengthened": 1}
POINT = {"stage": "search", "step": 3, "loss": 0.5}
WHOLE = Found(
    {"a": torch.tensor([0.0, 1.5, 0.5, 0.0])},
    [COUNT],
    {"fold": 1e-16, "remove": 0.0},
    {"a": [1, 2]},
    3,
    ["a.weight"],
    [{**POINT, "val_accuracy": 0.5, "val_loss": 1.0, "counts": {"a": [2, 1, 1]}}],
    [{**POINT, "budget": 0.5, "cost": "macs"}],
)
WRONG = {
    "scales": [None, {1: torch.ones(2)}, {"a": [1.0]}, {"a": torch.ones(2, 2)}, {"a": torch.ones(2).long()},
               {"a": torch.tensor([1.0, float("nan")])}, {"a": torch.tensor([1.0, -1.0])}],
    "counts": [None, {}, [None], [{**COUNT, "id": 3}], [{**COUNT, "kept": 5}], [{**COUNT, "size": 0}],
               [{k: v for k, v in COUNT.items() if k != "weakened"}]],
    "exactness": [None, [], {"fold": "0"}, {"fold": None}, {1: 0.0}],
    "kept": [None, {"a": None}, {"a": [2, 1]}, {"a": [1, 1]}, {"a": [-1]}, {"a": [1.0]}, {2: [1]}],
    "searched": [None, -1, 2.0, True, "3"],
    "sparse": [None, "a", [1]],
    "history": [None, {}, [1], [{"stage": 1, "step": 1}], [{**POINT, "val_accuracy": 2.0}]],
    "curve": [None, "x", [{**POINT, "step": "1"}], [{**POINT, "loss": "low"}]],
}  # fmt: skip


def test_what_is_saved_is_read_as_it_was():
    assert WRONG.keys() == {field.name for field in dataclasses.fields(Found)}
    for found in (WHOLE, Found()):  # as at the end of the search, and inside it
        assert Found.read(found.state()) == found


@pytest.mark.parametrize("name", WRONG)
def test_every_field_is_looked_at_and_named(name):
    good = WHOLE.state()["found"]
    for value in WRONG[name]:
        with pytest.raises(ValueError, match=f"what it says of {name} is not of the form"):
            Found.read({"found": {**good, name: value}})
    with pytest.raises(ValueError, match=name):
        Found.read({"found": {key: value for key, value in good.items() if key != name}})
    for content in (None, [], "x"):
        with pytest.raises(ValueError, match="is not of the form"):
            Found.read({"found": content})


def test_what_is_told_after_the_state_was_taken_is_saved_too():
    found = Found()
    state = found.state()
    found.remember(Event("search", 1, 9, {"loss": 0.5, "budget": 0.9, "cost": "macs", "more": 1}, mark=True))
    found.remember(Event("search", 2, 9, {"loss": 0.4, "val_value": 0.5}))
    found.remember(Event("search", 3, 9, {"loss": 0.3}))
    found.remember(Event("check"))
    assert state["found"]["curve"] == [{"stage": "search", "step": 1, "loss": 0.5, "budget": 0.9, "cost": "macs"}]
    assert state["found"]["history"] == [{"stage": "search", "step": 2, "loss": 0.4, "val_value": 0.5}]


@pytest.mark.parametrize("granularity", ["neuron", "connection"])
def test_a_run_goes_on_from_it_and_reports_it(tmp_path, monkeypatch, granularity):
    torch.manual_seed(0)
    model, (train, val, _) = build(DIGITS), snnprune.load_data("digits", batch_size=128)
    config = PruneConfig(target={"params": 0.6}, granularity=granularity, epochs=1)
    whole = snnprune.optimize(model, train, val, config)
    stop_at(monkeypatch, RecoverStage, 3)
    with pytest.raises(KeyboardInterrupt):
        snnprune.optimize(model, train, val, config, checkpoint=tmp_path)
    content = _read(tmp_path / "state.pt")
    found = Found.read(content["state"])
    assert found.searched == whole.report.steps["search"]
    assert same(found.scales, whole.scales)
    assert (found.counts, found.kept) == (whole.report.groups, whole.details["kept"])
    assert bool(found.sparse) == (granularity == "connection")
    content["state"]["found"]["kept"] = {"features.0": [3, 2]}
    _write(content, tmp_path / "state.pt")
    with pytest.raises(RunError, match=r"is malformed \(ValueError: what it says of kept is not of the form"):
        snnprune.optimize(model, train, val, config, checkpoint=tmp_path, resume=True)
