"""What a run removes and overwrites is its own, whatever lies beside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from torch import nn

import snnprune
from pipeline.conftest import SHORT, optimize, same, stop_at, tree, weights
from snnprune.errors import RunError
from snnprune.learner.recovering import RecoverStage
from snnprune.registry import load_model
from snnprune.runs import places
from snnprune.runs.lock import locked


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")


@pytest.mark.parametrize("name", ["notes.txt", "checkpoint.pt", "data/x.png", ".hidden", "plots/.keep/x"])
@pytest.mark.usefixtures("quick")
def test_a_folder_of_somebody_else_where_a_run_would_work(model, said, name):
    fill(Path("out.partial"), name, "report.html")
    before = tree(Path("out.partial"))
    if name.startswith("plots"):  # a folder that may be a run's: what is in it stays all the same
        assert optimize(model, *SHORT, "--output", "out", "--epochs", "1e-9", "--lr", "-1") == 1
        assert Path("out.partial", name).read_text() == "mine"
        return
    for more in ((), ("--resume",)):
        message = said(optimize(model, *SHORT, "--output", "out", *more))
        assert repr(Path(name).parts[0]) in message
        assert tree(Path("out.partial")) == before
    with pytest.raises(RunError, match="no part of a run"):
        load_and_save(model)
    assert tree(Path("out.partial")) == before


def load_and_save(model: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    train, val, _ = snnprune.load_data("digits")
    config = snnprune.PruneConfig(target={"params": 0.5}, epochs=0.3)
    snnprune.optimize(net, train, val, config).save("out", onnx=False)


@pytest.mark.usefixtures("quick")
def test_what_is_put_beside_an_unfinished_run_outlives_its_failure(model, said, monkeypatch):
    def fails(*_args, **_kwargs):
        fill(Path("out.partial"), "notes.txt", "checkpoint/notes/x")
        raise snnprune.DataError("it fails")

    monkeypatch.setattr(sys.modules["snnprune.pipeline.optimizing"], "Setting", fails)
    said(optimize(model, *SHORT, "--output", "out"))
    assert (
        Path("out.partial/notes.txt").read_text() == Path("out.partial/checkpoint/notes/x").read_text() == "mine"
    )
    assert not Path("out").exists()


@pytest.mark.usefixtures("quick")
def test_a_saved_models_own_checkpoints_are_not_taken_for_a_runs(model, said):
    net = load_model(model, arch=SHORT[3]).model
    snnprune.save(net, "experiment")
    fill(Path("experiment"), "checkpoint/best.pt", "checkpoint/macs-tables/x.csv")
    said(optimize(model, *SHORT, "--output", "experiment", "--resume"))
    assert Path("experiment/checkpoint/best.pt").read_text() == "mine"
    assert Path("experiment/checkpoint/macs-tables/x.csv").read_text() == "mine"


def test_only_a_runs_own_checkpoints_are_removed(tmp_path):
    place = tmp_path / "checkpoint"
    ours = ["state.pt", "state.previous.pt", "trials.json", "latency.json", ".state.pt.x.tmp", "macs-0.5/state.pt"]
    fill(place, *ours, "macs-0.25/notes.txt")
    (tmp_path / "elsewhere").mkdir()
    fill(tmp_path / "elsewhere", "state.pt")
    (place / "params-0.5").symlink_to(tmp_path / "elsewhere")
    places.remove_checkpoint(place)
    assert {p.name for p in place.iterdir()} == {"macs-0.25", "params-0.5"}
    assert (tmp_path / "elsewhere/state.pt").read_text() == "mine"
    (place / "params-0.5").unlink()
    (place / "macs-0.25/notes.txt").unlink()
    places.remove_checkpoint(place)
    assert not place.exists()
    linked = tmp_path / "linked"
    linked.symlink_to(tmp_path / "elsewhere")
    places.remove_checkpoint(linked)
    assert (tmp_path / "elsewhere/state.pt").exists()


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_a_lock_that_is_somebodys_file(tmp_path, kind):
    lock, target = tmp_path / "run.lock", tmp_path / "precious"
    target.write_text("mine")
    if kind == "file":
        lock.write_text("mine")
    else:
        lock.symlink_to(target if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"run\.lock"), locked(tmp_path / "run"):
        pass
    assert target.read_text() == "mine"
    assert lock.is_symlink() or lock.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("text", ["", "process 12 on here"])
def test_a_lock_that_a_killed_run_has_left(tmp_path, text):
    (tmp_path / "run.lock").write_text(text)
    with locked(tmp_path / "run"):
        assert (tmp_path / "run.lock").read_text().startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / "run.lock").exists()


@pytest.mark.usefixtures("quick")
def test_what_a_killed_run_has_left_is_no_obstacle(made, model):
    fill(Path("out.partial"), ".report.json.x.tmp", "checkpoint.lock", "tensorboard/x")
    Path("out.partial/checkpoint.lock").write_text("process 12 on here")
    Path("out.partial.lock").write_text("process 12 on here")
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))
    assert not list(Path().glob("**/*.lock"))


@pytest.mark.parametrize("output", [".", "..", "a/..", ""])
@pytest.mark.usefixtures("quick")
def test_an_output_without_a_name(model, said, output):
    before = tree(Path())
    message = said(optimize(model, *SHORT, "--output", output))
    assert "--output" in message
    assert tree(Path()) == before


@pytest.mark.parametrize("kind", ["file", "link"])
@pytest.mark.usefixtures("quick")
def test_where_a_run_would_work_is_no_folder(model, said, kind):
    Path("elsewhere").mkdir()
    if kind == "file":
        Path("out.partial").write_text("mine")
    else:
        Path("out.partial").symlink_to("elsewhere")
    message = said(optimize(model, *SHORT, "--output", "out"))
    assert ("out.partial is in the way" if kind == "file" else "out.partial is a symbolic link") in message
    Path("gone").symlink_to("nowhere")
    assert "leads nowhere" in said(optimize(model, *SHORT, "--output", "gone"))
    assert not list(Path("elsewhere").iterdir())


def test_weights_of_another_kind_are_not_replaced(tmp_path):
    folder = tmp_path / "somebodys"
    fill(folder, "model.safetensors")
    with pytest.raises(RunError, match="not replaced"):
        snnprune.save(nn.Linear(2, 2), folder)
    assert (folder / "model.safetensors").read_text() == "mine"
    snnprune.save(nn.Linear(2, 2), tmp_path / "ours")
    snnprune.save(nn.Linear(3, 2), tmp_path / "ours")
    assert snnprune.load(tmp_path / "ours", model=nn.Linear(3, 2)).in_features == 3


@pytest.mark.usefixtures("quick")
def test_a_finished_run_keeps_nothing_of_its_checkpoints(made, model, said, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 3)
        said(optimize(model, *SHORT, "--output", "out", "--tensorboard"), 130)
    assert optimize(model, *SHORT, "--output", "out", "--tensorboard", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))
    assert not Path("out/checkpoint").exists()
    assert not Path("out.partial").exists()
