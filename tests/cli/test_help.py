"""Help: options in groups, examples that can be pasted, completion."""

from __future__ import annotations

import shlex

import pytest
import typer

from snnprune.cli.app import app
from snnprune.cli.help import EXAMPLES, GROUPS
from snnprune.cli.main import run

COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("name", sorted(COMMANDS))
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_both_flags(name, flag, capsys):
    assert run([name, flag]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: snnprune {name}")
    for param in COMMANDS[name].params:
        if not getattr(param, "hidden", False):
            shown = param.opts[0] if param.param_type_name == "option" else param.name
            assert out.count(shown) >= 1, shown


def test_options_stand_in_groups(capsys):
    assert run(["optimize", "-h"]) == 0
    out = capsys.readouterr().out
    places = [out.index(f"\n{group}:\n") for group in (*GROUPS, "Options", "Examples")]
    assert places == sorted(places)
    data = out[out.index("\nThe data:\n") : out.index("\nWhat is cut:\n")]
    assert "--val-split" in data
    assert "--lr" not in data


def test_every_name_in_a_group_is_an_option():
    known = {param.name for command in COMMANDS.values() for param in command.params}
    assert {name for names in GROUPS.values() for name in names} <= known


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in EXAMPLES.items() for line in lines])
def test_examples_are_commands(name, line, capsys):
    """Each stands in the help as one line, and the parser takes it."""
    assert run([name, "-h"]) == 0
    assert f"  {line}\n" in capsys.readouterr().out
    words = shlex.split(line)
    assert words[:2] == ["snnprune", name]
    command = COMMANDS[name]
    left = [word for word in words[2:] if word != "--config" and not word.endswith(".yaml")]
    context = command.make_context(name, [*left, *(["x.pt", "--data", "x"] if left != words[2:] else [])])
    assert context.command is command


def test_completion_is_offered(capsys, monkeypatch):
    monkeypatch.setattr("shellingham.detect_shell", lambda *_args: ("bash", "bash"))  # tests may run without one
    assert run(["--show-completion", "bash"]) == 0
    assert "_SNNPRUNE_COMPLETE" in capsys.readouterr().out
