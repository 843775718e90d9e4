"""Where the result goes: never over something else."""

from __future__ import annotations

from pathlib import Path

import torch

from cli.conftest import ARCH, command
from snnprune.cli import show
from snnprune.cli.main import run
from snnprune.learner import Event
from snnprune.report import ModelFigures, Report


def test_an_output_folder_that_exists(refused):
    Path("out").mkdir()
    refused(*command("digits.pt", "digits", *ARCH, "--output", "out"), says=("out exists already", "--output"))
    Path("file").touch()
    refused(*command("digits.pt", "digits", *ARCH, "--output", "file"), says="file exists already")
    refused(*command("absent.pt", "absent", "--output", "out"), says="out exists already")  # before all else


def test_an_output_folder_that_cannot_be_made(refused):
    refused(
        *command("digits.pt", "digits", *ARCH, "--output", "digits.pt/out"),
        says=("digits.pt/out cannot be written", "--output"),
    )


def test_a_stopped_run_is_not_overwritten(refused):
    Path("out.partial/checkpoint").mkdir(parents=True)
    Path("out.partial/checkpoint/state.pt").write_bytes(b"?")
    refused(
        *command("digits.pt", "digits", *ARCH, "--output", "out"),
        says=("out.partial holds an unfinished run", "--resume"),
    )


def test_nothing_to_resume(refused):
    refused(*command("digits.pt", "digits", *ARCH, "--resume"), says="no unfinished run of digits")


HOSTILE = "a\x1b]0;owned\x07\x1b[2J\u202e\ud800[red]b"
SHOWN = "a?]0;owned?[2J??[red]b"  # rich leaves the bell out by itself


def test_names_from_files_cannot_steer_the_terminal(capsys, monkeypatch):
    report = Report(
        ModelFigures(0.9, 0.2, 200, 100),
        ModelFigures(0.9, 0.2, 100, 50),
        groups=[{"id": HOSTILE, "size": 4, "kept": 2, "weakened": 1, "strengthened": 1}],
        exactness={"fold": 0.0},
        target={HOSTILE: 0.5},
        seed=0,
        data=HOSTILE,
        split="test",
        seconds=1.0,
        device="cpu",
        kept_whole=[{"id": HOSTILE, "reason": HOSTILE}],
    )
    report.to_json("r/report.json")
    Path("r/model.safetensors").touch()
    monkeypatch.setattr(show.console, "_width", 300)
    show.summary(report, Path("r"))
    show.say(HOSTILE)
    assert run(["compare", "r"]) == 0
    out = capsys.readouterr().out
    assert out.count(SHOWN) >= 5
    assert all(c.isprintable() or c == "\n" for c in out)


def test_an_error_of_any_length_is_one_line(refused):
    torch.save({HOSTILE + "x" * 10_000: 3}, "long.pt")
    message = refused(*command("long.pt"), says="which is no entry of a state dict")
    assert message.isprintable()
    assert run(["inspect", "y" * 4000]) == 1


def test_a_long_error_is_cut_in_its_middle(capsys):
    assert run(["optimize", "digits.pt", "--data", "digits", "--arch", "y" * 9000]) == 1
    line = capsys.readouterr().err
    assert len(line) < 2200
    assert " ... " in line


def test_accuracies_of_one_stage_are_not_shown_in_the_next(capsys):
    display = show.Display()
    display(Event("search", 1, 1, {"loss": 0.5, "val_accuracy": 0.25}))
    display(Event("recover", 1, 20, {"loss": 0.4}))
    display.last = -100.0
    display(Event("recover", 2, 20, {"loss": 0.3}))
    display(Event("recover", 10, 20, {"loss": 0.3, "val_accuracy": 0.75}))
    display.last = -100.0
    display(Event("recover", 11, 20, {"loss": 0.2}))
    search, *recovery = [line for line in capsys.readouterr().out.splitlines() if "loss" in line]
    assert "val 25.00%" in search
    assert not any("25.00%" in line for line in recovery)
    assert [("val 75.00%" in line) for line in recovery[-2:]] == [True, True]
