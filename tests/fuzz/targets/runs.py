"""The files of a run: structure, weights, ONNX, probe and report."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

import snnprune
from snnprune.export import export_onnx
from snnprune.files import STRUCTURE
from snnprune.layers import IndexedLinear
from snnprune.runs.delivery import deliver_onnx
from snnprune.runs.folder import ONNX, PROBE, REPORT, open_model
from snnprune.runs.report import ModelFigures, Report
from snnprune.runs.saving import WEIGHTS, digest, save
from snnprune.runs.times import marks
from snnprune.runs.visual import comparison, read_material
from snnprune.runs.visual.drawings import drawings
from snnprune.runs.visual.page import _page
from snnprune.runtime import onnx_metadata, open_session

from .base import bounded, content_of, place, sane, written


def small(num_classes: int = 3) -> nn.Module:
    """A fresh model of the original size, for runs."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.PReLU(),
        nn.Flatten(),
        nn.Linear(16, 6),
        nn.ReLU(),
        nn.Linear(6, min(num_classes, 9)),
    ).eval()


def pruned() -> nn.Module:
    torch.manual_seed(0)
    first = IndexedLinear(5, 4, source_features=8, index=torch.tensor([0, 2, 3, 6, 7]))
    with torch.no_grad():
        first.weight[0, :3] = 0
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU(), nn.Flatten(), first, nn.ReLU(), nn.Linear(4, 3)
    ).eval()


@functools.cache
def run_folder() -> Path:
    folder = place() / "run"
    model = pruned()
    images = torch.rand(4, 1, 4, 4)
    extra = {
        "factory": {"arch": "resnet18", "kwargs": {"num_classes": 3}},
        "kept": {"0": [0, 1]},
        "normalization": {"mean": [0.5], "std": [0.5]},
        "classes": ["a", "b", "c"],
        "input_shape": [1, 4, 4],
    }
    save(model, folder, extra=extra, sparse=["4.weight"])
    metadata = {"snnprune.normalization": extra["normalization"]}
    export_onnx(model, folder / ONNX, images, metadata=metadata)
    save_file({"inputs": images, "outputs": model(images).detach()}, folder / PROBE)
    (folder / REPORT).write_bytes(report_files()[0])
    return folder


def structure_files() -> list[bytes]:
    return [(run_folder() / STRUCTURE).read_bytes()]


def run_weights() -> list[bytes]:
    return [(run_folder() / WEIGHTS).read_bytes()]


@functools.cache
def other_run(name: str) -> Path:
    """A copy of the run folder in which one file is damaged."""
    return Path(shutil.copytree(run_folder(), place() / name))


def with_digest(folder: Path, key: str, name: str) -> None:
    structure = json.loads(structure_files()[0])
    structure[key] = digest(folder / name)
    (folder / STRUCTURE).write_text(json.dumps(structure))


def feed_structure(data: bytes) -> Any:
    folder = other_run("run-structure")
    (folder / STRUCTURE).write_bytes(data)
    opened = open_model(folder, arch=f"{__name__}:small")
    sane(dict(opened.model.state_dict()))
    return opened


def feed_run_weights(data: bytes) -> Any:
    folder = other_run("run-weights")
    (folder / WEIGHTS).write_bytes(data)
    with_digest(folder, "weights_sha256", WEIGHTS)
    model = snnprune.load(folder, model=small())
    sane(dict(model.state_dict()))
    assert model(torch.rand(2, 1, 4, 4)).shape == (2, 3)
    return model


def onnx_files() -> list[bytes]:
    return [(run_folder() / ONNX).read_bytes()]


def feed_onnx(data: bytes) -> Any:
    path = written("model.onnx", data)
    session = open_session(path, threads=1)
    return session, onnx_metadata(path)


def feed_delivery(data: bytes) -> Any:
    folder = other_run("run-onnx")
    (folder / ONNX).write_bytes(data)
    with_digest(folder, "onnx_sha256", ONNX)
    return deliver_onnx(folder, folder / "out.onnx")


def feed_probe(data: bytes) -> Any:
    folder = other_run("run-probe")
    (folder / PROBE).write_bytes(data)
    return deliver_onnx(folder, folder / "out.onnx")


def probe_files() -> list[bytes]:
    return [(run_folder() / PROBE).read_bytes()]


@functools.cache
def report_files() -> list[bytes]:
    report = Report(
        ModelFigures(0.95, 0.2, 2_000_000, 1000),
        ModelFigures(0.94, 0.25, 1_000_000, 400, nonzero=300),
        groups=[{"id": "a", "size": 10, "kept": 4, "weakened": 1, "strengthened": 3}],
        exactness={"fold": 1e-16, "remove": 0.0, "onnx": None},
        target={"macs": 0.5},
        seed=3,
        data="digits",
        split="test",
        seconds=1.5,
        device="cpu",
        kept_whole=[{"id": "b", "reason": "it is an output"}],
        history=[
            {"stage": "search", "step": s, "val_value": 0.5, "val_accuracy": 0.5, "counts": {"a": [4, 1, 3]}}
            for s in (1, 2)
        ],
        curve=[{"stage": "search", "step": s, "loss": 0.5, "budget": 0.5, "cost": "macs"} for s in (1, 2, 3)],
        trials=[{"macs": 0.5, "val_value": 0.9, "val_accuracy": 0.9, "drop": 0.0, "passed": True, "latency": 0.6}],
        latency={
            **dict.fromkeys(("dense_ms", "compact_ms", "share", "spread", "dense_spread", "compact_spread"), 0.5),
            **dict.fromkeys(("engine", "version", "device", "precision", "load", "refused"), "words"),
            **{"batch": 1, "threads": 2, "predicted_ms": None},
        },
        odd_widths={"a": 3},
        unpriced=["fft (stem)"],
        config={"lr": 0.05, "keep": ["a"]},
        steps={"search": 3},
    )
    return [content_of(report.to_json)]


def feed_report(data: bytes) -> Any:
    """Reads a report, and chooses what of it is told and drawn; drawing that takes its time whatever it is."""
    path = written("run-report/report.json", data)
    with bounded(path):
        material = read_material(path.parent)
        assert len(str(material.report)) < 2**20
        (row,) = comparison([("run", material.report)])
        assert sum(map(len, row)) < 2**14
        assert sum(map(len, marks([material.report.latency])[1])) < 2**14
        assert len(_page(material, [])) < 8 * 2**20
        for drawing in drawings(material):
            assert len(drawing.caption) < 1000
    return material.report
