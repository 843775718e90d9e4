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
    refused(*command("digits.pt", "images", *ARCH), says="images/train/c4/1.png is no readable image")


@pytest.mark.parametrize("name", ["cifar11", "absent/folder", "absent.npz", "DIGITS", ""])
def test_an_unknown_data_set(refused, name):
    more = "no folder or .npz file of that name" if "absent" in name else "digits"
    refused(*command("digits.pt", name, *ARCH), says=(f"data set {name!r}", more))


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
    assert f"mean {[0.5] if channels == 1 else [0.485, 0.456, 0.406]}" in captured.err + captured.out


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
