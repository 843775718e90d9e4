"""One run at a time in a folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from conftest import DIGITS

import snnprune
from pipeline.conftest import SHORT, names, optimize, same, stop_at, tree, weights
from snnprune import PruneConfig
from snnprune.errors import RunError
from snnprune.learner.recovering import RecoverStage
from snnprune.registry import build
from snnprune.runs import lock
from snnprune.runs.lock import locked


def test_a_second_run_into_the_same_folder_is_refused(model, said, here):
    with locked(Path("out.partial")):
        before = tree(here)
        message = said(optimize(model, *SHORT, "--output", "out"))
        assert f"out.partial is in use by another run (process {os.getpid()} on " in message
        assert "--output" in message
        assert tree(here) == before
    assert names(here) == {"digits.pt"}


@pytest.mark.usefixtures("quick")
def test_a_second_resume_is_refused_and_harms_nothing(made, model, said, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 6)
        said(optimize(model, *SHORT, "--output", "out"), 130)
    codes = []
    original = RecoverStage.train_step

    def train_step(self, batch):
        if not codes:
            codes.append(optimize(model, *SHORT, "--output", "out", "--resume"))
        return original(self, batch)

    monkeypatch.setattr(RecoverStage, "train_step", train_step)
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert codes == [1]
    assert same(weights(Path("out")), weights(made / "run"))
    assert names(Path()) == {"digits.pt", "out"}


def test_from_python_too(here):
    torch.manual_seed(0)
    model, (train, val, _) = build(DIGITS), snnprune.load_data("digits", augment=False)
    refused = []

    def again(event):
        if event.stage == "trace":
            with pytest.raises(RunError, match="kept is in use by another run"):
                snnprune.optimize(model, train, val, PruneConfig(epochs=0.3), checkpoint="kept")
            refused.append(event)

    snnprune.optimize(model, train, val, PruneConfig(epochs=0.3), checkpoint="kept", callbacks=[again])
    assert len(refused) == 1
    assert names(here) == {"kept"}


def test_a_run_that_ended_while_the_second_one_waited_is_not_overwritten(model, said, monkeypatch):
    original = lock._take

    def take(path, folder):
        Path("out").mkdir()
        return original(path, folder)

    monkeypatch.setattr(lock, "_take", take)
    assert "out has been written meanwhile" in said(optimize(model, *SHORT, "--output", "out"))
    assert names(Path()) == {"digits.pt", "out"}


def test_a_lock_is_of_the_file_that_others_see(here, monkeypatch):
    """The holder before may remove its file between our opening and locking it."""
    original, calls = lock._lock, []

    def late(handle):
        if not calls:
            Path("run.lock").unlink()
        calls.append(handle)
        original(handle)

    monkeypatch.setattr(lock, "_lock", late)
    with locked(Path("run")):
        assert len(calls) == 2
        with pytest.raises(RunError, match="in use"), locked(Path("run")):
            pass
    assert not names(here)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_worker_that_outlives_a_killed_run_holds_no_lock(here):
    handle = lock._take(Path("run.lock"), Path("run"))
    read, write = os.pipe()
    ready, begun = os.pipe()
    child = os.fork()
    if not child:  # until the other end closes
        os.close(write)
        os.write(begun, b"1")
        os.read(read, 1)
        os._exit(0)
    try:
        os.read(ready, 1)
        lock._held.discard(handle)
        os.close(handle)  # all that is left of a process that is killed
        with locked(Path("run")):
            pass
    finally:
        os.close(write)
        os.waitpid(child, 0)
        for end in (read, ready, begun):
            os.close(end)


def test_a_file_system_without_locks_is_a_warning(here, monkeypatch, caplog):
    def unable(handle):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", unable)
    with caplog.at_level("WARNING"), locked(Path("run")):
        pass
    assert "run.lock cannot be locked (No locks available)" in caplog.text


def test_folders_made_for_the_lock_alone_go_with_it(here):
    with locked(Path("a/b/run")):
        assert Path("a/b/run.lock").is_file()
    assert not names(here)


@pytest.mark.parametrize("trouble", ["a file", "read-only"])
def test_a_place_that_cannot_be_written_fails_before_any_work(here, monkeypatch, trouble):
    model, (train, val, _) = build(DIGITS), snnprune.load_data("digits", augment=False)
    place, seen = here / "file" / "kept", []
    if trouble == "a file":
        (here / "file").write_text("")
    else:

        def opened(*_args):
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr("snnprune.runs.lock.os.open", opened)
    with pytest.raises(RunError, match=r"kept\.lock cannot be written"):
        snnprune.optimize(model, train, val, PruneConfig(epochs=0.3), checkpoint=place, callbacks=[seen.append])
    assert not seen


def test_a_read_only_folder_is_refused_by_the_command(model, said, monkeypatch):
    Path("closed").mkdir(mode=0o555)
    if os.access("closed", os.W_OK):  # root may write anywhere
        allowed = os.access
        monkeypatch.setattr(os, "access", lambda p, mode: Path(p).name != "closed" and allowed(p, mode))
    assert "closed/out cannot be written" in said(optimize(model, *SHORT, "--output", "closed/out"))
    assert not names(Path("closed"))
