"""Every public function with values that make no sense: an error of ours in one line, or it works."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import snnprune
from snnprune.errors import ConfigError, DataError, ExportError, RunError, SnnPruneError

HUGE = 10**400
LONG = "x" * 300
VALUES: dict[str, Any] = {
    "None": None, "True": True, "5": 5, "-1": -1, "2.5": 2.5, "nan": float("nan"), "huge": HUGE, "-huge": -HUGE,
    "long": LONG, "zero byte": "a\0b", "line": "a\nb", "empty": "", "bytes": b"x", "list": [1], "dict": {},
    "object": object(), "int64": np.int64(3), "tensor": torch.tensor(2), "2^64": 2**64, "2^63": 2**63,
    "folder": "folder", "pipe": "pipe", "dangling": "dangling", "loop": "loop", "batch": torch.zeros(4, 6),
    "complex": 1j, "class": nn.Linear, "digits": 10**5000,
}  # fmt: skip
X, Y = torch.zeros(4, 6), torch.arange(4) % 3
DATA = [(X, Y)] * 2
IMAGES = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()


def digits(**given: Any) -> Any:
    return snnprune.load_data("digits", **given)


def loader(**given: Any) -> Any:
    info = snnprune.load_data("digits").train.info
    made = snnprune.ArrayLoader(**{"images": IMAGES, "labels": Y, "info": info, "batch_size": 2, **given})
    return next(iter(made))


def bench(**given: Any) -> Any:
    options = {"paths": ["ok.onnx"], "batch_sizes": [1], "calls": 1, "warm_up": 0, "engine": "cpu", **given}
    if any(type(options[name]) is int and options[name] > 99 for name in ("calls", "warm_up")):
        raise ConfigError("that many take their time")
    return snnprune.bench_onnx(**options)


CALLS: dict[str, Callable[[Any], Any]] = {
    **{
        f"load_data {name}": lambda v, name=name: digits(**{name: v})
        for name in (
            "batch_size", "image_size", "channels", "mean", "std", "val_fraction", "augment", "limit",
            "num_classes", "download", "seed", "progress", "root",
        )
    },
    "load_data mean[0]": lambda v: digits(mean=[v], std=[0.5]),
    "load_data of fake": lambda v: snnprune.load_data("fake", num_classes=v),
    "load_data name": lambda v: snnprune.load_data(v, download=False),
    "load_data mini-imagenet": lambda v: snnprune.load_data("mini-imagenet", v),
    **{
        f"ArrayLoader {name}": lambda v, name=name: loader(**{name: v})
        for name in ("images", "labels", "info", "batch_size", "shuffle", "augment", "drop_last", "seed")
    },
    "save folder": lambda v: snnprune.save(net(), v),
    "save model": lambda v: snnprune.save(v, "s"),
    "save extra": lambda v: snnprune.save(net(), "s", extra=v),
    "save extra value": lambda v: snnprune.save(net(), "s", extra={"a": v}),
    "save sparse": lambda v: snnprune.save(net(), "s", sparse=v),
    "load folder": lambda v: snnprune.load(v, model=net()),
    "load model": lambda v: snnprune.load("ok", model=v),
    "export path": lambda v: snnprune.export_onnx(nn.Flatten(), v, X),
    "export inputs": lambda v: snnprune.export_onnx(nn.Flatten(), "e.onnx", v),
    "export metadata": lambda v: snnprune.export_onnx(nn.Linear(6, 1), "dir/of/none\0", X, metadata=v),
    "bench paths": lambda v: bench(paths=v),
    "bench path": lambda v: bench(paths=[v]),
    "bench batch size": lambda v: bench(batch_sizes=[v]),
    **{
        f"bench {name}": lambda v, name=name: bench(**{name: v})
        for name in ("batch_sizes", "engine", "precision", "calls", "warm_up", "threads", "limit", "spread")
    },
    "compare dense": lambda v: snnprune.compare(v, net(), example_inputs=X),
    "compare inputs": lambda v: snnprune.compare(net(), net(), example_inputs=v),
    "evaluate model": lambda v: snnprune.evaluate(v, DATA),
    "evaluate batch": lambda v: snnprune.evaluate(net(), [v]),
    "evaluate labels": lambda v: snnprune.evaluate(net(), [(X, v)]),
    "evaluate device": lambda v: snnprune.evaluate(net(), DATA, device=v),
    "trace inputs": lambda v: snnprune.trace(net(), v),
    "sensitivity shares": lambda v: snnprune.sensitivity(net(), DATA, shares=v),
    "sensitivity targets": lambda v: snnprune.sensitivity(net(), DATA, targets=v),
    "sensitivity time": lambda v: snnprune.sensitivity(net(), DATA, time=v),
    "sensitivity serving": lambda v: snnprune.sensitivity(net(), DATA, serving=v),
    "sensitivity on_step": lambda v: snnprune.sensitivity(net(), DATA, on_step=v),
    "Report.read": snnprune.Report.read,
    "Report.to_json": lambda v: snnprune.compare(net(), net(), example_inputs=X).to_json(v),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("absurd")
    snnprune.save(net(), folder / "ok")
    snnprune.export_onnx(net(), folder / "ok.onnx", X)
    (folder / "folder").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("call", CALLS)
def test_whatever_is_given_ends_in_an_error_of_ours_or_works(made, monkeypatch, call):
    monkeypatch.chdir(made)
    refused: list[str] = []
    for name, value in VALUES.items():
        try:
            CALLS[call](value)
        except SnnPruneError as error:
            refused.append(str(error))
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    assert len(refused) > 3
    assert all(message.isprintable() and len(message) < 1200 for message in refused)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": 2.5}, "batch_size=2.5 must be a whole number of at least 1"),
        ({"batch_size": True}, "batch_size=True must be a whole number"),
        ({"num_classes": -1}, "num_classes=-1 must be a whole number from 1"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"seed": 2**64}, "seed=18446744073709551616 must be a whole number from 0 to"),
        ({"seed": -1}, "seed=-1"),
        ({"limit": 1.0}, "limit=1.0"),
        ({"image_size": 10**6}, "image_size=1000000 must be a whole number of pixels from 1 to 4096 or None"),
        ({"channels": 2}, r"channels=2 must be 1 \(grey\), 3 \(colour\) or None"),
        ({"channels": True}, "channels=True"),
        ({"val_fraction": "0.1"}, "val_fraction='0.1' must be a number between 0 and 1"),
        ({"augment": 1}, "augment=1 is none of auto, none, light"),
        ({"progress": 3}, "progress=3 must be a function"),
        ({"root": None}, "root=None must be a path"),
        ({"mean": [HUGE], "std": [0.5]}, r"--mean \[inf\] must be finite"),
        ({"mean": ["0.5"], "std": [0.5]}, "--mean .* is no list of numbers"),
        ({"mean": [True], "std": [0.5]}, "--mean .* is no list of numbers"),
        ({"mean": 0.5, "std": 0.5}, "--mean 0.5 is no list of numbers"),
        ({"batch_size": 10**5000}, "batch_size=a number of 16610 bits must be"),
    ],
)
def test_arguments_of_data_name_themselves(given, said):
    with pytest.raises(DataError, match=said):
        snnprune.load_data("digits", **given)


def test_what_makes_sense_in_another_type_works():
    train, _, _ = snnprune.load_data(
        "digits",
        Path("data"),
        batch_size=np.int64(16),
        image_size=np.uint8(8),
        channels=np.int32(1),
        seed=2**64 - 1,
        val_fraction=np.float32(0.25),
        limit=np.int16(64),
        mean=torch.tensor([0.5]),
        std=np.array([0.25]),
    )
    assert next(iter(train))[0].shape == (16, 1, 8, 8)
    assert type(train.batch_size) is int
    assert (train.info.mean, train.info.std) == ((0.5,), (0.25,))


def test_a_batch_that_does_not_fit_into_memory_is_named(made, monkeypatch):
    monkeypatch.chdir(made)
    with pytest.raises(
        ExportError, match=r"ok\.onnx at batch size 9223372036854775807 needs .* smaller batch size"
    ):
        snnprune.bench_onnx(["ok.onnx"], batch_sizes=[2**63 - 1], calls=1)


def test_folders_without_a_name_are_no_places_for_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from snnprune.cli.main import run
    from snnprune.runs.folder import open_model, partial_of

    for name in (".", "", "/", ".."):
        with pytest.raises(RunError, match="no name for a run folder"):
            partial_of(Path(name))
        with pytest.raises(SnnPruneError):
            open_model(name)
    assert run(["compare", "."]) == 1
    snnprune.save(net(), ".", extra={"a": 1})
    with pytest.raises(RunError, match="--arch"):
        open_model(".")
