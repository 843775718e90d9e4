"""Export of a finished run: checked, made again, or not delivered."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import DIGITS
from safetensors.torch import load_file, save_file
from torch import nn

import snnprune
from pipeline.conftest import MADE, PAGE, names, tree
from snnprune.cli.main import run
from snnprune.errors import ExportError
from snnprune.runs.delivery import deliver_onnx


def test_export_takes_the_newest_run_and_checks_it(finished, capsys):
    older = finished.with_name("older")
    shutil.copytree(finished, older)
    os.utime(older / "report.json", (1, 1))
    (finished.with_name("unfinished.partial")).mkdir()
    before = tree(finished)
    assert run(["export", "--onnx"]) == 0
    out = capsys.readouterr().out
    assert f"wrote {Path('runs/digits/model.onnx')}" in out
    assert "agrees with the model" in out
    assert tree(finished) == before


def test_export_to_another_file_and_in_half_precision(finished, capsys):
    assert run(["export", str(finished), "--onnx", "--output", "new/place/m.onnx"]) == 0
    assert Path("new/place/m.onnx").read_bytes() == (finished / "model.onnx").read_bytes()
    assert run(["export", str(finished), "--onnx", "--fp16", "--output", "half.onnx"]) == 0
    half, full = onnx.load("half.onnx"), onnx.load(finished / "model.onnx")

    def kinds(proto) -> set[int]:
        return {t.data_type for t in proto.graph.initializer if len(t.dims) > 1}

    assert kinds(half) == {onnx.TensorProto.FLOAT16}
    assert kinds(full) == {onnx.TensorProto.FLOAT}
    assert Path("half.onnx").stat().st_size < 0.65 * (finished / "model.onnx").stat().st_size
    probe = load_file(finished / "probe.safetensors")
    session = onnxruntime.InferenceSession("half.onnx", providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {session.get_inputs()[0].name: probe["inputs"].numpy()})
    assert outputs.dtype == np.float32
    assert np.abs(outputs - probe["outputs"].numpy()).max() < 5e-3 * probe["outputs"].abs().max()
    assert names(finished) == MADE | PAGE
    assert run(["export", str(finished), "--onnx", "--fp16"]) == 0
    assert names(finished) == {*MADE, *PAGE, "model-fp16.onnx"}


def test_a_run_without_its_onnx_file_is_exported_again(finished, said):
    (finished / "model.onnx").unlink()
    structure = json.loads((finished / "structure.json").read_text())
    structure["onnx_sha256"] = "0" * 64  # as if another exporter had made the file
    (finished / "structure.json").write_text(json.dumps(structure))
    assert "--arch" in said(run(["export", "--onnx"]))
    assert not (finished / "model.onnx").exists()
    for _ in range(2):  # the file that was made is then the run's own
        assert run(["export", "--onnx", "--arch", DIGITS]) == 0
    assert run(["evaluate", str(finished / "model.onnx"), "--data", "digits"]) == 0


def test_export_needs_to_be_told_what(finished, said):
    assert "--onnx" in said(run(["export"]))


def test_export_without_any_run(here, said):
    assert "no finished run in runs/" in said(run(["export", "--onnx"]))
    Path("runs/half.partial").mkdir(parents=True)
    assert "no finished run in runs/" in said(run(["export", "--onnx"]))
    assert "nowhere is not there" in said(run(["export", "nowhere", "--onnx"]))
    Path("other").mkdir()
    assert "other is no finished run folder" in said(run(["export", "other", "--onnx"]))
    assert tree(here) == {}


def other_onnx(size: int = 8) -> bytes:
    """A valid model of another kind of image, or of the same with other weights."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 10))
    snnprune.export_onnx(model, "other.onnx", torch.rand(4, 1, size, size))
    return Path("other.onnx").read_bytes()


