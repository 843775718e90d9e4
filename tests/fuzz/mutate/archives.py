"""Zip files written by hand, so that their directory, end record and headers may say different things."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from typing import IO

Members = Sequence[tuple[str, bytes]]


def parts(members: Members, at: int, shift: int = 0) -> tuple[bytes, bytes]:
    """The parts as they lie at `at`, and a directory that says they lie `shift` bytes before that."""
    data, directory = b"", b""
    for name, content in members:
        raw = name.encode()
        common = struct.pack("<5H3L", 20, 0, 0, 0, 33, zipfile.crc32(content), len(content), len(content))
        offset = at + len(data) - shift
        data += b"PK\3\4" + common + struct.pack("<2H", len(raw), 0) + raw + content
        directory += b"PK\1\2" + struct.pack("<H", 20) + common
        directory += struct.pack("<5H2L", len(raw), 0, 0, 0, 0, 0, offset) + raw
    return data, directory


def end(count: int, length: int, start: int, comment: bytes = b"") -> bytes:
    return b"PK\5\6" + struct.pack("<4H2LH", 0, 0, count, count, length, start, len(comment)) + comment


def end64(count: int, length: int, start: int) -> bytes:
    return b"PK\6\6" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, count, count, length, start)


def locator(at: int) -> bytes:
    return b"PK\6\7" + struct.pack("<LQL", 0, at, 1)


def plain(members: Members) -> bytes:
    """What every reader reads alike."""
    data, directory = parts(members, 0)
    return data + directory + end(len(members), len(directory), len(data))


def two_directories(shown: Members, loaded: Members) -> bytes:
    """Python's zipfile takes the last directory, PyTorch's reader the one that the end record points to."""
    first, first_directory = parts(loaded, 0)
    second, _ = parts(shown, 0)
    first += bytes(max(0, len(second) - len(first)))  # no offset may become negative
    at = len(first) + len(first_directory)
    shift = at + len(second) - len(first)
    _, directory = parts(shown, at, shift)
    if len(directory) != len(first_directory):
        raise ValueError("both need names of the same lengths")
    return first + first_directory + second + directory + end(len(shown), len(directory), len(first))


def two_records(shown: Members, loaded: Members) -> bytes:
    """Python's zipfile takes the record before the locator, PyTorch's reader the one that it points to."""
    first, first_directory = parts(loaded, 0)
    record = len(first) + len(first_directory)
    head = first + first_directory + end64(len(loaded), len(first_directory), len(first))
    second, directory = parts(shown, len(head))
    start = len(head) + len(second)
    tail = end64(len(shown), len(directory), start) + locator(record)
    return head + second + directory + tail + end(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)


def members_of(file: IO[bytes]) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        return [(item.filename, archive.read(item)) for item in archive.infolist()]
