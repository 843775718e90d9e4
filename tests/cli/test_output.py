"""Where the result goes: never over something else."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from conftest import compared

from cli.conftest import ARCH, command
from snnprune.cli import show
from snnprune.cli.main import run
from snnprune.cli.progress import Display
from snnprune.learner import Event
from snnprune.runs.report import ModelFigures, Report


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


TEXTS = ("engine", "version", "device", "precision", "load", "refused")
HOSTILE = "a\x1b]0;owned\x07\x1b[2J\u202e\ud800[red]b"
SHOWN = "a?]0;owned??[2J??[red]b"


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
    report.latency = {**compared().to_dict(), **dict.fromkeys(TEXTS, HOSTILE)}
    report.to_json("r/report.json")
    Path("r/model.safetensors").touch()
    monkeypatch.setattr(show.console, "_width", 300)
    show.summary(report, Path("r"))
    show.say(HOSTILE)
    assert run(["compare", "r"]) == 0
    out = capsys.readouterr().out
    assert out.count(SHOWN) >= 5 + 2 * len(TEXTS)
    assert all(c.isprintable() or c == "\n" for c in out)


FORGED = "a\nerror: forged\rb\x85c\u2028d\u2029e"
ONE_LINE = "a?error: forged?b?c?d?e"


def forged(count: int = 1) -> Report:
    """A report whose every text would begin a line of its own."""
    group = {"size": 4, "kept": 2, "weakened": 1, "strengthened": 1}
    return Report(
        ModelFigures(0.9, 0.2, 200, 100),
        ModelFigures(0.9, 0.2, 100, 50),
        groups=[{"id": f"{FORGED}{i or ''}", **group} for i in range(count)],
        exactness={FORGED: 0.0},
        target={FORGED: 0.5},
        seed=0,
        data=FORGED,
        split=f"[/x]{FORGED}",
        seconds=1.0,
        device=FORGED,
        kept_whole=[{"id": FORGED, "reason": FORGED}] * count,
        odd_widths={f"{FORGED}{i or ''}": 3 for i in range(count)},
        config={"round_to": FORGED},
        unpriced=[FORGED] * count,
        latency={**compared().to_dict(), **dict.fromkeys(TEXTS, FORGED)},
    )


def test_names_from_files_forge_no_line(capsys, monkeypatch, here):
    monkeypatch.setattr(show.console, "_width", 300)
    for name in ("r", "s"):
        forged().to_json(f"{name}/report.json")
    show.summary(forged(), Path("r"))
    assert run(["compare", "r", "s"]) == 0
    with show.Warnings():
        logging.getLogger("snnprune.data").warning("%s holds no image", FORGED)
    assert run(["compare", FORGED]) == 1
    assert run(["inspect", FORGED]) == 1
    Path(FORGED).mkdir()
    (Path(FORGED) / "report.json").write_text("{")
    assert run(["compare", FORGED]) == 1
    (Path(FORGED) / "report.json").unlink()
    torch.save({FORGED: 3}, "odd.pt")
    assert run(["inspect", "odd.pt"]) == 1
    captured = capsys.readouterr()
    assert captured.out.count(ONE_LINE) >= 10
    assert captured.err.count(ONE_LINE) >= 3
    assert not any(line.startswith(("error", "b", "c", "d")) for line in captured.out.split("\n"))
    assert all(not line or line.isprintable() for line in (captured.out + captured.err).split("\n"))
    assert captured.err.count("\n") == 4


def test_lists_from_files_end(capsys):
    show.summary(forged(2000), Path("r"))
    out = capsys.readouterr().out
    for words in (
        "Of 2,000 groups the 500 largest are shown; the run's report.json holds all.",
        "Of 2,000 groups of odd widths the 32 first are shown",
        "Of 2,000 operations the 32 first are shown",
        "Of 2,000 groups kept whole the 500 first are shown",
    ):
        assert words in out
    assert out.count("\n") < 2100
    assert "Of 2,000 groups the 500 largest are shown; its attribute groups holds all." in str(forged(2000))
    assert len(str(forged(2000))) < 100_000


def test_texts_from_files_are_cut(capsys, here):
    report = forged()
    long = "<x>\n" * 10**6
    report.groups[0]["id"] = report.data = report.split = report.config["round_to"] = report.unpriced[0] = long
    report.kept_whole[0] = {"id": long, "reason": long}
    report.odd_widths = {long: 3}
    report.target = {long: 0.5}
    report.latency |= dict.fromkeys(TEXTS, long[: 10**5])  # a file may hold so much and no more
    show.summary(report, Path("r"))
    for name in ("r", "s"):
        report.to_json(f"{name}/report.json")
    assert run(["compare", "r", "s"]) == 0
    assert len(capsys.readouterr().out) < 20_000


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
    display = Display()
    display(
        Event("search", 1, 1, {"loss": 0.5, "val_metric": "accuracy", "val_value": 0.25, "val_accuracy": 0.25})
    )
    display(Event("recover", 1, 20, {"loss": 0.4}))
    display.last = -100.0
    display(Event("recover", 2, 20, {"loss": 0.3}))
    display(
        Event("recover", 10, 20, {"loss": 0.3, "val_metric": "accuracy", "val_value": 0.75, "val_accuracy": 0.75})
    )
    display.last = -100.0
    display(Event("recover", 11, 20, {"loss": 0.2}))
    search, *recovery = [line for line in capsys.readouterr().out.splitlines() if "loss" in line]
    assert "val accuracy 25.00%" in search
    assert not any("25.00%" in line for line in recovery)
    assert [("val accuracy 75.00%" in line) for line in recovery[-2:]] == [True, True]


@pytest.mark.parametrize(
    "name", ["out.partial", "out.partial/checkpoint", "out.partial/tensorboard", "out.partial.lock"]
)
def test_a_run_is_written_through_no_link(refused, tmp_path_factory, name):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "state.pt").write_text("mine")
    target = elsewhere / "state.pt" if name.endswith(".lock") else elsewhere
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).symlink_to(target)
    for resume in ([], ["--resume"]):
        given = command("digits.pt", "digits", *ARCH, "--output", "out", *resume)
        refused(*given, says=(f"{name} is a symbolic link", "Remove the link"))
    assert [p.name for p in elsewhere.iterdir()] == ["state.pt"]
    assert (elsewhere / "state.pt").read_text() == "mine"


def test_an_export_is_written_through_no_link(refused, state, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "file"
    elsewhere.write_text("mine")
    Path("run").mkdir()
    for name, more in (("model.onnx", []), ("model-fp16.onnx", ["--fp16"])):
        Path("run/structure.json").write_text("{}")
        Path(f"run/{name}").symlink_to(elsewhere)
        refused("export", "run", "--onnx", *more, says=f"run/{name} is a symbolic link")
    assert elsewhere.read_text() == "mine"


def test_json_is_indented_where_somebody_may_read_it(capsys):
    show.emit({"a": [1, float("nan")]})
    assert capsys.readouterr().out == '{\n  "a": [\n    1,\n    null\n  ]\n}\n'
    many = {"a": [{"step": at} for at in range(100_000)]}
    show.emit(many)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == many


def test_a_report_is_read_once(monkeypatch, here):
    """It may be as long as a file of ours may be."""
    forged().to_json("r/report.json")
    read, files = Report.read, []
    monkeypatch.setattr(Report, "read", lambda path: files.append(path) or read(path))
    assert run(["compare", "r"]) == 0
    assert len(files) == 1
