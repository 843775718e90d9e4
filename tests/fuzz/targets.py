"""What is fuzzed: every reader of files, with a valid file to start from and a way to damage it.

`feed` gives a reader the bytes; it returns what was read, or raises `SnnPruneError`. Anything else is a defect.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

import snnprune
from fuzz.mutate import mutate_bytes, mutate_json, mutate_onnx, mutate_pickle, mutate_safetensors, mutate_zip
from snnprune.data import load_data
from snnprune.errors import SnnPruneError
from snnprune.export import export_onnx
from snnprune.files import STRUCTURE
from snnprune.layers import IndexedLinear
from snnprune.learner import Checkpoint, PruneConfig
from snnprune.learner.checkpoint import _MARK
from snnprune.pipeline.deliver import deliver_onnx
from snnprune.pipeline.drop import BOOK, DropSearch
from snnprune.pipeline.latency import LATENCY, LatencySearch
from snnprune.pipeline.runs import ONNX, PROBE, REPORT, open_model
from snnprune.registry import load_model
from snnprune.registry.files import read_model_file
from snnprune.report import ModelFigures, Report
from snnprune.runtime import onnx_metadata, open_session
from snnprune.saving import WEIGHTS, digest, save

Mutate = Callable[[Random, bytes], bytes]


@dataclass(frozen=True)
class Target:
    """One reader: a valid file, how to damage it, and how to give it to the reader."""

    valid: Callable[[], list[bytes]]
    mutate: Mutate
    feed: Callable[[bytes], Any]


class Tiny(nn.Module):
    """A convolution, a norm and a fully connected layer."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x)).flatten(1))


def tiny(num_classes: int = 3) -> Tiny:
    torch.manual_seed(0)
    return Tiny(min(num_classes, 1000)).eval()


ARCH = f"{__name__}:tiny"


@functools.cache
def place() -> Path:
    """A folder in memory where there is one; removed at the end."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=base))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def written(name: str, data: bytes) -> Path:
    path = place() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def content_of(write: Callable[[Path], Any], name: str = "made") -> bytes:
    path = place() / name
    write(path)
    return path.read_bytes()


def sane(state: dict[str, Any]) -> None:
    """Nothing far larger than the files that these tests feed."""
    total = 0
    for name, value in state.items():
        assert isinstance(name, str)
        assert isinstance(value, Tensor)
        assert value.device.type == "cpu"
        total += value.numel() * value.element_size()
    assert total < 2**27, total


def read(path: Path) -> Any:
    found = read_model_file(path)
    sane(dict(found.state_dict()) if isinstance(found, nn.Module) else found)
    return found


@functools.cache
def state_files(zipped: bool) -> list[bytes]:
    state = tiny().state_dict()
    contents = [
        state,
        {"state_dict": dict(state), "epoch": 3, "best": (0.5, None)},
        {"model": {"w": torch.ones(2, 2)}},
    ]
    return [content_of(lambda p, c=c: torch.save(c, p, _use_new_zipfile_serialization=zipped)) for c in contents]


@functools.cache
def whole_files() -> list[bytes]:
    attention = nn.MultiheadAttention(4, 2)
    models = [
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
        nn.Sequential(nn.ModuleDict({"a": nn.Upsample(4), "b": attention}), nn.AdaptiveAvgPool2d(1)),
    ]
    return [content_of(lambda p, m=m: torch.save(m.eval(), p)) for m in models]


@functools.cache
def weight_files() -> list[bytes]:
    return [content_of(lambda p: save_file(tiny().state_dict(), p))]


def feed_match(data: bytes) -> Any:
    return load_model(written("state.safetensors", data), arch=ARCH)


def small(num_classes: int = 3) -> nn.Module:
    """A fresh model of the original size, for runs."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.PReLU(),
        nn.Flatten(),
        nn.Linear(16, 6),
        nn.ReLU(),
        nn.Linear(6, min(num_classes, 9)),
    ).eval()


def pruned() -> nn.Module:
    torch.manual_seed(0)
    first = IndexedLinear(5, 4, source_features=8, index=torch.tensor([0, 2, 3, 6, 7]))
    with torch.no_grad():
        first.weight[0, :3] = 0
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU(), nn.Flatten(), first, nn.ReLU(), nn.Linear(4, 3)
    ).eval()


