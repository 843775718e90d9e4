"""Atomic writes: a file is there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import RunError

STRUCTURE = "structure.json"  # how a saved model is built; beside its weights


@contextlib.contextmanager
def atomic_path(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well.

    Args:
        path: of the file.
        keep: where the file that is replaced goes.

    Raises:
        RunError: the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}).") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:  # some file systems report a full disk only now
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror or error}).") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed process left in a folder; nobody else may be writing there."""
    for path in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_atomically(path: Path, write: Callable[[Path], Any], keep: Path | None = None) -> None:
    """Let `write` fill a temporary file, then put it in place, and the one before it into `keep`."""
    with atomic_path(path, keep) as temporary:
        write(temporary)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; NaN is refused."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def read_json(path: Path, *, limit: int = 64 * 2**20) -> Any:
    """Read JSON of a bounded size.

    Raises:
        RunError: missing, too large or malformed.
    """
    try:
        if path.stat().st_size > limit:
            raise RunError(f"{path} is larger than {limit >> 20} MiB, which is no file of ours.")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is no valid JSON ({error}).") from error
