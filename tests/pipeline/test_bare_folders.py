"""Folders without all that a run holds: what can be done is done, what cannot names the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from conftest import DIGITS
from safetensors.torch import load_file

import snnprune
from snnprune.cli.main import run
from snnprune.registry import build
from snnprune.runs.folder import open_model

ARCH = ["--arch", DIGITS]


@pytest.fixture
def bare(finished) -> Path:
    """The finished run's model as `snnprune.save` writes it."""
    snnprune.save(open_model(finished, arch=DIGITS).model, "bare")
    return Path("bare")


def test_a_saved_model_is_evaluated_and_inspected(bare, finished, capsys):
    for folder in (bare, finished):
        assert run(["evaluate", str(folder), *ARCH, "--data", "digits", "--json"]) == 0
    first, second = json.loads("[" + capsys.readouterr().out.replace("}\n{", "},{") + "]")
    assert first["accuracy"] == second["accuracy"]
    assert run(["inspect", str(bare), *ARCH, "--image-size", "8"]) == 0


def test_a_saved_model_is_exported(bare, said):
    assert run(["export", str(bare), "--onnx", *ARCH, "--image-size", "8"]) == 0
    session = onnxruntime.InferenceSession(bare / "model.onnx", providers=["CPUExecutionProvider"])
    x = torch.rand(3, 1, 8, 8)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(
        torch.from_numpy(found), open_model(bare, arch=DIGITS).model(x), rtol=1e-3, atol=1e-4
    )
    assert snnprune.onnx_metadata(bare / "model.onnx")["snnprune.accuracy"] is None
    assert run(["export", str(bare), "--onnx", *ARCH, "--image-size", "8", "--output", "again.onnx"]) == 0
    assert Path("again.onnx").read_bytes() == (bare / "model.onnx").read_bytes()


def test_a_saved_model_names_what_is_missing(bare, said):
    for command in (["export", "bare", "--onnx"], ["compare", "bare"], ["inspect", "bare"]):
        assert "give the run's architecture with --arch" in said(run(command))
    text = said(run(["bench", "bare"]))
    assert "bare holds no model.onnx" in text
    assert "snnprune export bare --onnx" in text


def test_a_saved_model_is_compared_by_its_costs(bare, finished, capsys):
    assert run(["compare", "bare", *ARCH, "--image-size", "8", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    report = json.loads((finished / "report.json").read_text())
    for name in ("dense", "compact"):
        assert (found[name]["macs"], found[name]["params"]) == (report[name]["macs"], report[name]["params"])
    assert found["stored"] == report["stored"]
    assert not (Path("bare") / "report.html").exists()
    assert run(["compare", "bare", *ARCH, "--image-size", "8"]) == 0
    assert "holds no report.json" in capsys.readouterr().out
    assert run(["compare", "bare", str(finished), *ARCH, "--html", "both.html"]) == 0
    assert "free" not in Path("both.html").read_text().split("<section>")[0]  # of a target nothing is known


def test_a_run_without_recorded_outputs_is_checked_against_its_model(finished, said):
    (finished / "probe.safetensors").unlink()
    assert "--arch" in said(run(["export", str(finished), "--onnx"]))
    assert run(["export", str(finished), "--onnx", *ARCH, "--output", "out.onnx"]) == 0
    assert Path("out.onnx").read_bytes() == (finished / "model.onnx").read_bytes()


def test_a_run_of_several_inputs_says_what_to_use(finished, said):
    (finished / "probe.safetensors").unlink()
    content = json.loads((finished / "structure.json").read_text())
    (finished / "structure.json").write_text(json.dumps({**content, "input_shape": None}))
    text = said(run(["export", str(finished), "--onnx", *ARCH]))
    assert "more than one tensor" in text
    assert "Use its model.onnx as it is" in text


def test_what_is_no_folder_of_ours(here, said):
    Path("empty").mkdir()
    assert "empty is no finished run folder" in said(run(["export", "empty", "--onnx"]))
    assert "absent is not there" in said(run(["export", "absent", "--onnx"]))
    assert "empty is no run folder" in said(run(["compare", "empty"]))


def test_an_unfinished_run_is_named_by_every_command(here, said):
    Path("out.partial/checkpoint").mkdir(parents=True)
    Path("out.partial/checkpoint/state.pt").write_bytes(b"?")
    for name in ("out", "out.partial"):
        for command in (
            ["inspect", name],
            ["evaluate", name, "--data", "digits"],
            ["export", name, "--onnx"],
            ["compare", name],
        ):
            told = said(run(command))
            assert (
                f"{name} is a run that has not ended. Go on with: the command that began it and --output" in told
            )
    Path("out.partial/run.yaml").write_text("model: m.pt\n")
    told = said(run(["inspect", "out"]))
    assert "Go on with: snnprune optimize --config out.partial/run.yaml --output out --resume" in told


def test_sizes_compare_the_same_format(finished):
    report = json.loads((finished / "report.json").read_text())
    sizes = {"dense": build(DIGITS), "compact": open_model(finished, arch=DIGITS).model}
    for name, model in sizes.items():
        assert report["stored"][name] == sum(t.numel() * t.element_size() for t in model.state_dict().values())
    on_file = load_file(finished / "model.safetensors")
    assert report["stored"]["compact"] == sum(t.numel() * t.element_size() for t in on_file.values())
