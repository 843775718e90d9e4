"""What schedulers, loaders and clocks do to a run."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import DIGITS

import snnprune
import snnprune.cli.session as command
from pipeline.conftest import MADE, PAGE, SHORT, names, optimize, same, stop_at, tree, weights
from snnprune.learner import Checkpoint, loop
from snnprune.learner.recovering import RecoverStage
from snnprune.learner.searching import SearchStage
from snnprune.pipeline import drop
from snnprune.registry import build
from snnprune.runs.folder import newest_run

LOADERS = """
import os, signal
import torch
from torch.utils.data import DataLoader, Dataset
import snnprune

class Images(Dataset):
    def __init__(self, loader):
        self.images, self.labels = (torch.cat(field) for field in zip(*loader))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        fault = os.environ.get("FAULT")
        if index == 600 and os.path.exists("out.partial/checkpoint/state.previous.pt"):
            if fault == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "raises":
                raise LookupError("image 600 is gone")
        return self.images[index], self.labels[index]

def loaders():
    train, val, test = snnprune.load_data("digits", augment=False)
    workers = {"num_workers": 1, "multiprocessing_context": "fork"} if os.environ.get("FAULT") == "dies" else {}
    return DataLoader(Images(train), batch_size=128, **workers), val, test
"""
OFTEN = """
import sys
from snnprune.cli import main
from snnprune.learner import loop

