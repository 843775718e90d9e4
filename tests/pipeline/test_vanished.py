"""Run folders that somebody removes while they are written or read."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

import snnprune
from pipeline.conftest import names
from snnprune.errors import RunError
from snnprune.runs import folder as runs
from snnprune.runs.folder import newest_run


@pytest.fixture(scope="module")
def result():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    data = [(torch.rand(16, 4), torch.arange(16) % 3)] * 2
    return snnprune.optimize(model, data, data, snnprune.PruneConfig(target={"params": 0.6}, epochs=1))


@pytest.mark.parametrize("at", ["write_model", "_write_probe", "write_page"])
def test_a_folder_that_is_removed_while_a_run_is_written_is_written_once_more(
    result, here, monkeypatch, caplog, at
):
    once, original = [], getattr(runs, at)

    def remove_first(*args, **options):
        if not once:
            once.append(at)
            shutil.rmtree("root")
        return original(*args, **options)

    monkeypatch.setattr(runs, at, remove_first)
    with caplog.at_level(logging.WARNING, "snnprune"):
        folder = result.save("root/run", onnx=False)
    assert {"model.safetensors", "structure.json", "probe.safetensors", "report.json"} <= names(folder)
    assert once
    assert not Path("root/run.partial").exists()
    if at == "write_page":  # nothing was written after it that would have failed
        assert "written once more" in caplog.text


def test_a_folder_that_is_removed_every_time_is_an_error(result, here, monkeypatch):
    monkeypatch.setattr(runs, "write_page", lambda work: shutil.rmtree("root"))
    with pytest.raises(RunError, match="was removed while the run was written"):
        result.save("root/run", onnx=False)


def test_runs_that_vanish_while_they_are_listed_are_passed_over(result, here, monkeypatch):
    for name in ("one", "two"):
        result.save(f"runs/{name}", onnx=False)
    original = runs.is_run

    def is_run(path: Path) -> bool:
        found = original(path)
        if path.name == "two":
            shutil.rmtree(path, ignore_errors=True)
        return found

    monkeypatch.setattr(runs, "is_run", is_run)
    assert newest_run() == Path("runs/one")


def test_a_folder_that_vanishes_while_it_is_read_is_an_error_of_ours(result, here, monkeypatch):
    folder = result.save("run", onnx=False)

    def vanish(path: Path) -> str:
        shutil.rmtree(folder)
        return path.read_bytes().hex()

    monkeypatch.setattr("snnprune.runs.saving.digest", vanish)
    with pytest.raises(RunError, match="was removed meanwhile"):
        snnprune.load(folder, model=nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)))
