"""Learning that is interrupted and resumed, and its checkpoints."""

from __future__ import annotations

import copy
import json
import signal

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import snnprune
from learner.conftest import Net, loaders
from snnprune.errors import RunError
from snnprune.learner import Checkpoint, Interrupted, PruneConfig, SearchOptions
from snnprune.learner.checkpoint import FORMAT, _write

HELD = {"alternate": 3, "gradient": "held", "ramp": 0.1}


@pytest.mark.parametrize(
    ("stop_at", "options", "granularity"),
    [
        *[(stop_at, {}, "neuron") for stop_at in (3, 7, 9, 14, 25)],
        *[(stop_at, {"hold": 3}, "neuron") for stop_at in (6, 7, 8, 9)],
        *[(stop_at, HELD, "neuron") for stop_at in (8, 10, 11, 12, 13)],
        *[(stop_at, {"hold": 3}, "connection") for stop_at in (7, 8, 9)],
    ],
)
def test_interrupted_and_resumed_is_uninterrupted(trained, tmp_path, stop_at, options, granularity):
    """Bit-equal, with shuffling, augmentation and dropout, in the search and in the recovery."""
    train, val = loaders()
    search = SearchOptions(share=0.4, **options)
    config = PruneConfig(target={"params": 0.4}, epochs=6, search=search, granularity=granularity, seed=3)
    whole = snnprune.optimize(trained, train, val, config)
    steps = 0

    def interrupt(event):
        nonlocal steps

    class Stopping(DataLoader):
        def __iter__(self):
            nonlocal steps
            for batch in super().__iter__():
                steps += 1
                if steps == stop_at:
                    raise KeyboardInterrupt
                yield batch

    stopping = Stopping(train.dataset, batch_size=16, sampler=train.sampler)
    steps = -(10**9)  # the first look at the inputs does not count
    job_began = False

    def begin(event):
        nonlocal steps, job_began
        if event.stage == "trace" and not job_began:
            steps, job_began = -config.search.probe, True

    with pytest.raises(Interrupted):
        snnprune.optimize(trained, stopping, val, config, checkpoint=tmp_path, callbacks=[begin])
    assert (tmp_path / "state.pt").exists()
    resumed = snnprune.optimize(trained, train, val, config, checkpoint=tmp_path, resume=True)
    a, b = whole.model.state_dict(), resumed.model.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert whole.report.groups == resumed.report.groups


@pytest.mark.parametrize("stop_at", [10, 12, 18, 22])
def test_ctrl_c_inside_a_step_waits_for_its_end(trained, tmp_path, stop_at):
    """A real signal, also in the last step of an epoch and of the search; dropout draws on afterwards."""
    train, val = loaders()
    config = PruneConfig(target={"params": 0.4}, epochs=6, search=SearchOptions(share=0.4), seed=3, distill=0.0)
    whole = snnprune.optimize(trained, train, val, config)
    calls = 0

    class Pressing(Net):
        def forward(self, x):
            nonlocal calls
            calls += self.training
            if calls == stop_at and self.training:
                signal.raise_signal(signal.SIGINT)
            return super().forward(x)

    pressing = copy.deepcopy(trained)
    pressing.__class__ = Pressing
    with pytest.raises(Interrupted):
        snnprune.optimize(pressing, train, val, config, checkpoint=tmp_path)
    assert Checkpoint(tmp_path, {"weights": ""}).path.exists()
    calls = 10**6
    resumed = snnprune.optimize(pressing, train, val, config, checkpoint=tmp_path, resume=True)
    a, b = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert whole.report.history == resumed.report.history


def test_checkpoint_of_another_run_is_refused(tmp_path):
    Checkpoint(tmp_path, {"weights": "a"}).save("search", {"step": 1}, {})
    assert Checkpoint(tmp_path, {"weights": "a"}).load()["state"] == {"step": 1}
    with pytest.raises(snnprune.SnnPruneError, match="another"):
        Checkpoint(tmp_path, {"weights": "b"}).load()


def test_a_damaged_checkpoint_never_pushes_out_a_good_one(tmp_path):
    first = Checkpoint(tmp_path, {"weights": "a"})
    first.save("search", {"step": 1}, {})
    first.save("search", {"step": 2}, {})
    first.path.write_bytes(b"cut off")
    second = Checkpoint(tmp_path, {"weights": "a"})
    assert second.load()["state"] == {"step": 1}
    second.save("search", {"step": 3}, {})
    second.path.write_bytes(b"again")
    assert Checkpoint(tmp_path, {"weights": "a"}).load()["state"] == {"step": 1}


GOOD = {
    "format": FORMAT,
    "identity": json.dumps({"weights": "f"}),
    "stage": "recover",
    "state": {"step": 1, "model": {}},
    "rng": {"cpu": torch.get_rng_state()},
}


@pytest.mark.parametrize(
    "change",
    [
        {"identity": None},
        {"stage": "other"},
        {"state": [1]},
        {"state": {}},
        {"state": {"step": "1"}},
        {"state": {"step": -1}},
        {"rng": None},
        {"format": 1},
    ],
)
def test_checkpoints_of_another_form_are_refused(tmp_path, change):
    _write({**GOOD, **change}, tmp_path / "state.pt")
    with pytest.raises(RunError, match="no checkpoint of this version"):
        Checkpoint(tmp_path, {"weights": "f"}).load()
    _write(GOOD, tmp_path / "state.pt")
    assert Checkpoint(tmp_path, {"weights": "f"}).load() is not None


def test_a_checkpoint_is_looked_through_before_it_is_loaded(tmp_path, monkeypatch):
    _write({**GOOD, "more": nn.Linear(2, 2)}, tmp_path / "state.pt")
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("it was loaded"))
    with pytest.raises(RunError, match=r"state\.pt cannot be read: is a pickle that needs torch\.nn"):
        Checkpoint(tmp_path, {"weights": "f"}).load()


@pytest.mark.parametrize("key", ["model", "optimizer", "scales", "rng"])
@pytest.mark.parametrize("value", [None, 3, {"x": 1}])
def test_a_state_that_does_not_fit_is_an_error_of_ours(trained, tmp_path, key, value):
    train, val = loaders()
    config = PruneConfig(target={"params": 0.4}, epochs=2, search=SearchOptions(share=0.5))
    snnprune.optimize(trained, train, val, config, checkpoint=tmp_path)
    content = torch.load(tmp_path / "state.pt", weights_only=True)
    content["state"]["step"] -= 1
    place = {"rng": content, "scales": content["state"]["found"]}.get(key, content["state"])
    place[key] = {} if key == "rng" else value
    _write(content, tmp_path / "state.pt")
    with pytest.raises(RunError, match="is malformed"):
        snnprune.optimize(trained, train, val, config, checkpoint=tmp_path, resume=True)
