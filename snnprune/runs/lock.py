"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import RunError
from ..files import check_name, refuse_link
from ..ranks import current

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)
_TAKEN = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK}
_held: set[int] = set()


@contextlib.contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """Keep other runs out of a folder; of several processes the first one holds the lock for all.

    The lock is the system's, on a file beside the folder, which need not exist yet. It ends with the process,
    however that ends, so a run that was killed blocks nobody.

    Args:
        folder: None locks nothing.

    Raises:
        RunError: another run is at work there, or the lock file cannot be made.
    """
    if folder is None:
        yield
        return
    check_name(folder)
    if folder.name in ("", ".."):
        raise RunError(f"{str(folder)!r} is no name for a folder to work in. Choose another one.")
    path = folder.with_name(folder.name + ".lock")
    ranks = current()
    trouble: RunError | None = None
    handle: int | None = None
    made: list[Path] = []
    if ranks.first:
        made = [p for p in path.absolute().parents if not p.exists()]
        try:
            handle = _take(path, folder)
        except RunError as error:
            trouble = error
    if ranks.any(trouble is not None)[0]:
        raise trouble or RunError(f"{folder} is not free; process 0 says why.")
    try:
        yield
    finally:
        if handle is not None:
            _drop(handle, path)
            for parent in made:  # what is empty was made for the lock alone
                with contextlib.suppress(OSError):
                    parent.rmdir()


def _take(path: Path, folder: Path) -> int:
    _forget_in_children()
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            refuse_link(path)  # which would let the holder's name be written over another file
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as error:
            raise RunError(f"{path} cannot be written ({error.strerror}). Choose another folder.") from error
        try:
            _lock(handle)
        except OSError as error:
            if error.errno in _TAKEN:
                who = _owner(handle)
                os.close(handle)
                raise RunError(
                    f"{folder} is in use by another run{who}. Wait until it has ended, or choose another --output."
                ) from None
            logger.warning(
                "%s cannot be locked (%s), so nothing keeps a second run out of the folder", path, error.strerror
            )
        with contextlib.suppress(OSError):  # removed by its holder between opening and locking: once more
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        os.close(handle)
    if not _is_lock(handle):
        os.close(handle)
        raise RunError(f"{path} is in the way: it is no lock of a run. Move it, or choose another folder.")
    _held.add(handle)
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return handle


def _drop(handle: int, path: Path) -> None:
    _held.discard(handle)
    if sys.platform == "win32":  # an open file cannot be removed there, nor one that another run has opened
        os.close(handle)
        with contextlib.suppress(OSError):
            path.unlink()
        return
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(handle)


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        os.lseek(handle, 2**30, os.SEEK_SET)  # behind the text, which others may read
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_lock(handle: int) -> bool:
    """Whether a file is empty or holds what a run has written; another one is somebody's, and is not touched."""
    with contextlib.suppress(OSError):
        os.lseek(handle, 0, os.SEEK_SET)
        found = os.read(handle, 8)
        return not found or found == b"process "
    return False


def _owner(handle: int) -> str:
    with contextlib.suppress(OSError):
        os.lseek(handle, 0, os.SEEK_SET)
        if found := os.read(handle, 200).decode(errors="replace"):
            return f" ({found})"
    return ""


@functools.cache
def _forget_in_children() -> None:
    """A loader's workers share the file, and may outlive a run that was killed."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_close_all)


def _close_all() -> None:
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.pop())
