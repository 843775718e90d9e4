"""The speed benchmarks measure what they say, and their report holds it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, importable
from torch import nn

PLACES = [str(ROOT / "benchmarks" / "speed"), str(ROOT / "benchmarks"), str(ROOT / "models")]
NAMES = ("steps", "overhead", "recovery", "growth", "onnx_speed", "speed_report")


@pytest.fixture
def speed():
    """The benchmark's modules, importable for the length of one test."""
    with importable(*PLACES):
        import growth
        import onnx_speed
        import overhead
        import recovery
        import speed_report
        import steps

        threads = torch.get_num_threads()
        yield SimpleNamespace(
            growth=growth,
            onnx_speed=onnx_speed,
            overhead=overhead,
            recovery=recovery,
            speed_report=speed_report,
            steps=steps,
        )
        torch.set_num_threads(threads)  # which the commands set
        for name in NAMES:
            sys.modules.pop(name, None)


def command(module, monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["benchmark", *args])
    module.main()


def test_peak_memory_is_what_is_alive_at_once(speed):
    kept = []

    def step():
        first = torch.empty(1000, 1000)
        second = torch.empty(500, 1000)
        del first
        kept.append(torch.empty(100, 1000))
        del second

    assert speed.steps.peak_of(step, "cpu") == pytest.approx(4 * 1_500_000, rel=0.001)


def test_time_is_the_median_of_calls_taken_in_turn(speed):
    order = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    found = speed.steps.side_by_side(steps, "cpu", rounds=2, block=2)
    assert order == list("aabb" * 3)
    assert set(found) == {"a", "b"}


def test_a_step_of_the_search_is_the_real_one(speed):
    model, data = speed.steps.build("mlp", "cpu"), speed.steps.batch_of("mlp", 16, "cpu")
    step = speed.steps.SearchStep(model, data, None, hold=2)
    calls = []
    step.gated.scorer.register_forward_hook(lambda *_: calls.append(1))
    before = [p.clone() for p in step.gated.scorer_parameters()]
    for _ in range(4):
        step()
    assert len(calls) == 2, "every second step, as hold says"
    assert any(not torch.equal(a, b) for a, b in zip(before, step.gated.scorer_parameters(), strict=True))
    assert step.gated.budget.share == 0.5


def test_tables(speed, monkeypatch, tmp_path):
    """Two cases of each benchmark through its command line, then the report."""
    results = ["--results", str(tmp_path / "results.json")]
    command(speed.overhead, monkeypatch, "mlp", "--rounds", "1", "--block", "2", *results)
    command(speed.growth, monkeypatch, "mlp", "lenet", "--rounds", "1", *results)

    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: (compiled.append(model), model)[1])
    command(speed.recovery, monkeypatch, "mlp", "--rounds", "1", "--block", "1", *results)
    assert len(compiled) == 6, "network and teacher of three rows"

    class Tiny(nn.Sequential):
        def __init__(self):
            layers = (nn.Conv2d(3, 32, 3, 4), nn.ReLU(), nn.Conv2d(32, 64, 3, 4), nn.ReLU())
            super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    monkeypatch.setattr(speed.onnx_speed.torchvision.models, "resnet18", Tiny)
    timed = speed.onnx_speed.bench_onnx

    def believed(*args, **options):
        """Two calls of each are as good as a thousand, here."""
        return [replace(one, ratio=one.ratio or 1.0, ratio_spread=0.01) for one in timed(*args, **options)]

    def cut(model, example, shares, _serving):
        """What the machine at hand says of so small a network is another thing every time."""
        return [speed.onnx_speed.ours(model, example, 0.6, 8) for _ in shares]

    monkeypatch.setattr(speed.onnx_speed, "timed", cut)
    monkeypatch.setattr(speed.onnx_speed, "bench_onnx", believed)
    command(speed.onnx_speed, monkeypatch, "resnet18", "--calls", "2", *results)
    monkeypatch.setattr(speed.onnx_speed, "bench_onnx", timed)
    with pytest.raises(SystemExit, match="timed 2 times only"):
        command(speed.onnx_speed, monkeypatch, "resnet18", "--calls", "2", *results)
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [r["benchmark"] for r in rows] == ["overhead", "growth", "growth", "recovery", *["onnx"] * 11]
    for row in rows[4:]:
        share = float(row["case"].split("macs ")[1].split(",")[0]) if "macs" in row["case"] else 1.0
        assert row["macs"] <= share + 1e-9
        assert row["yield"] == pytest.approx(row["macs"] * row["speed_up"])
    assert all(row["params"] < 1 for row in rows[5:])
    assert rows[1]["params"] == 266_610
    assert rows[1]["seconds"] > 0
    command(speed.growth, monkeypatch, "lenet", "--rounds", "1", *results)
    assert len(json.loads((tmp_path / "results.json").read_text())) == len(rows), "a case is replaced, not doubled"
    command(speed.overhead, monkeypatch, "--table", *results)
    report = (tmp_path / "speed.md").read_text()
    assert "| mlp | 64 | CPU, " in report
    assert report.count("| mlp | 64 | CPU, ") == 2, "search and recovery"
    assert "| mlp | 0.27M | 1184 |" in report
    assert "resnet18, macs 0.25, multiples of 8" in report
    assert report.count("On a GPU: not run") == 5
