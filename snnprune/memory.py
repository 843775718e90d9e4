"""How much memory a file may ask for before any of it is taken."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from .errors import SnnPruneError

RATIO = 100  # real data hardly ever shrink so much; deflate reaches 1000
_GROUPS, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
SMALL = 32 * 2**20  # what unpacks to less is harmless, however small the file; readers hold up to three copies


def available_memory() -> int:
    """Bytes that may still be taken: of the machine, or of the container or the job where that is less."""
    return max(0, min([_machine(), *_of_groups()]))


def _of_groups() -> list[int]:
    """What each control group that this process is in still allows (Linux, both versions)."""
    try:
        lines = _GROUPS.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if "memory" in controllers.split(","):
            root, limit, used, cached = (
                _ROOT / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_",
            )
        elif not controllers:
            root, limit, used, cached = _ROOT, "memory.max", "memory.current", ""
        else:
            continue
        place = root / own.lstrip("/")
        for folder in (place, *place.parents):  # within a container its own group is the root
            free = _left(folder, limit, used, f"{cached}inactive_file")
            found += [] if free is None else [free]
            if folder == root:
                break
    return found


def _left(folder: Path, limit: str, used: str, cached: str) -> int | None:
    """Bytes that one group still allows; what files are cached in is given up when it is needed."""
    try:
        left = int((folder / limit).read_text()) - int((folder / used).read_text())
        entries = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
        return left + int(entries.get(cached, 0))
    except (OSError, ValueError):  # no such limit
        return None


def _machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return 16 * 2**30


def give_back() -> None:
    """Give the system what was freed and the C library keeps for later (glibc; elsewhere nothing happens).

    After activations of all sizes that may be half of a process. A worker process begins as a copy that shares all
    of it, and every page that is used anew here then takes memory twice.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return


def check_memory(what: object, size: int, error: type[SnnPruneError], remedy: str) -> None:
    """Refuse what does not fit into memory.

    Args:
        what: path or name, for the message.
        size: bytes that will be taken.
        error: class of the exception.
        remedy: what to do instead, a sentence.
    """
    free = available_memory()
    if size > free:
        raise error(f"{what} needs {_gib(size)} of memory, but {_gib(free)} are available. {remedy}")


def check_unpacked(path: Path, size: int, stored: int, error: type[SnnPruneError], remedy: str) -> None:
    """Refuse an archive that unpacks to more than 32 MiB and 100 times its size, or does not fit into memory.

    Args:
        path: of the archive.
        size: bytes that it announces.
        stored: bytes of the file.
        error: class of the exception.
        remedy: what to do where it does not fit into memory, a sentence.
    """
    if size > SMALL and size > RATIO * stored:
        raise error(
            f"{path} has {stored} bytes and would unpack to {_gib(size)}, more than {RATIO} times as much, "
            "as in a file that was made to fill the memory. If you made it yourself, save it without compression."
        )
    check_memory(path, size, error, remedy)


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
