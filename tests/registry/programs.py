"""Pickles written by hand, in an archive as torch.save writes it."""

from __future__ import annotations

import struct
import zipfile


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def crafted(path, program: bytes, storage: bytes = bytes(16), how=zipfile.ZIP_STORED):
    """An archive as torch.save writes it, with a pickle of one's own."""
    with zipfile.ZipFile(path, "w", how) as archive:
        for entry, content in (
            ("data.pkl", b"\x80\x02" + program + b"."),
            ("data/0", storage),
            ("version", b"3\n"),
        ):
            archive.writestr(f"archive/{entry}", content)
    return path


def tensor(shape: bytes, strides: bytes, count: int = 4) -> bytes:
    """A dict with one tensor on a storage that is said to hold `count` floats."""
    storage = (
        b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + number(count) + b"tQ"
    )
    order = name("collections", "OrderedDict") + b")R"
    rebuilt = (
        name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + b"K\x00" + shape + strides + b"\x89" + order
    )
    return b"}" + text("weight") + rebuilt + b"tRs"