@functools.cache
def run_folder() -> Path:
    folder = place() / "run"
    model = pruned()
    images = torch.rand(4, 1, 4, 4)
    extra = {
        "factory": {"arch": "resnet18", "kwargs": {"num_classes": 3}},
        "kept": {"0": [0, 1]},
        "normalization": {"mean": [0.5], "std": [0.5]},
        "classes": ["a", "b", "c"],
        "input_shape": [1, 4, 4],
    }
    save(model, folder, extra=extra, sparse=["4.weight"])
    metadata = {"snnprune.normalization": extra["normalization"]}
    export_onnx(model, folder / ONNX, images, metadata=metadata)
    save_file({"inputs": images, "outputs": model(images).detach()}, folder / PROBE)
    (folder / REPORT).write_bytes(report_files()[0])
    return folder


def structure_files() -> list[bytes]:
    return [(run_folder() / STRUCTURE).read_bytes()]


def run_weights() -> list[bytes]:
    return [(run_folder() / WEIGHTS).read_bytes()]


@functools.cache
def other_run(name: str) -> Path:
    """A copy of the run folder in which one file is damaged."""
    return Path(shutil.copytree(run_folder(), place() / name))


def with_digest(folder: Path, key: str, name: str) -> None:
    structure = json.loads(structure_files()[0])
    structure[key] = digest(folder / name)
    (folder / STRUCTURE).write_text(json.dumps(structure))


def feed_structure(data: bytes) -> Any:
    folder = other_run("run-structure")
    (folder / STRUCTURE).write_bytes(data)
    opened = open_model(folder, arch=f"{__name__}:small")
    sane(dict(opened.model.state_dict()))
    return opened


def feed_run_weights(data: bytes) -> Any:
    folder = other_run("run-weights")
    (folder / WEIGHTS).write_bytes(data)
    with_digest(folder, "weights_sha256", WEIGHTS)
    model = snnprune.load(folder, model=small())
    sane(dict(model.state_dict()))
    assert model(torch.rand(2, 1, 4, 4)).shape == (2, 3)
    return model


def onnx_files() -> list[bytes]:
    return [(run_folder() / ONNX).read_bytes()]


def feed_onnx(data: bytes) -> Any:
    path = written("model.onnx", data)
    session = open_session(path, threads=1)
    return session, onnx_metadata(path)


def feed_delivery(data: bytes) -> Any:
    folder = other_run("run-onnx")
    (folder / ONNX).write_bytes(data)
    with_digest(folder, "onnx_sha256", ONNX)
    return deliver_onnx(folder, folder / "out.onnx")


def feed_probe(data: bytes) -> Any:
    folder = other_run("run-probe")
    (folder / PROBE).write_bytes(data)
    return deliver_onnx(folder, folder / "out.onnx")


def probe_files() -> list[bytes]:
    return [(run_folder() / PROBE).read_bytes()]


@functools.cache
def report_files() -> list[bytes]:
    report = Report(
        ModelFigures(0.95, 0.2, 2_000_000, 1000),
        ModelFigures(0.94, 0.25, 1_000_000, 400, nonzero=300),
        groups=[{"id": "a", "size": 10, "kept": 4, "weakened": 1, "strengthened": 3}],
        exactness={"fold": 1e-16, "remove": 0.0, "onnx": None},
        target={"macs": 0.5},
        seed=3,
        data="digits",
        split="test",
        seconds=1.5,
        device="cpu",
        kept_whole=[{"id": "b", "reason": "it is an output"}],
        history=[{"stage": "search", "step": 1}],
        steps={"search": 3},
    )
    return [content_of(report.to_json)]


def feed_report(data: bytes) -> Any:
    report = Report.read(written("report.json", data))
    assert str(report)
    return report


@functools.cache
def array_files() -> list[bytes]:
    draw = np.random.default_rng(0)
    arrays = {
        "x_train": draw.integers(0, 255, (6, 4, 4), dtype=np.uint8),
        "y_train": np.array([0, 1, 0, 1, 0, 1]),
        "x_test": draw.integers(0, 255, (2, 4, 4), dtype=np.uint8),
        "y_test": np.array([0, 1], dtype=np.uint8),
    }
    found = []
    for write in (np.savez, np.savez_compressed):
        target = io.BytesIO()
        write(target, **arrays)
        found.append(target.getvalue())
    return found


def feed_arrays(data: bytes) -> Any:
    splits = load_data(str(written("data.npz", data)), batch_size=2)
    images, labels = next(iter(splits.test))
    assert images.numel() < 2**24
    assert len(images) == len(labels)
    return splits


@functools.cache
def image_files() -> list[bytes]:
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 255, (9, 8, 3), dtype=np.uint8))
    found = []
    for form in ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "EPS"):
        target = io.BytesIO()
        image.save(target, form)
        found.append(target.getvalue())
    return found


@functools.cache
def image_folder() -> Path:
    folder = place() / "images"
    for kind in ("train", "test"):
        for name in ("a", "b"):
            (folder / kind / name).mkdir(parents=True)
            for at in range(2):
                Image.new("RGB", (8, 8), (40 * at,) * 3).save(folder / kind / name / f"{at}.png")
    return folder


