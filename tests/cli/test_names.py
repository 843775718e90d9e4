"""Names that are too long for a file system, or that mean something to a shell."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import snnprune
from cli.conftest import ARCH, command
from snnprune.cli.session import _named
from snnprune.errors import ModelFileError, RunError
from snnprune.files import write_json
from snnprune.ranks import Ranks
from snnprune.registry import load_model

LONG = "x" * 300


@pytest.mark.parametrize(
    "args",
    [
        ["inspect", LONG],
        ["inspect", "digits.pt", "--arch", f"{LONG}.py:net"],
        ["export", LONG, "--onnx"],
        ["compare", LONG],
        ["bench", LONG],
        ["evaluate", LONG, "--data", "digits"],
        ["evaluate", f"{LONG}.onnx", "--data", "digits"],
        command("digits.pt", LONG, *ARCH),
        command("digits.pt", "digits", *ARCH, "--output", LONG),
        command("digits.pt", "digits", *ARCH, "--output", "x" * 250),  # with what is put behind it
    ],
    ids=lambda args: args[0],
)
def test_names_that_are_too_long(refused, args):
    line = refused(*args, says=("xxx ... xxx", "too long", "choose a shorter one"))
    assert len(line) < 400


def test_names_that_are_too_long_in_python(here):
    with pytest.raises(ModelFileError, match="too long"):
        load_model(LONG)
    for call in (
        lambda: snnprune.save(nn.Linear(2, 2), LONG),
        lambda: snnprune.load(LONG, model=nn.Linear(2, 2)),
        lambda: snnprune.load("a\0b", model=nn.Linear(2, 2)),
    ):
        with pytest.raises(RunError, match=r"too long|no path"):
            call()


def test_a_name_as_long_as_names_may_be_can_be_written(here):
    path = Path("é" * 125 + ".json")
    write_json(path, {"a": 1})
    assert path.is_file()
    assert [p.name for p in here.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["y" * 252 + ".pt", "é" * 120 + ".pt"])
def test_a_run_of_a_model_with_a_long_name_has_room_for_its_own(here, name):
    folder = _named(Path(name), None, False, Ranks())
    (here / "runs").mkdir()
    Path(f"{folder}.partial.lock").touch()
    assert folder.name.startswith(name[:60])
    assert _named(Path(name), None, True, Ranks()) == folder  # which --resume finds


def test_an_unfinished_run_of_a_model_with_brackets_is_found(here):
    Path("runs/model[1]-20260101-120000.partial/checkpoint").mkdir(parents=True)
    assert _named(Path("model[1].pt"), None, True, Ranks()).name == "model[1]-20260101-120000"


def test_scripts_that_end_the_process_are_no_architectures(refused):
    Path("ends.py").write_text("import sys\nsys.exit(3)\n")
    Path("builds.py").write_text("import sys\ndef net():\n    sys.exit(3)\n")
    refused("inspect", "digits.pt", "--arch", "ends.py:net", says=("ends.py", "SystemExit: 3"))
    refused("inspect", "digits.pt", "--arch", "builds.py:net", says=("builds.py:net", "SystemExit: 3"))


@pytest.mark.parametrize("option", [["--floor", "3"], ["--round-to", "0"]])
def test_inspect_checks_its_numbers(refused, option):
    refused("inspect", "digits.pt", *ARCH, *option, says=option[0].strip("-").replace("-", "_"))
