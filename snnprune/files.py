"""Atomic writes: a file is there whole or not at all."""

from __future__ import annotations

import contextlib
import difflib
import errno
import itertools
import json
import math
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import RunError, SnnPruneError, first_line

_LOOKED_AT = 1000  # names in a folder, for one that was misspelt
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
    check_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name as long as names may be leaves no room for a longer one beside it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    except OSError as error:
        raise RunError(f"{brief(path)} cannot be written ({reason(error)}).") from error
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
        raise RunError(f"{brief(path)} cannot be written ({reason(error)}).") from error
    finally:
        temporary.unlink(missing_ok=True)


_REASONS = {
    errno.ENOENT: "it is not there, or was removed meanwhile",
    errno.EISDIR: "there is a folder of that name; name a file",
    errno.EEXIST: "a part of its path is no folder; name another place",
    errno.ENOTDIR: "a part of its path is no folder; name another place",
    errno.EACCES: "permission is denied; change its rights, or run as somebody who has them",
    errno.ELOOP: "it is a link that leads back to itself; remove it",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
}


def reason(error: OSError) -> str:
    """What went wrong with a file, and where it helps what to do."""
    return _REASONS.get(error.errno or 0) or error.strerror or str(error)


def brief(path: Path) -> str:
    """A path for a message, with names that nobody can read shortened."""
    return str(Path(*(part if len(part) <= 120 else f"{part[:50]} ... {part[-20:]}" for part in path.parts)))


def path_inside(folder: Path, *parts: str) -> Path:
    """A path in a folder that others may have filled, no part of which leads out of it.

    Raises:
        RunError: a part is a symbolic link, behind which anything may lie.
    """
    path = folder
    for part in parts:
        path = path / part
        refuse_link(path)
    return path


def refuse_link(path: Path) -> None:
    """Refuse to write where a link of somebody else's leads.

    Raises:
        RunError: there is one.
    """
    if path.is_symlink() or getattr(os.path, "isjunction", lambda _: False)(path):
        raise RunError(
            f"{brief(path)} is a symbolic link, so what is written there would land elsewhere. Remove the link."
        )


def refuse_links(folder: Path) -> None:
    """Refuse to go on in a folder with a link anywhere in it, or one that is a link itself.

    Raises:
        RunError: there is one.
    """
    refuse_link(folder)
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            refuse_link(Path(place) / name)


def missing(path: Path) -> str:
    """That there is no such file, and what lies there that was probably meant."""
    near = nearest(path)
    return f"there is no file {path}.{f' Did you mean {near}?' if near else ''}"


def nearest(path: Path, fits: Callable[[Path], bool] = lambda _: True) -> Path | None:
    """What lies in the folder of a path that is not there, and is called nearly so.

    Args:
        path: as it was given.
        fits: what of it could have been meant.
    """
    try:
        with os.scandir(path.parent) as entries:  # of a folder with a million photos only so many are looked at
            names = sorted(entry.name for entry in itertools.islice(entries, _LOOKED_AT))
    except (OSError, ValueError):
        return None
    near = difflib.get_close_matches(path.name, names, 3, cutoff=0.8)
    return next((found for found in map(path.with_name, near) if fits(found)), None)


def check_name(path: Path, error: type[SnnPruneError] = RunError) -> None:
    """Refuse a path that no file can have, which is found out by asking for the file.

    Raises:
        SnnPruneError: of the given kind.
    """
    try:
        os.lstat(path)
    except OSError as cause:
        if cause.errno == errno.ENAMETOOLONG:
            raise error(f"{brief(path)} cannot be there ({reason(cause)}).") from cause
    except ValueError as cause:  # a character that ends the name
        raise error(f"{str(path)[:200]!r} is no path ({cause}).") from cause


@contextlib.contextmanager
def file_errors(kind: type[SnnPruneError] = RunError) -> Iterator[None]:
    """For what reads a folder that somebody may be removing meanwhile, or of which not all may be read.

    Raises:
        SnnPruneError: of the given kind: the system cannot read or write a file.
    """
    try:
        yield
    except OSError as error:
        name = error.filename
        where = brief(Path(os.fsdecode(name))) if isinstance(name, (str, bytes, os.PathLike)) else "a file"
        raise kind(f"{where} cannot be read or written ({reason(error)}).") from error


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
    """Write JSON atomically.

    Raises:
        RunError: the content has no form in JSON, NaN among it, or the file cannot be written.
    """
    text = json_of(path, content, indent=2) + "\n"
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def json_of(
    what: object, content: Any, error: type[SnnPruneError] = RunError, *, indent: int | None = None
) -> str:
    """Values as JSON.

    Raises:
        SnnPruneError: of the given kind: they have no form in it; `what` tells of whom they are.
    """
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as cause:
        raise error(
            f"{what}: its content cannot be written as JSON ({first_line(cause)}). Give plain texts, numbers that "
            "are finite, lists and dicts."
        ) from cause


def read_json(path: Path, *, limit: int = 64 * 2**20) -> Any:
    """Read JSON of a bounded size; numbers are finite and of 64 bits, and no name stands twice in an object.

    Raises:
        RunError: missing, no regular file, too large or malformed.
    """
    check_name(path)
    try:
        with os.fdopen(_open_regular(path), "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise RunError(f"{brief(path)} cannot be read ({reason(error)}).") from error
    if len(data) > limit:
        raise RunError(f"{path} is larger than {limit >> 20} MiB, which is no file of ours.")
    try:
        return json.loads(
            data.decode("utf-8"),
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_finite,
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is no valid JSON ({first_line(error)}).") from error


def _open_regular(path: Path) -> int:
    """A pipe would wait for ever, a device never end; a symbolic link may lead to either."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("it is no regular file")
    return handle


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**63:
        raise ValueError(f"the number {text[:20]}... is too large")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is not finite")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return found
