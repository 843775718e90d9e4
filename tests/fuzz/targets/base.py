"""What all targets share: their form, a tiny model, and a place for files."""

from __future__ import annotations

import atexit
import contextlib
import functools
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.errors import SnnPruneError
from snnprune.files import read_json

Mutate = Callable[[Random, bytes], bytes]


@dataclass(frozen=True)
class Target:
    """One reader: a valid file, how to damage it, and how to give it to the reader.

    `feed` gives a reader the bytes; it returns what was read, or raises `SnnPruneError`.
    Anything else is a defect.
    """

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


@contextlib.contextmanager
def bounded(path: Path) -> Iterator[None]:
    """At most a second of work, and 100 MiB, beyond what reading JSON of that size takes."""
    began = time.process_time()
    with contextlib.suppress(SnnPruneError):
        read_json(path)
    plain, before = time.process_time() - began, _peak()
    began = time.process_time()
    try:
        yield
    finally:
        spent, grown = time.process_time() - began, _peak() - before
        assert spent - plain < 1, f"{spent:.1f} s, where reading takes {plain:.1f} s"
        assert grown < 100 * 2**20, f"{grown >> 20} MiB"


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def sane(state: dict[str, Any]) -> None:
    """Nothing far larger than the files that these tests feed."""
    total = 0
    for name, value in state.items():
        assert isinstance(name, str)
        assert isinstance(value, Tensor)
        assert value.device.type == "cpu"
        total += value.numel() * value.element_size()
    assert total < 2**27, total
