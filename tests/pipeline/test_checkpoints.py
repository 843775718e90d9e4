"""The checkpoint of a stopped run: damaged, of something else, or in the way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import DIGITS, Explosive

from pipeline.conftest import SHORT, names, optimize, same, stop_at, tree, weights
from snnprune.learner import loop
from snnprune.learner.recovering import RecoverStage
from snnprune.registry import build


@pytest.fixture
def stopped(model, here, monkeypatch, said) -> Path:
    """A run stopped in the recovery, with a checkpoint after every step."""
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
        stop_at(patch, RecoverStage, 6)
        said(optimize(model, *SHORT, "--output", "out"), 130)
    return here / "out.partial" / "checkpoint"


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "gone"])
@pytest.mark.usefixtures("quick")
def test_a_damaged_checkpoint_falls_back_to_the_one_before(made, model, stopped, damage):
    assert names(stopped) == {"state.pt", "state.previous.pt"}
    newest = stopped / "state.pt"
    data = newest.read_bytes()
    if damage == "gone":
        newest.unlink()
    else:
        newest.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "garbage": b"?" * 1000}[damage])
    steps = []
    original = RecoverStage.load

    def load(self, state):
        original(self, state)
        steps.append(self.step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecoverStage, "load", load)
        assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert steps in ([5], [6]), "from the state before, not from the beginning"
    assert same(weights(Path("out")), weights(made / "run"))


def test_checkpoints_that_are_all_damaged_are_refused_and_stay(model, stopped, said, here):
    for file in stopped.iterdir():
        file.write_bytes(b"?" * 1000)
    before = tree(here)
    message = said(optimize(model, *SHORT, "--output", "out", "--resume"))
    assert "state.previous.pt" in message
    assert "cannot be read" in message
    assert tree(here) == before


def test_a_checkpoint_does_not_run_code(model, stopped, said, here):
    for file in stopped.iterdir():
        torch.save(Explosive(), file)
    assert "cannot be read" in said(optimize(model, *SHORT, "--output", "out", "--resume"))
    assert not (here / "ran").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--lr", "0.01"],
        ["--seed", "1"],
        ["--target", "macs=0.5"],
        ["--batch-size", "64"],
        ["--keep", "features.0"],
        ["--mean", "0.1", "--std", "0.9"],
    ],
    ids=lambda options: options[0],
)
def test_a_checkpoint_of_other_options_is_refused_and_stays(model, stopped, said, here, options):
    before = tree(here)
    message = said(optimize(model, *SHORT, *options, "--output", "out", "--resume"))
    assert "belongs to another model, data set or options" in message
    assert "out.partial/checkpoint/state.pt" in message
    named = {
        "--lr": "(lr was 0.05, now 0.01)",
        "--seed": "(seed was 0, now 1; training data: ",
        "--keep": "(keep was [], now ['f",
        "--batch-size": "training data: batch size was 128, now 64",
        "--mean": "training data: description has changed",
    }
    assert named.get(options[0], "") in message
    assert tree(here) == before


def test_a_checkpoint_of_another_model_is_refused(stopped, said):
    torch.manual_seed(1)
    torch.save(build(DIGITS).state_dict(), "other.pt")
    message = said(optimize("other.pt", *SHORT, "--output", "out", "--resume"))
    assert "belongs to another model" in message


def test_an_unfinished_run_is_not_overwritten(model, stopped, said, here):
    before = tree(here)
    message = said(optimize(model, *SHORT, "--output", "out"))
    assert "out.partial holds an unfinished run" in message
    assert "--resume" in message
    assert tree(here) == before
