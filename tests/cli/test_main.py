"""The program itself: how it complains, stops, explains itself and exits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cli.conftest import ARCH, command, tree
from snnprune.cli import main
from snnprune.cli.main import _terminable, run


def test_a_name_that_looks_like_markup_or_an_escape_is_shown_as_it_is(refused):
    refused(*command("[red]x[/red].pt"), says="there is no file [red]x[/red].pt")
    refused(*command("[/]"), says="there is no file [/]")
    assert "\x1b" not in refused(*command("a\x1b[31mb.pt"), says="there is no file a?[31mb.pt")


def test_names_in_the_output_are_no_markup(capsys):
    Path("[bold]x[").mkdir()
    os.rename("digits.pt", "[bold]x[/y].pt")
    assert run(["evaluate", "[bold]x[/y].pt", "--data", "digits", *ARCH]) == 0
    assert "[bold]x[/y].pt: accuracy" in capsys.readouterr().out


def test_a_failure_of_our_own_says_how_to_find_it(capsys, monkeypatch):
    def broken(*args, **kwargs):
        raise LookupError("of two\nlines")

    monkeypatch.setattr("snnprune.runs.folder.open_model", broken)
    assert run(["inspect", "digits.pt"]) == 1
    error = capsys.readouterr().err
    assert error == "error: LookupError: of two lines. Set SNNPRUNE_DEBUG=1 to see where.\n"
    monkeypatch.setenv("SNNPRUNE_DEBUG", "1")
    with pytest.raises(LookupError):
        run(["inspect", "digits.pt"])


def test_an_end_of_file_is_a_failure_and_no_ctrl_d(capsys, monkeypatch):
    def broken(*args, **kwargs):
        raise EOFError("Ran out of input")

    monkeypatch.setattr("snnprune.runs.folder.open_model", broken)
    assert run(["inspect", "digits.pt"]) == 1
    assert "Ran out of input" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["optimize", "inspect", "evaluate"])
def test_ctrl_c_is_130_everywhere(capsys, monkeypatch, here, name):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("snnprune.runs.folder.open_model", interrupt)
    monkeypatch.setattr("snnprune.analysis.evaluating.open_model", interrupt)
    before = tree(here)
    assert run([name, "digits.pt", *([] if name == "inspect" else ["--data", "digits"])]) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert tree(here) == before


def test_version(capsys):
    import snnprune

    assert run(["--version"]) == 0
    captured = capsys.readouterr()
    lines = dict(line.split(maxsplit=1) for line in captured.out.splitlines())
    assert lines["snnprune"] == snnprune.__version__
    assert lines["torch"] == torch.__version__.split("+")[0] or lines["torch"] == torch.__version__
    assert captured.err == ""


@pytest.mark.parametrize("args", [[], ["--help"]], ids=["nothing", "--help"])
def test_help_lists_the_commands(capsys, args):
    assert run(args) == 0
    captured = capsys.readouterr()
    for name in ("optimize", "export", "inspect", "evaluate", "compare"):
        assert name in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("name", ["optimize", "export", "inspect", "evaluate", "compare"])
def test_every_command_explains_itself(capsys, name):
    assert run([name, "--help"]) == 0
    assert f"Usage: snnprune {name}" in capsys.readouterr().out


def test_main_exits_with_the_code(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["snnprune", "--bogus"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2


def test_the_module_is_the_program():
    """In a process of its own, as `python -m snnprune`: code, and nothing but the line on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "snnprune", "inspect", "absent.pt"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == "error: there is no file absent.pt.\n"


def test_a_second_sigterm_counts_only_where_the_first_was_lost(monkeypatch):
    """At once it must not disturb the writing of a checkpoint; later the first one was swallowed by somebody."""
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    came: list[float] = []
    before = signal.getsignal(signal.SIGTERM)
    with _terminable(came):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        clock[0] += 5.0
        signal.raise_signal(signal.SIGTERM)
        clock[0] += 20.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert came == [100.0, 125.0]
    assert signal.getsignal(signal.SIGTERM) is before
