"""Archives that show one reader another content than the next one are refused before either is loaded."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from fuzz.mutate.archives import end, members_of, parts, plain, two_directories, two_records
from torch import nn

from registry.conftest import refused
from snnprune.errors import ModelFileError
from snnprune.learner.checkpoint import _write
from snnprune.registry import first_bytes
from snnprune.registry.files import read_model_file
from snnprune.registry.scan import read_scanned


def saved(content) -> list[tuple[str, bytes]]:
    target = io.BytesIO()
    torch.save(content, target)
    target.seek(0)
    return members_of(target)


SHOWN, LOADED = saved({"w": torch.zeros(2)}), saved({"w": torch.ones(2)})


def by_torch(data: bytes) -> torch.Tensor:
    return torch.load(io.BytesIO(data), weights_only=True)["w"]


@pytest.mark.parametrize("write", [two_directories, two_records])
def test_two_archives_in_one_file(tmp_path, write):
    data = write(SHOWN, LOADED)
    assert members_of(io.BytesIO(data)) == list(SHOWN), "Python's zipfile sees the one"
    assert by_torch(data).tolist() == [1.0, 1.0], "PyTorch loads the other"
    (tmp_path / "w.pt").write_bytes(data)
    refused(tmp_path / "w.pt", "not what torch.save writes", "its directory is")


def test_what_is_built_past_the_scan(tmp_path):
    """The pickle that is seen is harmless, the one that is loaded calls a layer with sizes of its own."""
    bomb = b"\x80\x02ctorch.nn.modules.linear\nLinear\nM\xe8\x03M\xe8\x03\x86R."
    loaded = [(n, bomb if n.endswith("data.pkl") else c) for n, c in SHOWN]
    for write in (two_directories, two_records):
        (tmp_path / "w.pt").write_bytes(write(SHOWN, loaded))
        with torch.serialization.safe_globals([nn.Linear]):
            assert torch.load(tmp_path / "w.pt", weights_only=True).weight.shape == (1000, 1000)
        with pytest.raises(ModelFileError):
            read_model_file(tmp_path / "w.pt")


def edited(change) -> bytes:
    """A plain archive after `change` of its bytes."""
    data = bytearray(plain(SHOWN))
    return bytes(change(data) or data)


def other_name(data: bytearray) -> None:
    data[30] ^= 1  # of the first part, in its own header only


def other_method(data: bytearray) -> None:
    data[8] = 8


def gap(data: bytearray) -> bytes:
    content, directory = parts(SHOWN, 7)
    return b"PK\3\4xyz" + content + directory + end(len(SHOWN), len(directory), 7 + len(content))


def rest_before_directory(data: bytearray) -> bytes:
    content, directory = parts(SHOWN, 0)
    return content + b"rest" + directory + end(len(SHOWN), len(directory), len(content) + 4)


def rest_at_end(data: bytearray) -> bytes:
    return bytes(data) + b"rest"


def comment(data: bytearray) -> bytes:
    content, directory = parts(SHOWN, 0)
    return content + directory + end(len(SHOWN), len(directory), len(content), b"comment")


def other_count(data: bytearray) -> None:
    struct.pack_into("<2H", data, len(data) - 14, 1, 1)


def overlapping(data: bytearray) -> bytes:
    content, directory = parts(SHOWN, 0)
    again = parts([(SHOWN[0][0] + "x", SHOWN[0][1])], 0)[1]
    return content + directory + again + end(len(SHOWN) + 1, len(directory) + len(again), len(content))


def in_directory(at: int, value: bytes):
    """Other bytes in the first entry of the directory, from `at` on."""

    def change(data: bytearray) -> bytes:
        content, directory = parts(SHOWN, 0)
        marked = bytearray(directory)
        marked[at : at + len(value)] = value
        return content + marked + end(len(SHOWN), len(directory), len(content))

    return change


def two_sizes(data: bytearray) -> bytes:
    """A part with two fields of 64 bits, of which one reader takes the first and one the last."""
    content, directory = parts(SHOWN, 0)
    field = struct.pack("<2HQ", 1, 8, len(SHOWN[0][1]))
    length = 46 + len(SHOWN[0][0])
    marked = bytearray(directory[:length] + field * 2 + directory[length:])
    marked[24:28], marked[30:32] = b"\xff" * 4, struct.pack("<H", 2 * len(field))
    return content + marked + end(len(SHOWN), len(marked), len(content))


def renamed(name: str):
    def change(data: bytearray) -> bytes:
        return plain([(SHOWN[0][0].replace("data.pkl", name), b"x"), *SHOWN])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_name, "two headers"),
        (other_method, "two headers"),
        (gap, "follow each other"),
        (rest_before_directory, "follow its parts"),
        (rest_at_end, "ends an archive"),
        (comment, "ends an archive"),
        (other_count, "not where it says"),
        (overlapping, "follow each other"),
        (
            in_directory(38, b"\x10"),
            "a folder with content",
        ),  # of which PyTorch gives memory that was never written
        (in_directory(8, b"\1"), "an unusual way"),  # encrypted
        (in_directory(10, b"\x0c"), "an unusual way"),  # compressed by bzip2
        (in_directory(24, b"\xff\xff\xff\x7f"), "two sizes"),
        (two_sizes, "two sizes"),
        (renamed("folder/"), "a folder with content"),
        (renamed("é"), "for every reader"),
        (renamed("a\x07"), "for every reader"),
    ],
)
def test_archives_that_readers_may_take_in_several_ways(tmp_path, change, message):
    (tmp_path / "w.pt").write_bytes(edited(change))
    refused(tmp_path / "w.pt", message)


@pytest.mark.parametrize("names", [["data.pkl"], None])
def test_a_reader_that_finds_something_else_has_the_last_word(tmp_path, monkeypatch, names):
    """Whatever the reason: here the reader is exchanged."""

    class Reader:
        def __init__(self, file) -> None:
            self.inner = reader(file)

        def get_all_records(self) -> list[str]:
            return names or self.inner.get_all_records()

        def get_record(self, name: str) -> bytes:
            return self.inner.get_record(name) + b"x" * (names is None)

    reader = torch._C.PyTorchFileReader
    (tmp_path / "w.pt").write_bytes(plain(SHOWN))
    read_model_file(tmp_path / "w.pt")
    monkeypatch.setattr(torch._C, "PyTorchFileReader", Reader)
    refused(tmp_path / "w.pt", "find different parts")


def test_good_archives_pass_however_they_were_written(tmp_path):
    """By torch.save into a path and into a stream, by zipfile with and without compression, and by hand."""
    state, path = {"weight": torch.arange(6.0).reshape(2, 3)}, tmp_path / "w.pt"
    written = []
    for name in ("w.pt", "wäre.pt"):
        torch.save(state, tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    stream = io.BytesIO()
    torch.save(state, stream)
    members = saved(state)
    written += [stream.getvalue(), plain(members)]
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for target in (io.BytesIO(), OneWay()):
            with zipfile.ZipFile(target, "w", how) as archive:
                for name, content in members:
                    archive.writestr(name, content)
            written.append(target.getvalue())
    for data in written:
        path.write_bytes(data)
        assert read_model_file(path)["weight"].equal(state["weight"])


class OneWay(io.BytesIO):
    """Cannot go back, so that sizes follow the contents."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_) -> int:
        raise OSError

    def tell(self) -> int:
        raise OSError


