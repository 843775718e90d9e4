"""A full disk costs at most what was learned since the last checkpoint."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

import pytest
import torch

from pipeline.conftest import MADE, SHORT, names, optimize, same, weights
from snnprune.errors import RunError
from snnprune.files import write_json
from snnprune.learner import Checkpoint, loop
from snnprune.learner.recovering import RecoverStage
from snnprune.runs.report import Report
from snnprune.runs.saving import write_tensors

resource = pytest.importorskip("resource")


@contextlib.contextmanager
def full(size: int = 500):
    """No file may grow beyond so many bytes, as the system sees it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fails_at(monkeypatch, owner, name: str, call: int) -> None:
    """The disk is full during the n-th call."""
    original, count = getattr(owner, name), [0]

    def patched(*args, **kwargs):
        count[0] += 1
        with full() if count[0] == call else contextlib.nullcontext():
            return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, patched)


@pytest.mark.parametrize("call", [2, 7])
@pytest.mark.usefixtures("quick")
def test_a_full_disk_at_a_checkpoint_keeps_the_one_before(made, model, said, monkeypatch, call):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
        fails_at(patch, Checkpoint, "save", call)
        message = said(optimize(model, *SHORT, "--output", "out"))
    assert "out.partial/checkpoint/state.pt cannot be written (File too large)" in message
    assert "go on with --resume" in message
    kept = {"state.pt"} if call == 2 else {"state.pt", "state.previous.pt"}
    assert names(Path("out.partial/checkpoint")) == kept
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))
    assert names(Path("out")) == MADE


def test_a_disk_that_is_full_from_the_start(model, said, monkeypatch, here):
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    fails_at(monkeypatch, Checkpoint, "save", 1)
    message = said(optimize(model, *SHORT, "--output", "out"))
    assert "cannot be written (File too large)" in message
    assert "--resume" not in message
    assert names(here) == {"digits.pt"}


@pytest.mark.parametrize(("owner", "name"), [("snnprune.runs.saving", "write_tensors"), (Report, "to_json")])
@pytest.mark.usefixtures("quick")
def test_a_full_disk_at_the_end_keeps_what_was_learned(made, model, capsys, monkeypatch, owner, name):
    with monkeypatch.context() as patch:
        fails_at(patch, __import__(owner, fromlist=["_"]) if isinstance(owner, str) else owner, name, 1)
        code = optimize(model, *SHORT, "--output", "out")
    captured = capsys.readouterr()
    assert code == 1
    assert "cannot be written" in captured.err
    assert "File too large" in captured.err
    (line,) = re.findall(
        r"^what was learned is kept\. Go on with: (snnprune optimize .*)$", captured.out, re.MULTILINE
    )
    assert line.endswith("--output out --resume")
    with monkeypatch.context() as patch:
        patch.setattr(RecoverStage, "train_step", lambda *_: pytest.fail("it was learned already"))
        assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))
    assert names(Path("out")) == MADE


def test_the_cause_is_told_and_no_half_file_stays(tmp_path):
    big = {"weights": torch.zeros(4000)}
    store = Checkpoint(tmp_path, {"weights": "a"})
    for write in (
        lambda: store.save("search", big, {}),
        lambda: write_tensors(tmp_path / "model.safetensors", big),
        lambda: write_json(tmp_path / "report.json", list(range(4000))),
    ):
        with full(), pytest.raises(RunError, match=r"cannot be written \(.*File too large"):
            write()
        assert not names(tmp_path)


def test_a_disk_that_reports_late_that_it_is_full(tmp_path, monkeypatch):
    """As over a network: only when the data are asked to be on the disk."""

    def late(_handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = Checkpoint(tmp_path, {"weights": "a"})
    store.save("search", {"step": 1}, {})
    with monkeypatch.context() as patch:
        patch.setattr("snnprune.files.os.fsync", late)
        with pytest.raises(RunError, match="No space left on device"):
            store.save("search", {"step": 2}, {})
    assert names(tmp_path) == {"state.pt"}
    assert Checkpoint(tmp_path, {"weights": "a"}).load()["state"] == {"step": 1}


def test_a_failure_between_the_two_renames_keeps_the_one_before(tmp_path, monkeypatch):
    store = Checkpoint(tmp_path, {"weights": "a"})
    store.save("search", {"step": 1}, {})
    original = os.replace

    def replace(source, target):
        if Path(target).name == "state.pt":
            raise OSError(errno.EIO, "Input/output error")
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", replace)
        with pytest.raises(RunError, match="The checkpoint before it is kept"):
            store.save("search", {"step": 2}, {})
    assert Checkpoint(tmp_path, {"weights": "a"}).load()["state"] == {"step": 1}
    store.save("search", {"step": 3}, {})
    assert Checkpoint(tmp_path, {"weights": "a"}).load()["state"] == {"step": 3}
