"""What serves a model: options, and what sets two measurements apart."""

from __future__ import annotations

import dataclasses

import onnxruntime
import pytest
import torch

from snnprune.errors import ConfigError
from snnprune.options import about
from snnprune.timing import serving, sessions
from snnprune.timing.serving import Serving


@pytest.mark.parametrize(
    "options",
    [
        {"engine": "tpu"},
        {"engine": None},
        {"batch": 0},
        {"batch": 1.5},
        {"batch": True},
        {"precision": "int8"},
        {"threads": 0},
        {"threads": 2**16},
    ],
)
def test_every_option_is_checked(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Serving(**options)


def test_a_name_that_is_no_option():
    with pytest.raises(ConfigError, match=r"batch=\.\.\."):
        Serving(batches=2)  # type: ignore[call-arg]
    assert set(Serving().to_dict()) == set(about(Serving)) == {"engine", "batch", "precision", "threads"}
    assert "inputs per call" in str(Serving.__doc__)


def test_auto_is_cuda_only_where_that_really_serves(monkeypatch):
    monkeypatch.setattr(sessions, "cuda_serves", lambda: True)
    assert Serving().resolved().engine == "cuda"
    monkeypatch.setattr(sessions, "cuda_serves", lambda: False)
    assert Serving(batch=4).resolved() == Serving(engine="cpu", batch=4)
    assert Serving(engine="torch").resolved() == Serving(engine="torch")
    with pytest.raises(ConfigError, match="not resolved"):
        _ = Serving().on_gpu


@pytest.mark.parametrize("gpu", [False, True])
def test_who_computes(monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    found = {
        e: Serving(engine=e).on_gpu for e in ("cpu", "cuda", "cuda-graphs", "tensorrt", "torch", "torch-graphs")
    }
    assert found == {
        "cpu": False,
        "cuda": True,
        "cuda-graphs": True,
        "tensorrt": True,
        "torch": gpu,
        "torch-graphs": True,
    }


def test_the_key_tells_measurements_apart(monkeypatch):
    base = Serving(engine="cpu")
    others = {"engine": "torch", "batch": 2, "precision": "fp16", "threads": 2}
    assert set(others) == {f.name for f in dataclasses.fields(Serving)}
    keys = [base.key(), *(dataclasses.replace(base, **{name: value}).key() for name, value in others.items())]
    assert all(one != other for i, one in enumerate(keys) for other in keys[:i])
    assert base.key()["version"] == f"onnxruntime {onnxruntime.__version__}"
    assert Serving(engine="torch").key()["version"] == f"torch {torch.__version__}"
    monkeypatch.setattr(serving, "cpu_name", lambda: "another")
    assert base.key() != keys[0]
    assert base.key()["device"] == "another"


def test_the_key_of_a_gpu_has_its_driver(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(serving, "_driver", lambda: "580.95.05")
    key = Serving(engine="cuda").key()
    assert (key["device"], key["driver"], key["cuda"]) == ("NVIDIA H100", "580.95.05", torch.version.cuda)


def test_the_name_of_a_cpu(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: other\n")
    monkeypatch.setattr(serving, "_CPUINFO", info)
    assert serving.cpu_name() == "Some CPU @ 2 GHz"
    info.write_text("processor\t: 0\n")
    assert serving.cpu_name() != ""


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23\nGCC version: 13.3.0",
            "580.95.05",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\n", "570.124.06"),
        ("something else", None),
    ],
)
def test_the_version_of_a_driver(monkeypatch, tmp_path, text, version):
    file = tmp_path / "version"
    file.write_text(text)
    monkeypatch.setattr(serving, "_DRIVER", file)
    assert serving._driver() == version
    monkeypatch.setattr(serving, "_DRIVER", tmp_path / "none")
    assert serving._driver() is None
