"""Archives in the one form that every reader of zip files reads alike.

Readers differ in where they look for the directory and in what they make of bytes that it does not speak of, so
that one file can show two contents. `torch.save` leaves no room for that: its parts lie one after the other from
the first byte on, the directory follows in the same order, and the last bytes are the record of where it is.
"""

from __future__ import annotations

import struct
import zipfile
from typing import IO

from .nodes import Refused

_END, _LOCATOR, _END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")
_LOCAL, _ENTRY = struct.Struct("<4s5H3L2H"), 46
_FLAGS = 0x80E  # how it was deflated, sizes that follow the content, and names in UTF-8
_SIZES_FOLLOW, _AFTER = (
    8,
    (12, 16, 20, 24),
)  # bytes of such sizes: with or without a signature, of 4 or 8 bytes each
_FOLDER = 0x10  # by the attributes of MS-DOS
_ZIP64, _MAX16, _MAX32 = 1, 2**16 - 1, 2**32 - 1


def parts_of(file: IO[bytes], archive: zipfile.ZipFile) -> dict[str, int]:
    """The sizes of the parts of an archive, by name.

    Args:
        file: the archive.
        archive: the same as `zipfile` reads it.

    Raises:
        Refused: some reader may read it in another way.
    """
    size = file.seek(0, 2)
    start, length, count = _directory(file, size)
    entries = archive.infolist()
    taken = sum(_ENTRY + len(e.orig_filename) + len(e.extra) + len(e.comment) for e in entries)
    if len(entries) != count or taken != length:
        raise Refused("its directory is not where it says")
    if len({entry.filename.lower() for entry in entries}) != count:
        raise Refused("two parts of it have the same name")
    if len({entry.filename.partition("/")[0] for entry in entries}) != 1:
        raise Refused("its parts do not lie in one folder")
    at: tuple[int, ...] = (0,)  # where the next part may begin
    for entry in entries:
        if entry.header_offset not in at:
            raise Refused("its parts do not follow each other from its first byte on")
        end = _end_of(file, entry)
        at = tuple(end + n for n in (_AFTER if entry.flag_bits & _SIZES_FOLLOW else (0,)))
    if start not in at:
        raise Refused("its directory does not follow its parts")
    return {entry.filename: entry.file_size for entry in entries}


def _directory(file: IO[bytes], size: int) -> tuple[int, int, int]:
    """Where the directory begins, its bytes and its entries, by records that agree and end with the file."""
    tail = _read(file, max(0, size - _END.size - _LOCATOR.size - _END64.size), size)
    signature, disk, other, here, count, length, start, comment = _END.unpack(tail[-_END.size :])
    end, short = size - _END.size, (here, count, length, start)
    if signature != b"PK\5\6" or disk or other or here != count or comment:
        raise Refused("its last bytes are not the record that ends an archive")
    if tail[-_END.size - _LOCATOR.size :].startswith(b"PK\6\7"):
        _, disk, at, disks = _LOCATOR.unpack(tail[-_END.size - _LOCATOR.size : -_END.size])
        signature, record, _, _, one, two, *long = _END64.unpack(tail[: _END64.size])
        end = size - _END.size - _LOCATOR.size - _END64.size
        known = (signature, record, at) == (b"PK\6\6", _END64.size - 12, end) and not (disk or one or two)
        limits = (_MAX16, _MAX16, _MAX32, _MAX32)
        agree = all(a in (b, most) for a, b, most in zip(short, long, limits, strict=True))
        if not known or disks != 1 or not agree or long[0] != long[1]:
            raise Refused("its two records of where its directory is differ")
        count, length, start = long[1:]
    if start + length != end:
        raise Refused("its directory is not where it says")
    return start, length, count


def _end_of(file: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Where the content of a part ends, whose two headers agree."""
    name = entry.orig_filename
    if name != entry.filename or not name.isascii() or not name.isprintable():
        raise Refused("a name of a part is not one for every reader")
    if entry.flag_bits & ~_FLAGS or entry.comment or entry.compress_type not in (0, zipfile.ZIP_DEFLATED):
        raise Refused("a part of it is stored in an unusual way")
    if entry.file_size and (name.endswith("/") or entry.external_attr & _FOLDER):  # nothing is read, nor refused
        raise Refused("a part of it is a folder with content")
    if entry.compress_type == 0 and entry.compress_size != entry.file_size:
        raise Refused("a part of it has two sizes")
    if _fields(entry.extra).count(_ZIP64) > 1:
        raise Refused("a part of it has two sizes")
    header = _read(file, entry.header_offset, entry.header_offset + _LOCAL.size)
    signature, _, flags, method, *_, name_length, extra_length = _LOCAL.unpack(header)
    begin = entry.header_offset + _LOCAL.size + name_length
    same = (signature, flags, method) == (b"PK\3\4", entry.flag_bits, entry.compress_type)
    if not same or _read(file, begin - name_length, begin) != name.encode():
        raise Refused("the two headers of a part differ")
    return begin + extra_length + entry.compress_size


def _fields(extra: bytes) -> list[int]:
    """The kinds of the extra fields of a part."""
    found, at = [], 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        found.append(kind)
        at += 4 + length
    return found


def _read(file: IO[bytes], begin: int, end: int) -> bytes:
    file.seek(begin)
    found = file.read(end - begin)
    if len(found) != end - begin:
        raise Refused("it is cut off")
    return found
