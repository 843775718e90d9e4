"""How much memory a file may ask for before any of it is taken."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import SnnPruneError

RATIO = 100  # real data hardly ever shrink so much; deflate reaches 1000
SMALL = 32 * 2**20  # what unpacks to less is harmless, however small the file; readers hold up to three copies


def available_memory() -> int:
    """Bytes that may still be taken: of the machine, or of the container where that is less."""
    found = [_machine()]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such limit
            continue
    return max(0, min(found))


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
