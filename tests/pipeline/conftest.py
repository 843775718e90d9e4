"""Shared by the tests of runs: a finished run, a place to work in, and a way to press Ctrl-C."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import DIGITS
from safetensors.torch import load_file
from torch import Tensor

from snnprune.cli.main import run
from snnprune.export import ExportCheck
from snnprune.learner import PruneConfig
from snnprune.registry import build

MADE = {
    "kept.json",
    "model.onnx",
    "model.safetensors",
    "pictures.safetensors",
    "probe.safetensors",
    "report.json",
    "run.yaml",
    "scales.safetensors",
    "structure.json",
}
PAGE = {"plots", "report.html"}
# 10 steps an epoch: some steps of search, then a recovery with borders of epochs
SHORT = ["--data", "digits", "--arch", DIGITS, "--epochs", "3", "--device", "cpu", "--target", "macs=0.4"]
SEARCH = max(min(PruneConfig().search.least, 30 // 10), round(30 * PruneConfig().search.share))


def optimize(*args: object) -> int:
    return run(["optimize", *map(str, args)])


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with a model file `digits.pt` and its finished run `run`; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    torch.save(build(DIGITS).state_dict(), folder / "digits.pt")
    assert optimize(folder / "digits.pt", *SHORT, "--output", folder / "run") == 0
    return folder


@pytest.fixture(autouse=True)
def here(here) -> Path:
    return here


@pytest.fixture
def finished(made, here) -> Path:
    """A copy of the finished run, to change or damage."""
    shutil.copytree(made / "run", here / "runs" / "digits")
    return here / "runs" / "digits"


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal; in processes in the background it is ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handler was not put back"
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def model(made, here) -> Path:
    shutil.copy(made / "digits.pt", here / "digits.pt")
    return Path("digits.pt")


@pytest.fixture
def quick(made, monkeypatch) -> None:
    """Runs that end without the second that a real ONNX export takes; it copies the one that was made."""
    error = json.loads((made / "run" / "report.json").read_text())["exactness"]["onnx"]

    def export(model, path: Path, example_inputs, **options) -> ExportCheck:
        shutil.copy(made / "run" / "model.onnx", path)
        return ExportCheck(path, 0.0, error, (1,), 20, "none")

    monkeypatch.setattr("snnprune.runs.folder.export_onnx", export)


@pytest.fixture
def said(capsys):
    """What the last command said on stderr, as one line, after its exit code was checked."""

    def check(code: int, wanted: int = 1) -> str:
        captured = capsys.readouterr()
        assert code == wanted, captured
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("error: " if wanted == 1 else "stopped"), lines
        return lines[0]

    return check


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def stop_at(monkeypatch, stage: type, call: int, by: Exception | None = None) -> None:
    """Press Ctrl-C (or fail otherwise) at the beginning of a stage's n-th step."""
    original, count = stage.train_step, [0]

    def train_step(self, batch):
        count[0] += 1
        if count[0] == call:
            if by is not None:
                raise by
            signal.raise_signal(signal.SIGINT)
        return original(self, batch)

    monkeypatch.setattr(stage, "train_step", train_step)
