"""Options that several commands take: the same of every command that opens, traces or loads alike."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from typing import Annotated

import pytest
import typer

from cli.conftest import ARCH
from snnprune.cli.app import app
from snnprune.cli.data import DataOptions
from snnprune.cli.gather import gathered
from snnprune.cli.main import run
from snnprune.cli.options import Network, Patterns

COMMANDS = typer.main.get_command(app).commands
OPENING = ("bench", "contest", "evaluate", "export", "inspect", "optimize", "profile", "sensitivity")
TRACING = ("contest", "inspect", "optimize", "profile", "sensitivity")
READING = ("contest", "evaluate", "export", "optimize", "sensitivity")


@dataclass(frozen=True)
class Both:
    """Two options."""

    first: Annotated[int, typer.Option(help="a number")] = 3
    second: Annotated[list[str] | None, typer.Option(help="texts")] = None


def test_fields_become_options_and_come_back_as_one_object():
    seen = []

    @gathered
    def command(name: str, both: Both, last: bool = False) -> None:
        """What it does."""
        seen.append((name, both, last))

    assert list(inspect.signature(command).parameters) == ["name", "first", "second", "last"]
    assert command.__doc__ == "What it does."
    small = typer.Typer()
    small.command()(command)
    main = typer.main.get_command(small)
    main.main(["x", "--second", "a", "--second", "b"], standalone_mode=False)
    main.main(["y", "--first", "5", "--last"], standalone_mode=False)
    assert seen == [("x", Both(3, ["a", "b"]), False), ("y", Both(5, None), True)]


@pytest.mark.parametrize(("names", "kind"), [(OPENING, Network), (TRACING, Patterns), (READING, DataOptions)])
def test_commands_that_do_the_same_take_the_same_options(names, kind):
    wanted = {field.name for field in fields(kind)}
    for name, command in COMMANDS.items():
        found = {param.name for param in command.params}
        assert (wanted <= found) == (name in names), name


def test_widths_and_sets_hold_in_cuts_of_the_whole_model(here, capsys):
    """Of both commands that cut a network without a run."""
    given = ["digits.pt", *ARCH, "--width", "features.3<=12", "--uniform", "features.*"]
    more = ["--data", "digits", "--limit", "64", "--device", "cpu", "--json"]
    assert run(["sensitivity", *given, *more]) == 0
    held = capsys.readouterr().out
    assert run(["sensitivity", "digits.pt", *ARCH, *more]) == 0
    assert held != capsys.readouterr().out
    for command in (["sensitivity", *given[:-1], "nothing", *more], ["profile", *given[:-1], "nothing"]):
        assert run(command) == 1
        assert "uniform 'nothing' names no group" in capsys.readouterr().err


def test_outputs_are_refused_where_there_is_one(here, capsys):
    for command in ("profile", "sensitivity", "inspect"):
        data = ["--data", "digits"] if command == "sensitivity" else []
        assert run([command, "digits.pt", *ARCH, "--outputs", "logits", *data]) == 1
        assert "outputs name 'logits'" in capsys.readouterr().err
