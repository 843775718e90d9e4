"""The doctor: well here, and not fooled where something is broken."""

from __future__ import annotations

import json
import types

import pytest
import torch

from snnprune import doctor
from snnprune.cli.main import run
from snnprune.errors import ExportError


@pytest.fixture
def found(monkeypatch):
    """Findings by name, without the seconds of a real export where it is not what is tested."""

    def examine() -> dict[str, doctor.Finding]:
        return {f.what: f for f in doctor.examine()}

    def export(_model, path, _inputs):
        path.write_bytes(b"")
        return types.SimpleNamespace(opset=20, max_abs_error=1e-7)

    monkeypatch.setattr(doctor, "export_onnx", export)
    return examine


def test_a_whole_machine_is_healthy(here, capsys):
    assert run(["doctor", "--json"]) == 0
    captured = capsys.readouterr()
    findings = {f["what"]: f for f in json.loads(captured.out)}
    assert {f["state"] for f in findings.values()} <= {"ok", "warning"}
    for what in ("versions", "machine", "torchvision", "ONNX export", "ONNX Runtime", "working folder"):
        assert findings[what]["state"] == "ok", findings[what]
    assert "torch" in findings["versions"]["found"]
    assert "GPU in PyTorch" in captured.err
    assert list(here.iterdir()) == []


def test_torchvision_of_another_build(found, monkeypatch, here):
    import torchvision

    def nms(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", nms)
    finding = found()["torchvision"]
    assert (finding.state, "nms does not exist" in finding.found) == ("wrong", True)
    assert "pip install --force-reinstall torch torchvision" in finding.cure
    assert run(["doctor"]) == 1


def test_an_exporter_that_fails(here, monkeypatch):
    def export(*_):
        raise ImportError("onnxscript is missing")

    monkeypatch.setattr(doctor, "export_onnx", export)
    findings = {f.what: f for f in doctor.examine()}
    assert findings["ONNX export"].state == "wrong"
    assert "onnxscript" in findings["ONNX export"].cure
    assert "ONNX Runtime" not in findings


def test_a_gpu_that_onnx_runtime_does_not_get(found, monkeypatch, here):
    """As ONNX Runtime falls back to the CPU without a word."""
    monkeypatch.setattr(doctor, "_gpu", lambda: doctor.Finding("GPU in PyTorch", "ok", "one"))
    monkeypatch.setattr(doctor, "_half", lambda: doctor.Finding("half precision", "ok", ""))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def bench(_paths, **options):
        assert options["engine"] == "cuda"
        raise ExportError("ONNX Runtime does not get the CUDA provider here.")

    monkeypatch.setattr(doctor, "bench_onnx", bench)
    finding = found()["ONNX Runtime"]
    assert finding.state == "warning"
    assert "driver" in finding.cure
    monkeypatch.setattr(
        doctor, "bench_onnx", lambda *_a, **_o: [types.SimpleNamespace(provider="CUDAExecutionProvider")]
    )
    assert "CUDAExecutionProvider" in found()["ONNX Runtime"].found


def test_a_folder_that_cannot_be_written(found, monkeypatch, here):
    import tempfile

    def refused(*_a, **_o):
        raise PermissionError("read-only")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refused)
    assert found()["working folder"].state == "wrong"
