"""Commands that are shown can be pasted: whole, and quoted for a shell."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import typer

from cli.conftest import ARCH, command
from snnprune.cli.app import app
from snnprune.cli.main import run
from snnprune.cli.paste import Call, completed, going_on, shown

COMMANDS = typer.main.get_command(app).commands
ODD = "it's a run of *"


def parsed(line: str) -> dict[str, object]:
    """What the parser makes of a pasted command."""
    words = shlex.split(line)
    assert words[0] == "snnprune"
    return COMMANDS[words[1]].make_context(words[1], words[2:]).params


def test_a_command_is_quoted():
    assert shlex.split(shown("export", Path(ODD), "--keep", "layer1.*")) == [
        "snnprune", "export", ODD, "--keep", "layer1.*",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "start"),
    [
        (["/nowhere/bin/snnprune"], ["/nowhere/bin/snnprune"]),
        (["/usr/lib/python3/site-packages/snnprune/__main__.py"], None),
        (["/usr/bin/pytest"], ["snnprune"]),
    ],
)
def test_a_command_begins_as_the_program_was_started(argv, start, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    words = shlex.split(shown("doctor"))
    assert words[-1] == "doctor"
    if start is None:
        assert Path(words[0]).name == Path(sys.executable).name
        assert words[1:] == ["-m", "snnprune", "doctor"]
    else:
        assert words[:-1] == start


def test_of_several_processes_torchrun_is_named(monkeypatch):
    for name, value in {"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    assert shown("doctor") == "torchrun --nproc-per-node 4 -m snnprune doctor"


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (["optimize", "m.pt", "--data", "digits", "--width", "layer1.*=0.75"], {}),
        (["optimize", "m.pt", "--data", "d d", "--output", "old", "--resume"], {}),
        (["optimize", "--output=old", "m.pt", "--data", "digits", "--dry-run"], {}),
        (["optimize", "--data", "digits", "--", "m.pt"], {}),
        (["optimize", "--data", "digits", "--keep", "a'b", "--keep", "*", "m m.pt"], {"keep": ["a'b", "*"]}),
    ],
)
def test_going_on_is_the_same_command_with_its_folder(arguments, more):
    line = going_on(Call(arguments), Path(ODD))
    found, first = parsed(line), COMMANDS["optimize"].make_context("optimize", arguments[1:]).params
    assert found == {**first, "output": Path(ODD), "resume": True, "dry_run": False, **more}
    assert line.count("--output") == 1


def test_commands_of_the_library_are_made_whole():
    params = {
        "model": Path("my m.pt"),
        "arch": "net.py:build",
        "num_classes": 5,
        "trust_pickle": True,
        "entry": None,
    }
    text = "`snnprune inspect` lists them, `snnprune profile --output 'a b'` writes; `snnprune optimize -h`."
    found = re.findall(r"`([^`]*)`", completed(text, Call(["optimize"], params)))
    opening = {"model": Path("my m.pt"), "arch": "net.py:build", "num_classes": 5, "trust_pickle": True}
    assert opening.items() <= parsed(found[0]).items()
    assert {**opening, "output": Path("a b")}.items() <= parsed(found[1]).items()
    assert found[2] == "snnprune optimize -h"
    assert completed(text, Call()) == text, "where no model is known"


def test_an_error_names_the_command_with_its_model(here, capsys):
    given = ["digits.pt", *ARCH, "--width", "nothing=0.5"]
    assert run(["inspect", *given]) == 1
    (line,) = re.findall(r"`(snnprune [^`]*)`", capsys.readouterr().err)
    assert run(shlex.split(line)[1:]) == 0


def test_a_run_in_an_odd_folder_from_its_stop_to_its_file(here, capsys, monkeypatch):
    """Every command that it says on the way is pasted."""
    torch.save(torch.load("digits.pt"), "it's mine.pt")
    words = command("it's mine.pt", "digits", *ARCH, "--width", "features.*>=0.5", "--limit", "300", "--no-time")
    words += ["--batch-size", "32"]
    stopped: list[int] = []

    def stop(self, event):
        if event.stage == "recover" and event.step and not stopped:
            stopped.append(1)
            raise KeyboardInterrupt

    monkeypatch.setattr("snnprune.cli.progress.Display.__call__", stop)
    assert run([*words, "--output", ODD]) == 130
    told = capsys.readouterr()
    (line,) = re.findall(r"^stopped\. Go on with: (snnprune .*)", told.out + told.err, re.MULTILINE)
    assert run(["inspect", ODD]) == 1
    other = re.findall(r"Go on with: (snnprune .*)", capsys.readouterr().err)
    assert parsed(line)["output"] == Path(ODD)
    assert Path(shlex.split(other[0])[3]).is_file(), "its options are in a file"
    assert run([*shlex.split(other[0])[1:], *ARCH]) == 0
    out = capsys.readouterr().out
    (line,) = re.findall(r"next: (snnprune .*)", out)
    assert run(shlex.split(line)[1:]) == 0
    assert (here / ODD / "model.onnx").is_file()


def test_options_that_a_profile_names_can_be_pasted(here, capsys):
    name = "it's times.py"
    assert run(["profile", "digits.pt", *ARCH, "--engine", "cpu", "--script", name]) == 0
    (line,) = re.findall(r"numpy: (.*)", capsys.readouterr().out)
    assert shlex.split(line) == ["python", name, "times.json"]


def test_no_printed_command_is_left_open():
    """No placeholder stands in a command that a message names."""
    source = Path(__file__).parents[2] / "snnprune"
    for path in source.rglob("*.py"):
        for line in path.read_text().splitlines():
            said = re.search(r"(?<!`)snnprune [a-z]+ [^\"`]*\.\.\.", line)
            assert said is None, f"{path}: {line}"
            assert "the same command, --" not in line, path
