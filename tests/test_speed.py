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
NAMES = ("steps", "overhead", "recovery", "growth", "onnx_speed", "speed_report", "times_report")


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
        import times_report

        threads = torch.get_num_threads()
        yield SimpleNamespace(
            growth=growth,
            onnx_speed=onnx_speed,
            overhead=overhead,
            recovery=recovery,
            speed_report=speed_report,
            steps=steps,
            times_report=times_report,
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


def test_a_cut_by_time_is_corrected_by_the_clock(speed, monkeypatch):
    """Under a clock that says more than the prediction what is left takes half the time, and a quarter."""
    from pipeline.clocks import install

    seen = install(monkeypatch, lambda share: min(1.0, 1.2 * share))
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 64, 3, 4), nn.ReLU(), nn.Conv2d(64, 64, 3, 4), nn.ReLU())
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()
    example = torch.rand(2, 3, 32, 32)
    cuts = speed.onnx_speed.timed(model, example, (0.5, 0.25), speed.onnx_speed.Serving(engine="cpu"))
    whole = speed.onnx_speed.count_macs(model, example)
    for share, cut in zip((0.5, 0.25), cuts, strict=True):
        took = 1.2 * speed.onnx_speed.count_macs(cut, example) / whole
        assert 0.7 * share < took <= share, took
    assert len(seen) >= 3, "each was timed, and corrected"


def test_tables_of_times(speed, tmp_path):
    """What a reader is told follows from the rows, and from nothing else."""
    served = {"engine": "cpu", "precision": "fp32", "batch": 1}
    run = {**served, "busy": True, "target": 0.5, "spread": 0.01, "macs": 0.4, "params": 0.6, "seconds": 100.0}
    targets = [
        {**run, "case": "a, seed 0", "tries": [0.55, 0.48], "measured": 0.47},
        {**run, "case": "a, seed 1", "tries": [None], "measured": None, "busy": "a training"},
        {**run, "case": "a, seed 2", "tries": [0.4], "measured": 0.419},
    ]
    cut = {"predicted": 0.5, "measured": 0.48, "error": 0.5 / 0.48 - 1}
    far = {"predicted": 0.5, "measured": 0.4, "error": 0.25}
    cuts = {"0.75": cut, "0.5": far, "0.25": {"predicted": 0.2, "measured": None, "error": None}}
    profiles = [{**served, "case": "a", "dense_ms": 4.0, "cuts": cuts, "graphs": 7, "seconds": 9.0}]
    one = {"network": "a", "dense": 0.9, "macs": 0.5, "params": 0.25, "share": 0.49}
    equal = [
        {**one, "method": "latency", "accuracy": 0.88},
        {**one, "method": "latency", "accuracy": 0.86, "share": None},
        {**one, "method": "LAMP", "accuracy": 0.8},
    ]
    for name, rows in {"targets": targets, "profiles": profiles, "equal_time": equal}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    text = speed.times_report.write_times(tmp_path)
    assert (tmp_path / "times.md").read_text() == text
    for line in (
        "| a, seed 0 | a loop | cpu fp32, 1 | 0.550, 0.480 | 0.470 | 0.010 | 0.40 | 0.60 | 100 |",
        "| a, seed 1 | a training | cpu fp32, 1 | ? | refused |  | 0.40 | 0.60 | 100 |",
        "Between 0.42 and 0.52: 1 of 3 runs.",
        "| a | cpu fp32, 1 | 4 | 0.500, 0.480: +4% | 0.500, 0.400: +25% | 0.200, clock refused | 7 | 9 |",
        "Within 10 %: 1 of 2 cuts; at the median 14.6% off.",
        "| a | `latency=0.5` | 2 | 87.00 (88.0, 86.0) | 90.00 | 0.490, ? | 0.50 | 0.25 |",
        "| a | LAMP | 1 | 80.00 (80.0) | 90.00 | 0.490 | 0.50 | 0.25 |",
    ):
        assert line in text.splitlines(), line
    assert text.count("On a GPU: not run") == 2
    (tmp_path / "targets.json").write_text(json.dumps([{**targets[0], "engine": "cuda"}]))
    assert speed.times_report.write_times(tmp_path).count("On a GPU: not run") == 1
