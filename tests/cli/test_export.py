"""`snnprune export`: forms of a file, int8, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from conftest import DIGITS

import snnprune
from cli.conftest import ARCH
from snnprune.cli.main import run
from snnprune.registry import build


def shape_of(path: str) -> tuple[list, list[str]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in (*session.get_inputs(), *session.get_outputs())]
    return session.get_inputs()[0].shape, names


def test_a_file_of_another_form(here, capsys):
    told = ["--fixed-batch", "4", "--input-name", "image", "--output-name", "scores"]
    assert run(["export", "digits.pt", "--onnx", *ARCH, *told, "--output", "m.onnx"]) == 0
    assert shape_of("m.onnx") == ([4, 1, 8, 8], ["image", "scores"])
    assert "at batch sizes 4, on CPU" in capsys.readouterr().out
    assert run(["export", "digits.pt", "--onnx", *ARCH, "--fp16", "--output", "h.onnx"]) == 0
    out = capsys.readouterr().out
    assert "it was not run on a GPU, because ONNX Runtime gets none here" in out
    assert "of the inputs tried are in the class that the model says" in out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--int8"], "name them with --data"),
        (["--int8", "--fp16", "--data", "digits"], "--int8 and --fp16 are two files"),
        (["--data", "digits"], "--data is for --int8"),
        (["--int8", "--data", "digits", "--tolerance", "2"], "tolerance=2.0 must be a number in [0, 1]"),
        (["--int8", "--data", "digits", "--tolerance", "-0.5"], "tolerance=-0.5"),
        (["--int8", "--data", "digits", "--tolerance", "nan"], "tolerance=nan"),
        (["--int8", "--data", "digits", "--tolerance", "little"], "--tolerance"),
        (["--int8", "--data", "digits", "--calibration", "0"], "calibration_size=0"),
        (["--int8", "--data", "digits", "--calibration-method", "best"], "minmax, entropy, percentile"),
        (["--int8", "--data", "digits", "--engine", "gpu"], "cpu, cpu-vnni, tensorrt"),
        (["--int8", "--data", "nothing"], "nothing"),
        (["--fixed-batch", "0"], "batch=0"),
        (["--input-name", "a", "--input-name", "b"], "input_names: the file has 1 of them"),
        (["--dynamic-size"], "the model itself takes images of 8x8 alone"),
    ],
)
def test_wrong_flags(refused, given, says):
    refused("export", "digits.pt", "--onnx", *ARCH, *given, says=says)


def test_an_onnx_file_of_somebodys_in_int8(here, refused, capsys):
    model = build(DIGITS)
    model.load_state_dict(torch.load(Path(__file__).parents[2] / "models" / "digits_cnn.pt"))
    snnprune.export_onnx(model, "full.onnx", torch.rand(4, 1, 8, 8))
    assert run(["export", "full.onnx", "--onnx", "--int8", "--data", "digits", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == "full-int8.onnx"
    assert told["val"]["fp32"] - told["val"]["int8"] <= 0.01
    assert told["test"]["int8"] > 0.97
    assert told["bytes"] == Path("full-int8.onnx").stat().st_size < 0.4 * Path("full.onnx").stat().st_size
    refused("export", "full.onnx", "--onnx", "--int8", "--data", "digits", says="full-int8.onnx exists already")
    assert run(["evaluate", "full-int8.onnx", "--data", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == told["test"]["int8"]
    Path("broken.onnx").write_bytes(Path("full.onnx").read_bytes()[:1000])
    common = ["--onnx", "--int8", "--data", "digits", "--output", "q.onnx"]
    refused("export", "broken.onnx", *common, says="cannot load broken.onnx")
    refused("export", "full-int8.onnx", *common, says="quantised already")
    refused("export", "full.onnx", *common, "--dynamic-size", says="whose sizes are what they are")
    refused("export", "missing.onnx", *common, says="missing.onnx")
    fixed = ["--fixed-batch", "32", "--output-name", "scores"]
    assert run(["export", "full.onnx", *common, *fixed]) == 0
    assert shape_of("q.onnx")[0][0] == 32
    assert shape_of("q.onnx")[1][1] == "scores"
    capsys.readouterr()
    assert run(["evaluate", "q.onnx", "--data", "digits", "--json"]) == 0, "also where batches are of another size"
    assert json.loads(capsys.readouterr().out)["count"] == 360


def test_a_model_file_in_int8_says_how_its_inputs_are_normalised(here, capsys):
    """Untrained, so that classes are close to each other, and all may be lost."""
    options = ["--int8", "--data", "digits", "--tolerance", "1", "--calibration", "16"]
    assert run(["export", "digits.pt", "--onnx", *ARCH, *options]) == 0
    out = capsys.readouterr().out
    assert "wrote digits-int8.onnx" in out
    assert "4 of 4 layers have weights of 8 bits" in out
    assert "calibrated on 16 training inputs" in out
    assert "\nvalidation: accuracy" in out
    assert "\ntest: accuracy" in out
    told = snnprune.onnx_metadata("digits-int8.onnx")
    assert set(told["snnprune.normalization"]) == {"mean", "std"}
    assert told["snnprune.classes"] == [str(i) for i in range(10)]