def feed_image(data: bytes) -> Any:
    folder = image_folder()
    (folder / "train" / "a" / "0.png").write_bytes(data)
    splits = load_data(str(folder), image_size=8, batch_size=2)
    assert splits.train.images.shape[2:] == (8, 8)  # type: ignore[attr-defined]
    return splits


@functools.cache
def checkpoint_files() -> list[bytes]:
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    state = {"step": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": []}
    content = {
        "format": 1,
        "fingerprint": "f",
        "stage": "recover",
        "state": state,
        "rng": {"cpu": torch.get_rng_state()},
    }
    return [content_of(lambda p: torch.save(content, p))]


def feed_checkpoint(data: bytes) -> Any:
    data += _MARK + hashlib.sha256(data).digest()  # damage is seen by this; what is fuzzed is a hostile file
    folder = written("checkpoint/state.pt", data).parent
    content = Checkpoint(folder, "f").load()
    assert content is not None
    assert content["state"]["step"] >= 0
    return content


JOB = SimpleNamespace(fingerprint=lambda: "f")


def drop_search() -> DropSearch:
    config = PruneConfig(target={"drop": 0.01})
    return DropSearch(lambda options: JOB, config, 0.01, place() / "books", resume=True)  # type: ignore[arg-type,return-value]


@functools.cache
def trial_files() -> list[bytes]:
    search = drop_search()
    search._open(JOB)  # type: ignore[arg-type]
    trials = [
        {"macs": 0.5, "val_accuracy": 0.9, "drop": 0.0, "passed": True},
        {"macs": 0.25, "val_accuracy": None, "drop": None, "passed": False, "why": "it collapsed"},
    ]
    return [json.dumps({"fingerprint": search.fingerprint, "trials": trials}).encode()]


def feed_trials(data: bytes) -> Any:
    written(f"books/{BOOK}", data)
    known = drop_search()._open(JOB)  # type: ignore[arg-type]
    assert all(type(share) is float and type(t["passed"]) is bool for share, t in known.items())
    return known


def latency_files() -> list[bytes]:
    return [json.dumps({"fingerprint": "f", "share": 0.4, "trials": [{"macs": 0.4, "passed": True}]}).encode()]


def feed_latency(data: bytes) -> Any:
    path = written(f"books/{LATENCY}", data)
    config = PruneConfig(target={"latency": 0.5})
    search = LatencySearch(lambda options: JOB, config, 0.5, path.parent, resume=True)  # type: ignore[arg-type,return-value]
    search.fingerprint = "f"
    share = search._known()
    assert 0 < share <= 1
    return share


def zipped_pickle(random: Random, data: bytes) -> bytes:
    return mutate_zip(random, data, lambda r, d: mutate_pickle(r, d) if d[:1] == b"\x80" else mutate_bytes(r, d))


TARGETS: dict[str, Target] = {
    "state-dict": Target(lambda: state_files(True), zipped_pickle, lambda d: read(written("m.pt", d))),
    "state-dict-old": Target(lambda: state_files(False), mutate_bytes, lambda d: read(written("o.pt", d))),
    "whole-model": Target(whole_files, zipped_pickle, lambda d: read(written("w.pt", d))),
    "safetensors": Target(weight_files, mutate_safetensors, lambda d: read(written("w.safetensors", d))),
    "match": Target(weight_files, mutate_safetensors, feed_match),
    "structure": Target(structure_files, mutate_json, feed_structure),
    "run-weights": Target(run_weights, mutate_safetensors, feed_run_weights),
    "onnx": Target(onnx_files, mutate_onnx, feed_onnx),
    "delivery": Target(onnx_files, mutate_onnx, feed_delivery),
    "probe": Target(probe_files, mutate_safetensors, feed_probe),
    "report": Target(report_files, mutate_json, feed_report),
    "arrays": Target(array_files, mutate_zip, feed_arrays),
    "image": Target(image_files, mutate_bytes, feed_image),
    "checkpoint": Target(checkpoint_files, zipped_pickle, feed_checkpoint),
    "trials": Target(trial_files, mutate_json, feed_trials),
    "latency": Target(latency_files, mutate_json, feed_latency),
}


def draw(target: Target, random: Random) -> bytes:
    """A damaged file."""
    return target.mutate(random, random.choice(target.valid()))


def loads(target: Target, data: bytes) -> bool:
    """Whether the reader takes it; False where it says so, and everything else passes through."""
    try:
        target.feed(data)
    except SnnPruneError:
        return False
    return True


__all__ = ["TARGETS", "Target", "draw", "loads"]
