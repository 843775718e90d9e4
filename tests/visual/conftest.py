"""A run folder without a model: what the page is made from, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from snnprune.files import write_json
from snnprune.runs.report import ModelFigures, Report

GROUPS = [
    {"id": "conv", "size": 4, "kept": 3, "weakened": 2, "strengthened": 1},
    {"id": "fc:in", "size": 16, "kept": 9, "weakened": 4, "strengthened": 5},
]


def report(**changes) -> Report:
    values = {
        "dense": ModelFigures(0.9, 0.3, 1000, 500),
        "compact": ModelFigures(0.88, 0.35, 400, 250),
        "groups": GROUPS,
        "exactness": {"fold": 1e-16, "remove": 2e-16, "onnx": None},
        "target": {"macs": 0.4},
        "seed": 3,
        "data": "some data",
        "split": "test",
        "seconds": 12.3,
        "device": "cpu",
        "history": [
            {
                "stage": "search",
                "step": 2,
                "val_value": 0.8,
                "counts": {"conv": [4, 2, 2], "fc:in": [16, 8, 8]},
            },
            {"stage": "search", "step": 3, "val_value": 0.7, "counts": {"conv": [4, 3, 1], "fc:in": [12, 8, 4]}},
            {"stage": "search", "step": 4, "val_value": 0.7, "counts": {"conv": [3, 2, 1], "fc:in": [9, 4, 5]}},
            {"stage": "recover", "step": 6, "val_value": 0.88},
        ],
        "curve": [
            {"stage": "search", "step": 1, "loss": 0.5, "budget": 0.9, "cost": "macs"},
            {"stage": "search", "step": 2, "loss": 0.6, "budget": 0.6, "cost": "macs"},
            {"stage": "search", "step": 4, "loss": 0.7, "budget": 0.4, "cost": "macs"},
            {"stage": "recover", "step": 6, "loss": 0.3},
        ],
        "steps": {"probe": 2, "search": 4, "recover": 6},
        "kept_whole": [{"id": "head", "reason": "it is an output of the model"}],
        "command": "snnprune optimize model.pt",
        "config": {"lr": 0.05},
        "date": "2026-11-27T13:45:10+00:00",
        "inputs": {"train": 1293, "val": 144},
    }
    return Report(**{**values, **changes})


@pytest.fixture
def folder(tmp_path) -> Path:
    """`run`, with all that can be drawn."""
    run = tmp_path / "run"
    run.mkdir()
    report().to_json(run / "report.json")
    write_json(run / "structure.json", {"input_shape": [1, 4, 4]})
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(16, generator=generator) * 2 * (torch.arange(16) % 2)
    save_file({"conv": torch.tensor([0.0, 0.9, 1.1, 0.95]), "fc:in": pixels}, run / "scales.safetensors")
    maps = torch.randint(0, 256, (3, 4, 4), generator=generator, dtype=torch.uint8)
    pictures = {"input": maps[:1].clone(), "conv|pruned": maps[:1].clone(), "conv|strengthened": maps.clone()}
    save_file(pictures, run / "pictures.safetensors")
    return run
