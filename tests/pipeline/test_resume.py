"""A run that is stopped goes on as if nothing had been, or leaves nothing."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from digits_cnn import digits_cnn
from torch import nn
from torch._inductor.exc import InvalidCxxCompiler

import snnprune
from pipeline.conftest import MADE, SEARCH, SHORT, names, optimize, same, stop_at, tree, weights
from snnprune.errors import ExportError
from snnprune.learner import PruneConfig
from snnprune.learner.loss import TaskLoss
from snnprune.learner.recovering import RecoverStage
from snnprune.learner.searching import SearchStage
from snnprune.runs.folder import newest_run


def dropout_net() -> nn.Module:
    """Draws random numbers in every step."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 10)
    )


@pytest.mark.parametrize(
    ("stage", "call"),
    [
        (SearchStage, 1),
        (SearchStage, SEARCH),
        (RecoverStage, 1),
        (RecoverStage, 5),
        (RecoverStage, 12),
    ],
    ids=["search-first", "search-last", "recovery-first", "recovery-inside", "recovery-second-epoch"],
)
@pytest.mark.usefixtures("quick")
def test_a_stopped_run_goes_on_as_if_nothing_had_been(made, model, said, monkeypatch, stage, call):
    with monkeypatch.context() as patch:
        stop_at(patch, stage, call)
        message = said(optimize(model, *SHORT, "--output", "out"), 130)
    assert "--output out --resume" in message
    assert Path("out.partial/checkpoint/state.pt").is_file()
    assert not Path("out").exists()
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))
    assert names(Path("out")) == MADE
    assert not Path("out.partial").exists()
    first, second = (json.loads((f / "report.json").read_text()) for f in (made / "run", Path("out")))
    for key in set(first) - {"seconds", "command", "date"}:
        assert first[key] == second[key], key


@pytest.mark.parametrize(("stage", "call"), [(SearchStage, 2), (RecoverStage, 5)])
@pytest.mark.usefixtures("quick")
def test_the_random_numbers_of_dropout_go_on_too(here, said, monkeypatch, stage, call):
    torch.manual_seed(0)
    torch.save(dropout_net().state_dict(), here / "net.pt")
    options = ["--data", "digits", "--arch", f"{__file__}:dropout_net", "--device", "cpu", "--epochs", "4"]
    assert optimize("net.pt", *options, "--output", "whole") == 0
    with monkeypatch.context() as patch:
        stop_at(patch, stage, call)
        said(optimize("net.pt", *options, "--output", "out"), 130)
    assert optimize("net.pt", *options, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(Path("whole")))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.usefixtures("quick")
def test_ctrl_c_in_the_middle_of_a_step_does_not_count_half_a_step(made, model, said, monkeypatch, when):
    """A real signal around the loss of the 8th step; after it, batch norm has already seen the batch."""
    original, count = TaskLoss.__call__, [0]

    def loss(self, model, batch):
        count[0] += 1
        if count[0] == 8 and when == "before":
            signal.raise_signal(signal.SIGINT)
        value = original(self, model, batch)
        if count[0] == 8 and when == "after":
            signal.raise_signal(signal.SIGINT)
        return value

    with monkeypatch.context() as patch:
        patch.setattr(TaskLoss, "__call__", loss)
        said(optimize(model, *SHORT, "--output", "out"), 130)
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("quick")
def test_a_step_that_fails_of_a_signal_is_no_failure(made, model, said, monkeypatch, number, code):
    """A compiler in another process hears the signal first, and the step that waits for it fails."""
    step, count = RecoverStage.train_step, [0]

    def failing(self, batch):
        count[0] += 1
        if count[0] == 5:
            signal.raise_signal(number)
            raise OSError("the compiler was interrupted")
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(RecoverStage, "train_step", failing)
        message = said(optimize(model, *SHORT, "--output", "out"), code)
    assert "--resume" in message
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))


@pytest.mark.usefixtures("quick")
def test_a_compiler_that_fails_late_costs_nothing(made, model, said, monkeypatch):
    def teacher_alone(network):
        def call(*_args):
            raise InvalidCxxCompiler

        teachers.append(network)
        return network if len(teachers) == 1 else call

    teachers = []
    command = [*SHORT, "--output", "out"]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", teacher_alone)
        message = said(optimize(model, *command, "--compile"), 1)
    assert "leave out compile" in message
    assert optimize(model, *command, "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))


@pytest.mark.usefixtures("quick")
def test_the_history_of_a_run_that_was_stopped_in_the_search_is_whole(model, said, monkeypatch):
    assert PruneConfig().search.least >= 5
    epochs = 50 / 3  # 3 steps an epoch, 5 of search: a tenth
    options = [*SHORT, "--epochs", str(epochs), "--batch-size", "20", "--limit", "60"]
    with monkeypatch.context() as patch:
        stop_at(patch, SearchStage, 4)
        said(optimize(model, *options, "--output", "out"), 130)
    assert optimize(model, *options, "--output", "out", "--resume") == 0
    history = json.loads(Path("out/report.json").read_text())["history"]
    assert [(h["stage"], h["step"]) for h in history][:3] == [("search", 3), ("search", 5), ("recover", 3)]


@pytest.mark.usefixtures("quick")
def test_a_run_can_be_stopped_twice(made, model, said, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, SearchStage, 2)
        said(optimize(model, *SHORT, "--output", "out"), 130)
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 7)
        said(optimize(model, *SHORT, "--output", "out", "--resume"), 130)
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))