loop._CHECKPOINT_SECONDS = 0.0
main(sys.argv[1:])
"""
OWN = ["--data", "mine.py:loaders", "--arch", DIGITS, "--epochs", "3", "--device", "cpu", "--target", "macs=0.4"]


@pytest.fixture(autouse=True)
def sigterm():
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) is before, "the handler was not put back"


def raised(monkeypatch, owner, name: str, call: int) -> None:
    """SIGTERM comes in the n-th call."""
    original, count = getattr(owner, name), [0]

    def patched(*args, **kwargs):
        count[0] += 1
        if count[0] == call:
            signal.raise_signal(signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, patched)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (SearchStage, "train_step", 2),
        (RecoverStage, "train_step", 6),
        (RecoverStage, "after_epoch", 1),
        (Checkpoint, "save", 2),
        (snnprune.Result, "save", 1),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@pytest.mark.usefixtures("quick")
def test_sigterm_stops_with_a_checkpoint(made, model, said, monkeypatch, owner, name, call):
    with monkeypatch.context() as patch:
        raised(patch, owner, name, call)
        message = said(optimize(model, *SHORT, "--output", "out"), 143)
    assert "--output out --resume" in message
    assert Path("out.partial/checkpoint/state.pt").is_file()
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))
    first, second = (json.loads((f / "report.json").read_text()) for f in (made / "run", Path("out")))
    assert first["history"] == second["history"]


def test_a_second_sigterm_does_not_cost_the_checkpoint(model, said, monkeypatch):
    raised(monkeypatch, RecoverStage, "after_epoch", 1)
    raised(monkeypatch, Checkpoint, "save", 2)  # the first one is of the end of the search
    said(optimize(model, *SHORT, "--output", "out"), 143)
    assert torch.load("out.partial/checkpoint/state.pt")["stage"] == "recover"


def test_sigterm_before_the_first_step_leaves_nothing(model, said, here, monkeypatch):
    before = tree(here)
    raised(monkeypatch, snnprune.pipeline.setting, "trace", 1)
    assert said(optimize(model, *SHORT, "--output", "out"), 143) == "stopped"
    assert tree(here) == before


@pytest.mark.usefixtures("quick")
def test_a_loader_that_fails_in_an_epoch(model, said, capsys, monkeypatch, here):
    (here / "mine.py").write_text(LOADERS)
    assert optimize(model, *OWN, "--output", "whole") == 0
    monkeypatch.setenv("FAULT", "raises")
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    message = said(optimize(model, *OWN, "--output", "out"))
    assert "LookupError: image 600 is gone" in message
    assert torch.load("out.partial/checkpoint/state.pt")["state"]["step"] > 0
    monkeypatch.delenv("FAULT")
    assert optimize(model, *OWN, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(Path("whole")))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="PyTorch watches its workers by SIGCHLD")
def test_a_worker_of_a_loader_that_is_killed(made, model, here):
    """As when memory runs out. In a process of its own: PyTorch's handler of SIGCHLD may raise anywhere."""
    (here / "mine.py").write_text(LOADERS)
    (here / "often.py").write_text(OFTEN)
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "FAULT": "dies"}
    done = subprocess.run(
        [sys.executable, "often.py", "optimize", model, *OWN, "--output", "out"],
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("error: a worker process of the training loader has ended"), done.stderr
    assert "num_workers" in done.stderr
    assert "Traceback" not in done.stderr.partition("Exception ignored")[0]
    assert "--output out --resume" in done.stdout
    assert torch.load("out.partial/checkpoint/state.pt")["state"]["step"] > 0


class Frozen(datetime.datetime):
    """A clock that was put back to one moment."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 1, 12, 0, 0)


@pytest.mark.usefixtures("quick")
def test_runs_of_one_second_get_names_of_their_own(model, monkeypatch):
    monkeypatch.setattr(command.datetime, "datetime", Frozen)
    for _ in range(2):
        assert optimize(model, *SHORT) == 0
    Path("runs/digits-20260101-120000-3.partial").mkdir()
    assert optimize(model, *SHORT) == 0
    numbers = ("", "-2", "-3.partial", "-4")
    assert names(Path("runs")) == {f"digits-20260101-120000{n}" for n in numbers}
    assert newest_run().name == "digits-20260101-120000-4"


@pytest.mark.usefixtures("quick")
def test_the_newest_run_is_the_last_one_written_also_after_the_clock_went_back(model, finished):
    os.utime(finished / "report.json", (4e9, 4e9))  # in the year 2096
    assert optimize(model, *SHORT, "--output", "runs/next") == 0
    assert newest_run() == Path("runs/next")


@pytest.mark.usefixtures("quick")
def test_a_damaged_checkpoint_is_told_on_the_screen(made, model, said, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
        stop_at(patch, RecoverStage, 6)
        said(optimize(model, *SHORT, "--output", "out"), 130)
    newest = Path("out.partial/checkpoint/state.pt")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes(content)
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    captured = capsys.readouterr()
    assert "warning: out.partial/checkpoint/state.pt cannot be read (ValueError: its checksum" in captured.out
    assert captured.err == ""
    assert same(weights(Path("out")), weights(made / "run"))


def test_a_kill_while_known_trials_are_repeated_loses_none_of_them(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model, (train, val, _) = build(DIGITS), snnprune.load_data("digits", augment=False)
    config = snnprune.PruneConfig(target={"drop": 0.9}, epochs=0.3, trials=3)
    snnprune.optimize(model, train, val, config, checkpoint=tmp_path)
    shutil.copytree(tmp_path, tmp_path.with_name("before"))
    monkeypatch.setattr(drop.DropSearch, "_try", lambda *_: pytest.fail("it is known already"))
    told = []

    def kill(event):
        told.append(event)
        if event.stage == "trial" and event.step == 2:
            raise SystemError("as a kill")

    with pytest.raises(SystemError):
        snnprune.optimize(model, train, val, config, checkpoint=tmp_path, resume=True, callbacks=[kill])
    assert tree(tmp_path) == tree(tmp_path.with_name("before"))
    assert snnprune.optimize(model, train, val, config, checkpoint=tmp_path, resume=True).report.trials is not None
    assert told


def test_a_finished_run_is_said_to_be_finished(finished, model, said):
    before = tree(finished)
    (finished / "checkpoint").mkdir()
    (finished / "checkpoint" / "state.pt").write_bytes(b"left by a kill")
    message = said(optimize(model, *SHORT, "--output", "runs/digits", "--resume"))
    assert "runs/digits is finished already" in message
    assert tree(finished) == before
    assert names(finished) == MADE | PAGE
