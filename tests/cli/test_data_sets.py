"""Data sets that are refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import Explosive
from PIL import Image

from cli.conftest import ARCH, command
from snnprune.cli.main import run
from snnprune.registry import build


def write_images(folder: str, classes: int, mode: str = "L", side: int = 8, count: int = 3) -> str:
    for kind in ("train", "test"):
        for label in range(classes):
            inner = Path(folder, kind, f"c{label}")
            inner.mkdir(parents=True)
            for k in range(count):
                Image.new(mode, (side, side), 20 * k).save(inner / f"{k}.png")
    return folder


@pytest.mark.parametrize(
    ("data", "more"),
    [("digits", ["--image-size", "16"]), ("digits", ["--image-size", "6"]), ("d.npz", []), ("large", [])],
    ids=["larger", "smaller", "colour", "large"],
)
def test_images_that_do_not_fit_the_model(refused, data, more):
    if data == "d.npz":
        npz(x_train=np.zeros((20, 8, 8, 3), np.uint8), x_test=np.zeros((10, 8, 8, 3), np.uint8))
    elif data == "large":
        write_images(data, 10, side=20)
    refused(*command("digits.pt", data, *ARCH, *more), says=("does not run", "image size", "channels"))


def test_another_number_of_classes(refused):
    write_images("three", 3)
    refused(*command("digits.pt", "three", *ARCH), says=("10 outputs", "three has 3 classes"))


def test_an_empty_class(refused):
    write_images("images", 10)
    for file in Path("images/train/c4").iterdir():
        file.unlink()
    refused(*command("digits.pt", "images", *ARCH), says="images/train/c4 holds no image")


def test_a_folder_without_a_training_part(refused):
    write_images("images", 10)
    os.rename("images/train", "images/learn")
    refused(*command("digits.pt", "images", *ARCH), says=("images must hold train/<class>/", "test/<class>/"))


@pytest.mark.parametrize("content", [b"no image", b"", b"\x89PNG\r\n\x1a\n"], ids=["text", "empty", "head"])
def test_an_image_that_is_none(refused, content):
    write_images("images", 10)
    Path("images/train/c4/1.png").write_bytes(content)
    refused(
        *command("digits.pt", "images", *ARCH),
        says=("images/train/c4/1.png is no readable image", "Mend, replace or remove it."),
    )


@pytest.mark.parametrize("name", ["cifar11", "absent/folder", "absent.npz", "DIGITS", ""])
def test_an_unknown_data_set(refused, name):
    more = "no folder or .npz file of that name" if "absent" in name else "digits"
    refused(*command("digits.pt", name, *ARCH), says=(f"data set {name!r}", more))


@pytest.mark.parametrize("name", ["photo", "./photo"])
def test_a_folder_whose_name_is_misspelt(refused, name):
    Path("photos.txt").write_text("no data")
    Path("photos").mkdir()
    refused(*command("digits.pt", name, *ARCH), says=(f"data set {name!r}", "Did you mean photos?"))


def test_images_that_lie_in_no_folders_of_classes(refused):
    write_images("images", 10)
    refused(*command("digits.pt", "images/train/c4", *ARCH), says=("holds 0 class folders", "folder of their own"))


@pytest.mark.parametrize("spec", ["absent.py:fn", "no_such_module:fn", "math:nothing", "math:gcd"])
def test_data_from_code_that_is_none(refused, spec):
    refused(*command("digits.pt", spec, *ARCH), says=spec.split(":")[0])


def npz(**changes: np.ndarray | None) -> str:
    content = {
        "x_train": np.zeros((20, 8, 8), np.uint8),
        "y_train": np.arange(20) % 10,
        "x_test": np.zeros((10, 8, 8), np.uint8),
        "y_test": np.arange(10),
    }
    np.savez("d.npz", **{k: v for k, v in {**content, **changes}.items() if v is not None})
    return "d.npz"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_test": None}, "lacks the arrays y_test"),
        ({"x_train": np.zeros((20, 8, 8), np.float32)}, "x_train must be uint8"),
        ({"y_train": np.array([Explosive()] * 20, dtype=object)}, "y_train must be integer labels"),
        ({"x_train": np.array([Explosive()] * 20, dtype=object)}, "x_train must be uint8"),
        ({"y_train": np.arange(19)}, "20 integer labels"),
        ({"y_train": np.full(20, 10**15)}, "20 integer labels"),
    ],
    ids=["missing", "float", "object labels", "object images", "fewer labels", "huge labels"],
)
def test_a_bad_array_file(refused, here, changes, says):
    refused(*command("digits.pt", npz(**changes), *ARCH), says=("d.npz", says))
    assert not (here / "ran").exists()


def test_a_truncated_array_file(refused):
    path = Path(npz())
    path.write_bytes(path.read_bytes()[:900])
    refused(*command("digits.pt", "d.npz", *ARCH), says="d.npz is no readable .npz archive")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_is_read_as_the_model_takes_it(here, capsys, mode, channels):
    write_images("images", 3, mode)
    Path("net.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        f"    return nn.Sequential(nn.Conv2d({channels}, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))\n"
    )
    torch.save(build("net.py:net").state_dict(), "net.pt")
    capsys.readouterr()
    assert run(["evaluate", "net.pt", "--arch", "net.py:net", "--data", "images", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    said = captured.err + captured.out
    assert (
        f"{'1 channel' if channels == 1 else '3 channels'}, normalised by "
        f"mean {'0.5' if channels == 1 else '0.485, 0.456, 0.406'} and" in said
    )
    assert "3 classes" in said


def test_constants_outside_0_1_or_alone(refused):
    refused(*command("digits.pt", "digits", *ARCH), "--mean", "33", "--std", "78", says="--mean [33.0] must lie")
    refused(*command("digits.pt", "digits", *ARCH), "--std", "0.3", says="--std [0.3] was given without --mean")


@pytest.mark.parametrize(
    ("normalization", "says"),
    [
        ({"mean": [10**400], "std": [0.5]}, "--mean [inf] must be finite numbers"),
        ({"mean": [0.5], "std": [-(10**400)]}, "--std [inf] must be finite numbers"),
        ({"mean": ["0.5"], "std": [0.5]}, "--mean ['0.5'] is no list of numbers"),
        ({"mean": {"a": 1}, "std": [0.5]}, "--mean {'a': 1} is no list of numbers"),
        ({"mean": 0.5, "std": [0.5]}, "--mean 0.5 is no list of numbers"),
        ({"mean": [[0.5]], "std": [0.5]}, "--mean [[0.5]] is no list of numbers"),
        ({"mean": [0.5]}, "without --std"),
        ({"mean": [0.5] * 100_000, "std": [0.5]}, "--mean has 100000 values"),
    ],
    ids=["huge", "-huge", "text", "dict", "number", "nested", "alone", "many"],
)
def test_normalisation_from_a_file_that_is_none(refused, here, normalization, says):
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 1, 8, 8]), ("y", ["n", 64]))
    ]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Flatten", ["x"], ["y"])], "g", ends[:1], ends[1:])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.helper.set_model_props(proto, {"snnprune.normalization": json.dumps(normalization)})
    onnx.save(proto, "m.onnx")
    refused("evaluate", "m.onnx", "--data", "digits", "--device", "cpu", says=says)


NET = """
from torch import nn
def net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, 4), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 2),
    )
