"""ONNX files as ONNX Runtime serves them; whoever else serves in its place is noticed."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from snnprune.errors import ExportError
from snnprune.export import export_onnx
from snnprune.protos import in_form
from snnprune.timing import sessions
from snnprune.timing.serving import Serving


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    path = tmp_path_factory.mktemp("sessions") / "net.onnx"
    export_onnx(net, path, torch.randn(2, 3, 8, 8))
    return path


class Recorded:
    """What the sessions that are made were asked for."""

    def __init__(self, monkeypatch) -> None:
        self.made: list[tuple] = []
        open_session = sessions.open_session

        def opened(source, providers=(sessions.CPU,), **options):
            session = open_session(source, providers, **options)
            self.made.append((source, tuple(providers), options))
            return session

        monkeypatch.setattr(sessions, "open_session", opened)


def test_a_file_and_its_content(file):
    for source in (file, file.read_bytes()):
        served = sessions.serve_file(source, Serving(engine="cpu", batch=3))
        served.call()
        assert (served.provider, served.precision) == ("CPUExecutionProvider", "fp32")


def test_threads_are_those_asked_for(file, monkeypatch):
    options = []
    made = onnxruntime.SessionOptions

    def noted():
        options.append(made())
        return options[-1]

    monkeypatch.setattr(onnxruntime, "SessionOptions", noted)
    for threads in (1, 2):
        sessions.serve_file(file, Serving(engine="cpu", threads=threads))
        assert options[-1].intra_op_num_threads == threads
    assert options[-1].get_session_config_entry("session.force_spinning_stop") == "1"
    with pytest.raises(RuntimeError):
        options[0].get_session_config_entry("session.force_spinning_stop")


def test_half_precision_is_made_once(file, monkeypatch):
    seen = Recorded(monkeypatch)
    assert sessions.serve_file(file, Serving(engine="cpu", precision="fp16")).precision == "fp16"
    source = seen.made[-1][0]
    assert {w.data_type for w in onnx.load_model_from_string(source).graph.initializer} >= {
        onnx.TensorProto.FLOAT16
    }
    half = in_form(file.read_bytes(), fp16=True)
    monkeypatch.setattr(sessions, "in_form", lambda _data, **_form: pytest.fail("converted twice"))
    for precision in ("fp16", "fp32"):
        assert sessions.serve_file(half, Serving(engine="cpu", precision=precision)).precision == "fp16"
        assert seen.made[-1][0] == half


def test_what_cannot_be_halved_is_named(file, monkeypatch):
    def fails(_data, **_form):
        raise ValueError("no such type")

    monkeypatch.setattr(sessions, "in_form", fails)
    with pytest.raises(ExportError, match=r"net\.onnx cannot be converted to half precision \(no such type\)"):
        sessions.serve_file(file, Serving(engine="cpu", precision="fp16"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("engine", "says"),
    [
        ("cuda", r"does not get the CUDA provider here.*onnxruntime-gpu\[cuda,cudnn\]"),
        ("cuda-graphs", "does not get the CUDA provider here"),
        ("tensorrt", r"does not get the TensorRT provider here.*pip install tensorrt"),
    ],
)
def test_who_falls_back_to_the_cpu_is_refused(file, engine, says, capfd):
    with pytest.raises(ExportError, match=says):
        sessions.serve_file(file, Serving(engine=engine))
    assert capfd.readouterr() == ("", "")
    assert sessions.cuda_serves() is False


class Fake:
    """A session of ONNX Runtime's on the CPU that says it is another's."""

    def __init__(self, real, provider) -> None:
        self.real, self.provider = real, provider

    def get_providers(self):
        return [self.provider, sessions.CPU]

    def __getattr__(self, name):
        return getattr(self.real, name)


def pretended(monkeypatch, provider, refused=()):
    """`open_session` as on a machine with a GPU, where some settings fail; what it was asked for."""
    asked = []
    real = sessions.open_session

    def opened(source, providers=(sessions.CPU,), *, threads=0, settings=None):
        if tuple(providers) == (sessions.CPU,):
            return real(source, threads=threads)
        given = (settings or {}).get(provider, {})
        asked.append(dict(given))
        if any(name in given for name in refused):
            raise ExportError(f"no {', '.join(given)}")
        return Fake(real(source, threads=threads), provider)

    monkeypatch.setattr(sessions, "open_session", opened)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [sessions.TENSORRT, sessions.CUDA, sessions.CPU]
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("loading"), raising=False)
    inputs = sessions._inputs
    monkeypatch.setattr(
        sessions, "_inputs", lambda name, session, batch, _device: inputs(name, session, batch, "cpu")
    )
    bound = onnxruntime.IOBinding.bind_output
    monkeypatch.setattr(onnxruntime.IOBinding, "bind_output", lambda self, name, _device: bound(self, name, "cpu"))
    return asked


def test_cuda_is_asked_for_channels_last_first(file, monkeypatch, capsys):
    asked = pretended(monkeypatch, sessions.CUDA)
    served = sessions.serve_file(file, Serving(engine="cuda"))
    assert (served.provider, asked) == ("CUDAExecutionProvider", [{"prefer_nhwc": "1"}])
    assert capsys.readouterr().out == ""
    asked = pretended(monkeypatch, sessions.CUDA, refused=["prefer_nhwc"])
    sessions.serve_file(file, Serving(engine="cuda"))
    assert asked == [{"prefer_nhwc": "1"}, {}]


def test_a_graph_writes_to_the_same_places(file, monkeypatch):
    asked = pretended(monkeypatch, sessions.CUDA)
    bound = []
    bind = onnxruntime.IOBinding.bind_ortvalue_output
    monkeypatch.setattr(
        onnxruntime.IOBinding,
        "bind_ortvalue_output",
        lambda self, name, value: (bound.append((name, value.data_ptr())), bind(self, name, value)),
    )
    served = sessions.serve_file(file, Serving(engine="cuda-graphs", batch=2))
    served.call()
    assert asked == [{"enable_cuda_graph": "1", "prefer_nhwc": "1"}]
    assert len(bound) == 1
    pretended(monkeypatch, sessions.CUDA, refused=["enable_cuda_graph"])
    with pytest.raises(ExportError, match="no enable_cuda_graph"):
        sessions.serve_file(file, Serving(engine="cuda-graphs"))


def test_tensorrt_converts_by_itself(file, monkeypatch):
    asked = pretended(monkeypatch, sessions.TENSORRT)
    monkeypatch.setattr(sessions, "in_form", lambda _data, **_form: pytest.fail("converted for it"))
    assert sessions.serve_file(file, Serving(engine="tensorrt", precision="fp16")).precision == "fp16"
    assert sessions.serve_file(file, Serving(engine="tensorrt")).precision == "fp32"
    assert asked == [{"trt_engine_cache_enable": "0", "trt_fp16_enable": "1"}, {"trt_engine_cache_enable": "0"}]


def test_auto_finds_who_serves(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    sessions._tried.cache_clear()
    pretended(monkeypatch, sessions.CUDA)
    assert sessions.cuda_serves() is True
    monkeypatch.undo()
    sessions._tried.cache_clear()


def test_inputs_are_of_the_files_own_types(tmp_path):
    net = nn.Embedding(50, 4).eval()
    program = torch.onnx.export(
        net, (torch.ones(2, 3, dtype=torch.long),), dynamo=True, verbose=False, dynamic_shapes=({0: "batch"},)
    )
    program.save(tmp_path / "words.onnx")
    session = sessions.open_session(tmp_path / "words.onnx")
    ((_, values),) = sessions._inputs("words", session, 5, "cpu")
    assert (values.numpy().shape, values.numpy().dtype) == ((5, 3), np.int64)


def test_broken_and_missing_files(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(os.urandom(64))
    with pytest.raises(ExportError, match=r"cannot load .*broken\.onnx"):
        sessions.serve_file(tmp_path / "broken.onnx", Serving(engine="cpu", precision="fp16"))
    with pytest.raises(ExportError, match="there is no file"):
        sessions.serve_file(tmp_path / "none.onnx", Serving(engine="cpu"))