@pytest.mark.usefixtures("quick")
def test_resume_finds_the_stopped_run_by_the_models_name(made, model, said, monkeypatch):
    assert "no unfinished run of digits" in said(optimize(model, *SHORT, "--resume"))
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 2)
        said(optimize(model, *SHORT), 130)
    (partial,) = Path("runs").iterdir()
    assert optimize(model, *SHORT, "--resume") == 0
    assert [p.name for p in Path("runs").iterdir()] == [partial.name.removesuffix(".partial")]
    assert same(weights(newest_run()), weights(made / "run"))


def test_ctrl_c_before_the_first_step_leaves_nothing(model, said, here, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("snnprune.pipeline.setting.trace", interrupt)
    before = tree(here)
    assert said(optimize(model, *SHORT, "--output", "out"), 130) == "stopped"
    assert tree(here) == before
    assert not Path("out.partial").exists()


@pytest.mark.parametrize("by", [KeyboardInterrupt(), ExportError("the disk is full")], ids=["ctrl-c", "failure"])
def test_an_end_in_the_export_keeps_what_was_learned(made, model, said, capsys, monkeypatch, by):
    def stop(*args, **kwargs):
        raise by

    with monkeypatch.context() as patch:
        patch.setattr("snnprune.runs.folder.export_onnx", stop)
        code = optimize(model, *SHORT, "--output", "out")
    assert code == (130 if isinstance(by, KeyboardInterrupt) else 1)
    captured = capsys.readouterr()
    assert "--output out --resume" in captured.out + captured.err
    assert not Path("out").exists()
    with monkeypatch.context() as patch:
        patch.setattr(RecoverStage, "train_step", lambda *_: pytest.fail("it was learned already"))
        assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert names(Path("out")) == MADE
    assert same(weights(Path("out")), weights(made / "run"))


def test_a_failure_before_the_first_checkpoint_leaves_nothing(model, said, here, monkeypatch):
    before = tree(here)
    stop_at(monkeypatch, SearchStage, 2, by=RuntimeError("the disk is on fire"))
    assert "the disk is on fire" in said(optimize(model, *SHORT, "--output", "out"))
    assert tree(here) == before
    assert not Path("out.partial").exists()


@pytest.mark.usefixtures("quick")
def test_a_failure_in_the_middle_keeps_the_last_checkpoint(made, model, said, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 6, by=RuntimeError("the disk is on fire"))
        code = optimize(model, *SHORT, "--output", "out")
    captured = capsys.readouterr()
    assert code == 1
    assert "the disk is on fire" in captured.err
    assert "--output out --resume" in captured.out
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))


def test_learning_that_diverges_says_what_to_do_and_leaves_nothing(model, said, here):
    before = tree(here)
    message = said(optimize(model, *SHORT, "--lr", "1e30", "--output", "out"))
    assert "--lr" in message
    assert tree(here) == before
    assert not Path("out.partial").exists()


def test_seconds_of_a_run_that_was_gone_on_with_add_up(model, quick, monkeypatch, said):
    from snnprune.learner.checkpoint import _read, _write

    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 3)
        said(optimize(model, *SHORT, "--output", "out"), 130)
    path = Path("out.partial/checkpoint/state.pt")
    content = _read(path)
    assert 0 < content["seconds"] < 600
    _write({**content, "seconds": 5000.0}, path)
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert 5000 <= json.loads(Path("out/report.json").read_text())["seconds"] < 5600


@pytest.mark.parametrize("what", ["val_accuracy", "mark"])
def test_ctrl_c_in_a_callback_loses_no_record(what):
    """The callback is told of an end of an epoch, or of a marked step, and stops the run right then."""
    model, (train, val, _) = digits_cnn().eval(), snnprune.load_data("digits", batch_size=128)
    config = PruneConfig(target={"params": 0.5}, epochs=3)

    def stop(event):
        if event.stage == "recover" and (event.mark if what == "mark" else what in (event.values or {})):
            raise KeyboardInterrupt

    whole = snnprune.optimize(model, train, val, config).report
    with pytest.raises(KeyboardInterrupt):
        snnprune.optimize(model, train, val, config, checkpoint="state", callbacks=[stop])
    again = snnprune.optimize(model, train, val, config, checkpoint="state", resume=True).report
    assert again.history == whole.history
    assert again.curve == whole.curve


def test_tensorboard_is_closed_by_ctrl_c(model, quick, monkeypatch, said):
    pytest.importorskip("tensorboard")
    closed = []
    monkeypatch.setattr("snnprune.learner.tensorboard.TensorBoard.close", lambda self: closed.append(self))
    stop_at(monkeypatch, RecoverStage, 5)
    said(optimize(model, *SHORT, "--output", "out", "--tensorboard"), 130)
    assert len(closed) == 1
