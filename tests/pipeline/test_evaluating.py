"""Runs and ONNX files are measured as they were made, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import DIGITS
from PIL import Image

import snnprune
from snnprune.cli.main import run
from snnprune.runs.folder import open_model


def test_a_run_and_its_onnx_files_have_the_accuracy_of_the_report(finished, capsys):
    accuracy = json.loads((finished / "report.json").read_text())["compact"]["accuracy"]
    assert run(["export", "--onnx", "--fp16", "--output", "half.onnx"]) == 0
    capsys.readouterr()
    for what in (finished, finished / "model.onnx", Path("half.onnx")):
        assert run(["evaluate", str(what), "--data", "digits", "--arch", DIGITS]) == 0
        out = capsys.readouterr().out
        assert f"{what}: accuracy {accuracy:.2%}" in out
        assert "on 360 test images of digits" in out


def test_a_run_brings_its_own_normalisation(made, here, capsys):
    """Evaluated on a folder, whose default constants are others, it sees what it was made with."""
    digits = snnprune.load_data("digits")
    for kind in ("train", "test"):
        for label in range(10):
            (here / "images" / kind / str(label)).mkdir(parents=True)
        for i, (image, label) in enumerate(zip(digits.test.images, digits.test.labels.tolist(), strict=True)):
            Image.fromarray(image[0].numpy()).save(here / "images" / kind / str(label) / f"{i:03}.png")
    opened = open_model(made / "run", arch=DIGITS)
    report = json.loads((made / "run" / "report.json").read_text())
    for what in (made / "run", made / "run" / "model.onnx"):
        capsys.readouterr()
        assert run(["evaluate", str(what), "--data", "images", "--arch", DIGITS]) == 0
        out = capsys.readouterr().out
        assert f"accuracy {report['compact']['accuracy']:.2%}, loss {report['compact']['loss']:.4f}" in out
    with_other = snnprune.load_data("digits", mean=[0.5], std=[0.5])
    expected = snnprune.evaluate(opened.model, with_other.test)
    assert f"{expected.loss:.4f}" != f"{report['compact']['loss']:.4f}"
    options = ["--arch", DIGITS, "--mean", "0.5", "--std", "0.5"]
    assert run(["evaluate", str(made / "run"), "--data", "images", *options]) == 0
    assert f"loss {expected.loss:.4f}" in capsys.readouterr().out


def test_a_damaged_run_is_not_measured(finished, said):
    path = finished / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x10
    path.write_bytes(data)
    for command in (["evaluate", "--data", "digits"], ["inspect"]):
        message = said(run([command[0], str(finished), *command[1:], "--arch", DIGITS]))
        assert f"{path} is not the file that structure.json was written for" in message
    path.unlink()
    assert "holds no model.safetensors" in said(
        run(["evaluate", str(finished), "--data", "digits", "--arch", DIGITS])
    )


@pytest.mark.parametrize("normalization", [3, "x", {"mean": "abc", "std": [1]}, {"mean": [1, 2], "std": [1]}])
def test_a_run_with_a_senseless_normalisation_is_refused_or_falls_back(finished, said, capsys, normalization):
    structure = json.loads((finished / "structure.json").read_text())
    (finished / "structure.json").write_text(json.dumps({**structure, "normalization": normalization}))
    code = run(["evaluate", str(finished), "--data", "digits", "--arch", DIGITS])
    if isinstance(normalization, dict):
        message = said(code)
        assert "--mean" in message
        assert "DEBUG" not in message
    else:
        assert code == 0


def test_onnx_files_that_are_none(finished, said):
    assert "there is no file absent.onnx" in said(run(["evaluate", "absent.onnx", "--data", "digits"]))
    Path("bad.onnx").write_bytes(b"?" * 100)
    message = said(run(["evaluate", "bad.onnx", "--data", "digits"]))
    assert "cannot load bad.onnx" in message


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("run", ["digits", "--image-size", "16"]),
        ("run", ["digits", "--image-size", "4"]),
        ("run", ["fake", "--image-size", "8"]),
        ("run/model.onnx", ["digits", "--image-size", "16"]),
        ("run/model.onnx", ["fake", "--image-size", "8"]),
    ],
    ids=str,
)
def test_evaluate_on_images_that_do_not_fit(made, said, what, data):
    args = ["evaluate", str(made / what), "--arch", DIGITS, "--mean", "0.5", "--std", "0.5", "--data"]
    message = said(run([*args, *data]))
    assert "image size" in message.replace("--image-size", "image size")
    assert "DEBUG" not in message


@pytest.mark.parametrize("what", ["run", "run/model.onnx"])
def test_evaluate_on_other_classes_is_refused(made, said, here, what):
    for kind in ("train", "test"):
        for name in ("a", "b", "c"):
            (here / "images" / kind / name).mkdir(parents=True)
            for k in range(2):
                Image.new("L", (8, 8), 50 * k).save(here / "images" / kind / name / f"{k}.png")
    message = said(run(["evaluate", str(made / what), "--arch", DIGITS, "--data", "images"]))
    assert "10 outputs" in message
    assert "images has 3 classes" in message