def test_the_file_that_was_looked_through_is_the_one_that_is_loaded(tmp_path, monkeypatch):
    """Another file under the same name changes nothing, for it is opened once."""
    path, other = tmp_path / "w.pt", tmp_path / "other.pt"
    torch.save({"w": torch.zeros(2)}, path)
    torch.save({"w": torch.ones(2)}, other)
    load = torch.load

    def swapped(*arguments, **options):
        other.replace(path)
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", swapped)
    assert read_model_file(path)["w"].tolist() == [0.0, 0.0]


def test_what_follows_a_checkpoint_s_content_is_not_part_of_it(tmp_path):
    path = tmp_path / "state.pt"
    _write({"step": 3}, path)
    size = path.stat().st_size
    with path.open("rb") as file:
        content = first_bytes(file, size - 40)
        assert read_scanned(content, path) == {"step": 3}
        content.seek(-3, io.SEEK_END)
        assert len(content.read()) == 3
    with path.open("rb") as file, pytest.raises(ModelFileError, match="ends an archive"):
        read_scanned(file, Path("whole"))


def test_settings_of_the_program_do_not_change_how_files_are_read(tmp_path, monkeypatch):
    """By default PyTorch may be told to map files, which it can do by their names alone."""
    load, asked = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *a, **options: asked.append(options) or load(*a, **options))
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt")
    assert read_model_file(tmp_path / "w.pt")["w"].tolist() == [1.0, 1.0]
    assert asked == [{"map_location": "cpu", "weights_only": True, "mmap": False}]
