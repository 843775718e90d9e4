"""Latency of ONNX files: what is timed, and what is said about who served it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from snnprune import bench
from snnprune.cli.main import run
from snnprune.errors import ConfigError, ExportError
from snnprune.export import export_onnx


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    torch.manual_seed(0)
    for name, width in (("small", 4), ("large", 512)):
        net = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3), nn.Flatten())
        export_onnx(net, folder / f"{name}.onnx", torch.randn(2, 3, 12, 12))
    return folder / "large.onnx", folder / "small.onnx"


def test_a_larger_network_takes_longer_and_everything_is_told(files):
    found = bench.bench_onnx(files, batch_sizes=[1, 4], calls=9, warm_up=1, provider="cpu", threads=1)
    assert [(one.path, one.batch) for one in found] == [(str(f), b) for b in (1, 4) for f in files]
    for large, small in (found[:2], found[2:]):
        assert large.median_ms > 2 * small.median_ms
        assert 0 < large.p10_ms <= large.median_ms <= large.p90_ms
        assert (large.provider, large.calls, large.launch_bound) == ("CPUExecutionProvider", 9, None)


def test_a_fixed_batch_size_is_named(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval()
    program = torch.onnx.export(net, (torch.randn(2, 3, 4),), dynamo=True, verbose=False)
    program.save(tmp_path / "fixed.onnx")
    assert bench.bench_onnx([tmp_path / "fixed.onnx"], batch_sizes=[2], calls=1)[0].batch == 2
    with pytest.raises(ExportError, match="fixed at 2; 3 was asked for"):
        bench.bench_onnx([tmp_path / "fixed.onnx"], batch_sizes=[3])


@pytest.mark.parametrize(
    "options", [{"calls": 0}, {"batch_sizes": [0]}, {"batch_sizes": []}, {"warm_up": -1}, {"provider": "tpu"}]
)
def test_bad_numbers_are_refused(files, options):
    with pytest.raises(ConfigError):
        bench.bench_onnx(files, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_that_does_not_serve_is_an_error_with_its_cure(files):
    with pytest.raises(ExportError, match=r"does not get the CUDA provider here.*onnxruntime-gpu\[cuda,cudnn\]"):
        bench.bench_onnx(files, provider="cuda", calls=1)


def test_launch_bound_is_judged_on_the_gpu_alone():
    def one(batch, ms, provider="CUDAExecutionProvider"):
        return bench.Latency("a", provider, batch, ms, ms, ms, 5)

    assert bench._judged(one(1, 1.0), [one(1, 1.0), one(32, 1.1)]).launch_bound is True
    assert bench._judged(one(1, 1.0), [one(1, 1.0), one(32, 9.0)]).launch_bound is False
    assert bench._judged(one(1, 1.0), [one(1, 1.0), one(2, 1.0)]).launch_bound is None
    assert bench._judged(one(1, 1.0, "CPUExecutionProvider"), [one(32, 1.0)]).launch_bound is None


def test_the_command(files, capsys, here, monkeypatch):
    names = [str(f) for f in files]
    assert run(["bench", *names, "--batch-size", "2", "--calls", "3", "--provider", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(f["path"], f["batch"], f["calls"]) for f in found] == [(n, 2, 3) for n in names]
    monkeypatch.setattr("snnprune.cli.bench.console.width", 160)
    assert run(["bench", *names, "--calls", "3", "--warm-up", "0"]) == 0
    out = capsys.readouterr().out
    assert out.count("1.00x") >= 2
    assert "speed-up" in out
    (here / "broken.onnx").write_bytes(b"no model")
    assert run(["bench", "broken.onnx"]) == 1
    assert "ONNX Runtime cannot load broken.onnx" in capsys.readouterr().err
    assert run(["bench", "nowhere.onnx"]) == 1
    assert "there is no file nowhere.onnx" in capsys.readouterr().err
