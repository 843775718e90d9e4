"""A file is held against its model, in half precision also on the device that serves."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from torch import nn

import snnprune
from snnprune import parity, runtime
from snnprune.errors import ExportError
from snnprune.parity import check_onnx
from snnprune.protos import in_form
from snnprune.runtime import open_session


@pytest.fixture(scope="module")
def net() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    return nn.Sequential(*layers).eval(), torch.randn(5, 1, 10, 12)


@pytest.fixture(scope="module")
def free(net, tmp_path_factory) -> bytes:
    """A file with a free batch."""
    path = tmp_path_factory.mktemp("free") / "m.onnx"
    snnprune.export_onnx(net[0], path, net[1])
    return path.read_bytes()


class Device:
    """A session that says it is a GPU's, and computes a little else."""

    def __init__(self, session, factor: float) -> None:
        self.session, self.factor = session, factor

    def get_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_inputs(self):
        return self.session.get_inputs()

    def run(self, names, feed):
        return [output * self.factor for output in self.session.run(names, feed)]


def test_half_precision_is_also_checked_where_a_gpu_serves(net, free, tmp_path, monkeypatch):
    model, x = net
    half = in_form(free, fp16=True)

    def check(data: bytes, **options):
        return check_onnx(model, data, x, path=tmp_path, **options)

    monkeypatch.setattr(parity, "device_session", lambda data: None)
    alone = check(half, fp16=True)
    assert alone.differences == {"CPUExecutionProvider": alone.max_abs_error}
    assert alone.same_class == 1.0
    largest = float(model(x).detach().abs().max())
    monkeypatch.setattr(parity, "device_session", lambda data: Device(open_session(data), 1.007))
    both = check(half, fp16=True)
    assert list(both.differences) == ["CPUExecutionProvider", "CUDAExecutionProvider"]
    assert both.differences["CUDAExecutionProvider"] == pytest.approx(0.007 * largest, rel=0.3)
    assert both.max_abs_error == both.differences["CUDAExecutionProvider"]
    assert both.provider == "CPUExecutionProvider"
    assert list(check(free).differences) == ["CPUExecutionProvider"], "float32 is the CPU's matter"
    for factor, says in ((1.02, "on CUDA ONNX Runtime differs"), (float("nan"), "not finite")):
        monkeypatch.setattr(parity, "device_session", lambda data, f=factor: Device(open_session(data), f))
        with pytest.raises(ExportError, match=says):
            check(half, fp16=True)
    with pytest.raises(ExportError, match="not finite"):  # and nothing of it is written
        snnprune.export_onnx(model, tmp_path / "wrong.onnx", x, fp16=True)
    assert not list(tmp_path.iterdir())


def test_the_share_of_equal_classes_is_counted(tmp_path, free, net, monkeypatch):
    """A file half of whose rows say another class, within what half precision may differ by."""
    close = torch.tensor([[100.0, 99.99, 0.0], [100.0, 99.0, 0.0]])

    class Close(nn.Module):
        def forward(self, x):
            return close[: len(x)]

    swapped = close.clone()
    swapped[0, 1] = 100.01

    class Session(Device):
        def run(self, names, feed):
            return [swapped[: len(next(iter(feed.values())))].numpy()]

    monkeypatch.setattr(parity, "open_session", lambda data: Session(open_session(data), 1.0))
    monkeypatch.setattr(parity, "device_session", lambda data: None)
    check = check_onnx(Close(), free, net[1][:2], path=tmp_path, fp16=True)
    assert check.same_class == 0.5


def test_a_gpu_is_taken_only_where_it_really_serves(free, monkeypatch):
    asked = []

    def session(served: str):
        def opened(source, providers):
            asked.append(list(providers))
            return type("Session", (), {"get_providers": lambda self: [served]})()

        return opened

    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(runtime, "open_session", session("CUDAExecutionProvider"))
    assert runtime.device_session(free) is None
    assert not asked
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    assert runtime.device_session(free).get_providers() == ["CUDAExecutionProvider"]
    monkeypatch.setattr(runtime, "open_session", session("CPUExecutionProvider"))
    assert runtime.device_session(free) is None, "ONNX Runtime has fallen back to the CPU without a word"
    assert asked == [both, both]
