"""Model files: state dicts, whole models, and weights that find their architecture."""

from __future__ import annotations

import functools
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from snnprune.registry import load_model
from snnprune.registry.files import read_model_file

from .base import ARCH, content_of, sane, tiny, written


def read(path: Path) -> Any:
    found = read_model_file(path)
    one_content(path)
    sane(dict(found.state_dict()) if isinstance(found, nn.Module) else found)
    return found


def one_content(path: Path) -> None:
    """Of an archive that is loaded, Python's reader and PyTorch's have the same parts, byte for byte."""
    if not zipfile.is_zipfile(path) or path.read_bytes()[:4] != b"PK\3\4":
        return
    reader = torch._C.PyTorchFileReader(str(path))
    found = {name: reader.get_record(name) for name in reader.get_all_records()}
    with zipfile.ZipFile(path) as archive:
        for item in archive.infolist():
            with archive.open(item) as part:
                part._expected_crc = None  # type: ignore[attr-defined]  # which PyTorch does not look at
                assert found.pop(item.filename.partition("/")[2]) == part.read()
    assert not found


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
