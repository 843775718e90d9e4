"""Shared by the tests of the command line: a good model file, and commands that must be refused."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import DIGITS
from torch import Tensor

from snnprune.cli.main import run
from snnprune.registry import build

ARCH = ["--arch", DIGITS]


@pytest.fixture(scope="session")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build(DIGITS).state_dict()


@pytest.fixture(autouse=True)
def here(here, state) -> Path:
    """A working folder with one good model file."""
    torch.save(state, "digits.pt")
    return here


@pytest.fixture
def refused(capsys, here):
    """Runs a command that must fail with one line that holds some words, and change nothing on disk."""

    def check(*args: object, says: str | tuple[str, ...], code: int = 1) -> str:
        before = tree(here)
        capsys.readouterr()
        found = run([str(a) for a in args])
        captured = capsys.readouterr()
        assert found == code, captured
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("error: ")
        assert len(lines[0]) < 800
        for part in (says,) if isinstance(says, str) else says:
            assert part in lines[0], lines[0]
        assert "DEBUG" not in lines[0], "this failure has no message of its own"
        assert tree(here) == before, "something was left behind"
        return lines[0]

    return check


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, and what it holds."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def command(model: str = "digits.pt", data: str = "digits", *more: str) -> list[str]:
    return ["optimize", model, "--data", data, "--epochs", "1", "--device", "cpu", *more]


def on_a_terminal(words: list[str], **env: str) -> bytes:
    """What a command writes to a terminal."""
    parent, child = pty.openpty()
    code = "from snnprune.cli.main import main; main()"
    variables = {**os.environ, **env}
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=child, stderr=child, env=variables)
    os.close(child)
    found = b""
    while True:
        try:
            part = os.read(parent, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        found += part
    os.close(parent)
    assert process.wait() == 0, found
    return found
