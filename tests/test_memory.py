"""What may be taken into memory."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

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


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """Writes control groups as a kernel shows them: group -> file -> text."""
    monkeypatch.setattr(memory, "_machine", lambda: 7 * 1024)
    monkeypatch.setattr(memory, "_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "own")

    def write(own: str, files: dict[str, dict[str, str]]) -> None:
        (tmp_path / "own").write_text(own)
        for group, texts in files.items():
            folder = tmp_path / "cgroup" / group
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                (folder / name).write_text(text)

    return write


def new(limit: str, used: int, cached: int = 0) -> dict[str, str]:
    stat = f"anon 1\ninactive_file {cached}\n"
    return {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": stat}


def old(limit: int, used: int, cached: int = 0) -> dict[str, str]:
    stat = f"inactive_file 0\ntotal_inactive_file {cached}\n"
    return {
        "memory.limit_in_bytes": f"{limit}\n", "memory.usage_in_bytes": f"{used}\n", "memory.stat": stat,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        ("0::/\n", {"": new("1000", 400)}, 600),  # a container sees its own group as the root
        ("0::/\n", {"": new("1000", 400, 50)}, 650),  # what files are cached in can be had
        ("0::/\n", {"": new("max", 400)}, 7 * 1024),
        ("0::/job/step\n", {"job": new("1000", 400), "job/step": new("900", 350)}, 550),
        ("0::/job/step\n", {"job": new("1000", 600), "job/step": new("max", 350)}, 400),  # a scheduler's job
        ("4:memory:/job\n0::/\n", {"memory/job": old(2000, 400, 30)}, 1630),
        ("4:cpu,memory:/job\n", {"memory": old(1500, 400), "memory/job": old(2**62, 10)}, 1100),
        ("4:cpu:/job\n", {"cpu/job": old(2000, 400)}, 7 * 1024),
        ("0::/gone\n", {}, 7 * 1024),
        ("0::/\n", {"": new("100", 400)}, 0),
    ],
)
def test_the_limits_of_a_container_and_of_a_job_count(groups, own, files, left):
    groups(own, files)
    assert memory.available_memory() == left


def test_a_machine_without_control_groups(groups, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "none")
    assert memory.available_memory() == 7 * 1024


def resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what another C library keeps is its own affair")
def test_what_was_freed_goes_back_although_something_above_it_is_still_held():
    taken = [torch.ones(16_000) for _ in range(4000)]  # 64 kB each, below what is mapped on its own
    last = torch.ones(16_000)
    del taken
    before = resident()
    memory.give_back()
    assert before - resident() > 150 * 2**20
    assert last.sum() == 16_000


def test_other_c_libraries_are_let_be(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _name: object())
    memory.give_back()
