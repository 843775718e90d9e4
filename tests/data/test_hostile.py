"""Data files made to take memory or to have code run."""

from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from data.conftest import loaded
from data.test_folder import write_images
from data.test_sources import arrays
from snnprune import memory
from snnprune.data import StreamLoader, load, load_data
from snnprune.errors import DataError


def member(shape: tuple[int, ...], dtype: str = "|u1", content: bytes = b"") -> bytes:
    """An array file that claims a shape, whatever follows."""
    target = io.BytesIO()
    np.lib.format.write_array_header_1_0(target, {"descr": dtype, "fortran_order": False, "shape": shape})
    return target.getvalue() + content


def replaced(path, **members: bytes) -> str:
    np.savez(path, **arrays(**dict.fromkeys(members)))
    with zipfile.ZipFile(path, "a") as archive:
        for key, content in members.items():
            archive.writestr(f"{key}.npy", content)
    return str(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (member((2**20, 2**10, 2**10), content=bytes(64)), "claims the shape"),
        (member((12, 8, 8), content=bytes(12 * 64 + 1)), "claims the shape"),
        (member((-1, 8, 8), content=bytes(64)), "claims the shape|no readable"),
        (member((12, 8, 8), "<f8", bytes(12 * 64 * 8)), "x_train must be uint8"),
        (member((12, 8, 8), "|O", bytes(12 * 64 * 8)), "x_train must be uint8"),
        (member((2**40,), "|S0"), "x_train must be uint8"),
        (b"\x93NUMPY\x03\x00" + bytes(100), r"version \(3, 0\)"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100), "no readable"),
    ],
    ids=["huge", "longer", "negative", "float", "object", "nothing", "version", "header"],
)
def test_array_headers_are_checked_before_arrays_are_made(tmp_path, monkeypatch, content, message):
    read = []
    monkeypatch.setattr(np.lib.format, "read_array", lambda *a, **k: read.append(a))
    with pytest.raises(DataError, match=message):
        loaded(replaced(tmp_path / "d.npz", x_train=content))
    assert not read


def test_an_archive_that_unpacks_to_far_more_than_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "SMALL", 2**20)
    big = arrays(x_train=np.zeros((12, 512, 512), np.uint8), x_test=np.zeros((3, 512, 512), np.uint8))
    np.savez_compressed(tmp_path / "d.npz", **big)
    with pytest.raises(DataError, match="would unpack to"):
        loaded(str(tmp_path / "d.npz"))
    np.savez(tmp_path / "d.npz", **big)
    assert load_data(str(tmp_path / "d.npz")).train.info.shape == (1, 512, 512)


def test_only_the_beginning_of_an_array_is_unpacked_for_its_header(tmp_path, monkeypatch):
    """A header that claims 30 MB of itself, in an archive of 30 kB."""
    header = b"\x93NUMPY\x02\x00" + (30 * 2**20).to_bytes(4, "little") + b" " * (30 * 2**20)
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{key}.npy", header)
    taken = []
    read = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: taken.append(n) or read(self, n))
    with pytest.raises(DataError, match="no readable"):
        loaded(str(tmp_path / "d.npz"))
    assert taken
    assert all(0 < n <= 2**14 for n in taken)


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_numpy_never_writes(tmp_path, how):
    np.savez(tmp_path / "d.npz", **arrays())
    with zipfile.ZipFile(tmp_path / "d.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "d.npz", "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match="compressed in a way"):
        loaded(str(tmp_path / "d.npz"))


def test_labels_are_counted_as_what_they_become(tmp_path, monkeypatch):
    """A byte in the file, eight in memory."""
    monkeypatch.setattr(memory, "SMALL", 200_000)
    labels = np.zeros(40_000, np.uint8)
    np.savez_compressed(tmp_path / "d.npz", **arrays(x_train=np.zeros((40_000, 1, 1), np.uint8), y_train=labels))
    with pytest.raises(DataError, match="would unpack to"):
        loaded(str(tmp_path / "d.npz"))


def test_arrays_that_are_not_read_are_not_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "SMALL", 2**20)
    np.savez_compressed(tmp_path / "d.npz", **arrays(), more=np.zeros(2**22, np.uint8))
    assert load_data(str(tmp_path / "d.npz")).train.info.shape == (1, 8, 8)


def test_data_that_do_not_fit_into_memory(tmp_path, monkeypatch):
    for module in (memory, load):
        monkeypatch.setattr(module, "available_memory", lambda: 1000)
    np.savez(tmp_path / "d.npz", **arrays())
    for kind in ("train", "test"):
        write_images(tmp_path / kind, {"a": 2, "b": 2})
    write_images(tmp_path / "many", {"a": 6, "b": 6})
    with pytest.raises(DataError, match=r"d\.npz needs .* of memory, but .* are available.*--data file\.py"):
        loaded(str(tmp_path / "d.npz"))
    for splits in (load_data(str(tmp_path), image_size=64), load_data("mini-imagenet", tmp_path / "many")):
        assert [type(loader) for loader in splits] == [StreamLoader] * 3, "these are read when they are asked for"


def good_folder(tmp_path):
    for kind in ("train", "test"):
        write_images(tmp_path / kind, {"a": 2, "b": 2})
    return tmp_path / "train" / "a" / "1.png"


def test_a_program_named_like_an_image_is_not_run(tmp_path, monkeypatch):
    """Pillow hands EPS files to Ghostscript, whatever their name."""
    from PIL import EpsImagePlugin

    ran = []
    monkeypatch.setattr(
        EpsImagePlugin, "Ghostscript", lambda *a, **k: ran.append(a) or Image.new("RGB", (8, 8)).im
    )
    file = good_folder(tmp_path)
    Image.new("RGB", (8, 8)).save(file, "EPS")
    with Image.open(file) as image:
        image.load()
    assert ran, "the file is such a program"
    ran.clear()
    with pytest.raises(DataError, match=r"1\.png is no readable image"):
        loaded(str(tmp_path))
    assert not ran


def test_an_image_that_would_become_huge(tmp_path):
    file = good_folder(tmp_path)
    Image.new("1", (1, 60_000)).save(file)
    with pytest.raises(DataError, match="1x60000 pixels cannot be brought to 512x512"):
        loaded(str(tmp_path), image_size=512)


def test_a_small_file_of_many_pixels(tmp_path):
    file = good_folder(tmp_path)
    Image.new("1", (5000, 5000)).save(file)
    assert file.stat().st_size < 10_000
    with pytest.raises(DataError, match="5000x5000 pixels in so small a file"):
        loaded(str(tmp_path), image_size=8)
    Image.new("1", (5000, 5000)).save(file, "BMP")  # three million bytes
    assert load_data(str(tmp_path), image_size=8).train.info.shape[1:] == (8, 8)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_named_like_an_image_is_passed_over(tmp_path):
    file = good_folder(tmp_path)
    os.mkfifo(file.with_name("2.png"))
    assert len(load_data(str(tmp_path)).test.images) == 4


def test_damaged_files_of_a_named_set(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"no numbers")
    with pytest.raises(DataError, match=r"the files of mnist in .* are damaged"):
        loaded("mnist", tmp_path, download=False)
