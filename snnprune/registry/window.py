"""The first bytes of a file as a file of its own, for readers that look for what they need from its end."""

from __future__ import annotations

import io
from typing import IO


def first_bytes(file: IO[bytes], length: int) -> IO[bytes]:
    """A view on the first bytes of an open file, which is not copied."""
    return io.BufferedReader(_Window(file, length))


class _Window(io.RawIOBase):
    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file, self._length, self._at = file, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._at)
        found = self._file.read(max(0, min(len(buffer), self._length - self._at)))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