"""


def photos(folder: str) -> str:
    """Noise in two tints; what stands at the rim tells of the other one, so that the cut counts."""
    rng = np.random.default_rng(0)
    for kind, count in (("training", 24), ("valid", 6), ("testing", 10)):
        for label, name in enumerate("ab"):
            inner = Path(folder, kind, name)
            inner.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 160, (100, 120, 3), dtype=np.uint8)
                pixels[..., label] += 60
                pixels[:9, :, 1 - label] = 255
                Image.fromarray(pixels).save(inner / f"{number}.jpg")
    return folder


def test_a_run_is_measured_with_the_images_that_it_learned_from(here, capsys):
    """Their size, cut and normalisation come from the run, and from its ONNX file."""
    Path("net.py").write_text(NET)
    torch.manual_seed(0)
    torch.save(build("net.py:net").state_dict(), "net.pt")
    data = ["--data", photos("photos"), "--device", "cpu"]
    given = ["--image-size", "72", "--crop-ratio", "0.8", "--mean", "0.4", "--std", "0.2"]
    more = ["--epochs", "4", "--batch-size", "16", "--lr", "0.01", "--augment", "strong", "--workers", "0"]
    assert run(["optimize", "net.pt", "--arch", "net.py:net", *data, *given, *more, "--output", "out"]) == 0
    told = capsys.readouterr()
    said = told.err + told.out
    assert "photos: 48 training, 12 validation and 20 test images of 2 classes" in said
    assert (
        "images 72x72, the middle of 90, 3 channels, normalised by mean 0.4, 0.4, 0.4 and std 0.2, 0.2, 0.2"
        in said
    )
    assert "augmentation of training images: strong; read anew whenever they are needed: train" in said
    report = json.loads(Path("out/report.json").read_text())
    for what, more in (("out", ["--arch", "net.py:net"]), ("out/model.onnx", [])):
        assert run(["evaluate", what, *more, *data, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["accuracy"], found["count"]) == (report["compact"]["accuracy"], 20), what
        assert found["loss"] == pytest.approx(report["compact"]["loss"], rel=1e-4)
        assert run(["evaluate", what, *more, *data, "--json", "--crop-ratio", "1"]) == 0
        assert json.loads(capsys.readouterr().out)["loss"] != pytest.approx(found["loss"], rel=1e-3)


def test_a_limit_is_of_each_class_and_decodes_no_more(here, capsys, monkeypatch):
    from snnprune.data import parts

    seen = []
    plain = parts.read
    monkeypatch.setattr(parts, "read", lambda file, *more: (seen.append(file), plain(file, *more))[1])
    Path("net.py").write_text(NET)
    torch.save(build("net.py:net").state_dict(), "net.pt")
    data = ["--data", photos("photos"), "--device", "cpu", "--image-size", "72"]
    assert run(["evaluate", "net.pt", "--arch", "net.py:net", *data, "--limit", "6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 6
    assert {file.parts[-3] for file in seen} == {"testing"}
    assert [sum(file.parts[-2] == name for file in set(seen)) for name in "ab"] == [3, 3]
    assert len(seen) <= 8, "two of them to look at the model's outputs"


def test_options_of_the_data_that_make_no_sense(refused):
    refused(*command("digits.pt", "digits", *ARCH), "--augment", "heavy", says="augment='heavy' is none of auto")
    refused(*command("digits.pt", "digits", *ARCH), "--val-split", "1", says="val_fraction=1.0 must be")
    refused(*command("digits.pt", "digits", *ARCH), "--crop-ratio", "0", says="crop_ratio=0.0 must be")
