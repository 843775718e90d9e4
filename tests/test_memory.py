"""What may be taken into memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from snnprune import memory
from snnprune.errors import DataError

GIB = 2**30


def test_some_memory_is_available():
    assert 2**20 < memory.available_memory() < 2**50


@pytest.mark.parametrize(
    ("size", "stored", "message"),
    [
        (3 * GIB, 2**20, "more than 100 times as much"),
        (3 * GIB, GIB, None),
        (33 * 2**20, 10, "more than 100 times as much"),
        (32 * 2**20, 10, None),
        (5 * GIB, 5 * GIB, "needs 5 GiB of memory, but 4 GiB are available. Do this"),
    ],
    ids=["bomb", "fits", "small bomb", "small", "too large"],
)
def test_archives_are_judged_by_what_they_announce(monkeypatch, size, stored, message):
    monkeypatch.setattr(memory, "available_memory", lambda: 4 * GIB)
    if message is None:
        memory.check_unpacked(Path("a.npz"), size, stored, DataError, "Do this.")
        return
    with pytest.raises(DataError, match=message) as caught:
        memory.check_unpacked(Path("a.npz"), size, stored, DataError, "Do this.")
    assert "a.npz" in str(caught.value)


def test_a_container_s_limit_counts(monkeypatch):
    texts = {"/sys/fs/cgroup/memory.max": "1000\n", "/sys/fs/cgroup/memory.current": "400\n"}

    def read(path: Path) -> str:
        if str(path) not in texts:
            raise FileNotFoundError(path)
        return texts[str(path)]

    monkeypatch.setattr(Path, "read_text", read)
    assert memory.available_memory() == 600
    texts["/sys/fs/cgroup/memory.max"] = "max\n"
    texts["/proc/meminfo"] = "MemTotal: 9 kB\nMemAvailable:   7 kB\n"
    assert memory.available_memory() == 7 * 1024