@pytest.mark.parametrize("how", ["bytes", "cut", "empty", "garbage", "other weights", "other images", "metadata"])
@pytest.mark.parametrize("recorded", [True, False], ids=["digest", "no digest"])
def test_a_damaged_onnx_file_is_not_delivered(finished, said, here, how, recorded):
    file = finished / "model.onnx"
    data = file.read_bytes()
    if how == "bytes":  # the middle of the largest weight
        proto = onnx.load_model_from_string(data)
        raw = max((t.raw_data for t in proto.graph.initializer), key=len)
        at = data.index(raw) + len(raw) // 2 // 4 * 4
        data = data[:at] + np.full(64, 7, np.float32).tobytes() + data[at + 256 :]
    elif how == "metadata":  # computes the same, and tells users to feed it something else
        if not recorded:
            pytest.skip("runs of before cannot notice")
        assert data.count(b'"mean": [0.3') == 1
        data = data.replace(b'"mean": [0.3', b'"mean": [0.8')
    elif how.startswith("other"):
        data = other_onnx(8 if how == "other weights" else 9)
        Path("other.onnx").unlink()
    else:
        data = {"cut": data[: len(data) // 2], "empty": b"", "garbage": b"?" * 5000}[how]
    file.write_bytes(data)
    if not recorded:
        structure = json.loads((finished / "structure.json").read_text())
        del structure["onnx_sha256"]
        (finished / "structure.json").write_text(json.dumps(structure))
    before = tree(here)
    for options in (["--output", "out.onnx"], ["--fp16"], []):
        message = said(run(["export", "--onnx", *options]))
        assert str(Path("runs/digits/model.onnx")) in message
        assert "DEBUG" not in message
        assert tree(here) == before


def test_a_damaged_probe_is_noticed(finished, said):
    (finished / "probe.safetensors").write_bytes(b"?" * 100)
    assert "probe.safetensors cannot be read" in said(run(["export", "--onnx"]))
    (finished / "probe.safetensors").unlink()
    assert "probe.safetensors cannot be read" in said(run(["export", "--onnx"]))


def test_a_network_of_several_outputs_is_delivered_by_all_of_them(here):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.o, self.p = (nn.Linear(*io) for io in ((6, 24), (24, 3), (24, 2)))

        def forward(self, x):
            y = torch.relu(self.a(x))
            return {"classes": self.o(y), "box": self.p(y)}

    data = [(torch.randn(8, 6), torch.randint(0, 3, (8,))) for _ in range(4)]
    result = snnprune.optimize(
        Two(),
        data,
        None,
        snnprune.PruneConfig(target={"macs": 0.6}, epochs=1),
        loss_fn=lambda m, b: nn.functional.cross_entropy(m(b[0])["classes"], b[1]),
    )
    run_folder = result.save("runs/two")
    probe = load_file(run_folder / "probe.safetensors")
    with torch.no_grad():
        outputs = list(result.model.eval()(probe["inputs"]).values())
    assert set(probe) == {"inputs", "outputs.0", "outputs.1"}
    assert all(torch.equal(probe[f"outputs.{i}"], output) for i, output in enumerate(outputs))
    assert deliver_onnx(run_folder, Path("two.onnx")).batch_sizes == (1, 2, 3, 4)
    probe["outputs.1"][0, 0] += 1.0
    save_file(probe, run_folder / "probe.safetensors")
    with pytest.raises(ExportError, match=r"differs from the model by 1"):
        deliver_onnx(run_folder, Path("three.onnx"))


def test_another_form_of_a_runs_file_needs_no_code(finished, said, capsys):
    """A fixed batch larger than what was recorded, other names, both in half precision too."""
    before = tree(finished)
    form = ["--fixed-batch", "6", "--input-name", "image", "--output-name", "scores"]
    assert run(["export", "--onnx", *form]) == 0
    assert run(["export", "--onnx", *form, "--fp16"]) == 0
    capsys.readouterr()
    made = {"model-batch6-renamed.onnx", "model-fp16-batch6-renamed.onnx"}
    assert names(finished) == MADE | PAGE | made
    for name in made:
        session = onnxruntime.InferenceSession(finished / name, providers=["CPUExecutionProvider"])
        assert [(i.name, i.shape) for i in session.get_inputs()] == [("image", [6, 1, 8, 8])]
        assert [o.name for o in session.get_outputs()] == ["scores"]
        assert snnprune.onnx_metadata(finished / name) == snnprune.onnx_metadata(finished / "model.onnx")
    assert "takes images of 8x8 alone" in said(run(["export", "--onnx", "--dynamic-size", "--arch", DIGITS]))
    assert "--arch" in said(run(["export", "--onnx", "--dynamic-size"])), "the recorded file has one size"
    for name in made:
        (finished / name).unlink()
    assert tree(finished) == before


def test_a_run_in_int8(finished, said, capsys):
    before = tree(finished)
    message = said(run(["export", "--onnx", "--int8", "--data", "fake", "--num-classes", "3"]))
    assert "does not run on images of shape (3, 32, 32)" in message
    assert "--image-size" in message
    assert tree(finished) == before
    assert run(["export", "--onnx", "--int8", "--data", "digits", "--tolerance", "0.1"]) == 0
    assert "runs/digits/model-int8.onnx" in capsys.readouterr().out
    assert names(finished) == {*MADE, *PAGE, "model-int8.onnx"}
    told, of_run = (snnprune.onnx_metadata(finished / n) for n in ("model-int8.onnx", "model.onnx"))
    assert told["snnprune.normalization"] == of_run["snnprune.normalization"]
    assert told["snnprune.quantization"]["fp32_accuracy"] == of_run["snnprune.accuracy"]["value"]
    assert set(told["snnprune.accuracy"]) == set(of_run["snnprune.accuracy"])
