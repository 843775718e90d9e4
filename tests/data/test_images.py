"""Image files: what is white, which way is up, how many channels, and what hides among them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.conftest import loaded
from data.test_folder import write_images
from snnprune.data import load_data
from snnprune.data.images import read
from snnprune.errors import DataError

SIDE = 16
DEEP = np.arange(0, 65536, 257, dtype=np.uint16).reshape(SIDE, SIDE)  # 257 times 0..255
BYTES = torch.arange(256, dtype=torch.uint8).reshape(1, SIDE, SIDE)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def colour_png(values: np.ndarray) -> bytes:
    """(h, w, channels) 16-bit colours, perhaps with transparency, which Pillow cannot write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def tiff_of_12_bits(values: np.ndarray) -> bytes:
    """Grey values of 12 bits, two of them in three bytes."""
    height, width = values.shape
    bits = "".join(f"{v:012b}" for v in values.flatten())
    strip = int(bits, 2).to_bytes(len(bits) // 8, "big")
    tags = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 0), (277, 1), (278, height)]
    tags.append((279, len(strip)))
    where = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", t, 4, 1, where if t == 273 else v) for t, v in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4) + strip


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "big.tif", "inverse.tif", "colour.png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled_by_their_white(tmp_path, name, channels):
    file = tmp_path / name
    if name == "colour.png":
        file.write_bytes(colour_png(np.repeat(DEEP[..., None], 3, 2)))
    elif name == "a.pgm":
        file.write_bytes(b"P5 16 16 65535\n" + DEEP.astype(">u2").tobytes())
    elif name == "inverse.tif":  # 0 is white, which Pillow leaves as it is
        Image.fromarray(65535 - DEEP).save(file, tiffinfo={262: 0})
    else:
        Image.fromarray(DEEP.astype(">u2") if name == "big.tif" else DEEP).save(file)
    found, peak = read(file, SIDE, channels)
    assert torch.equal(found, BYTES.expand(channels, -1, -1))
    assert peak == (None if name == "a.pgm" else 65535)


def test_files_that_tell_of_12_bits_are_scaled_by_those(tmp_path):
    values = np.arange(256, dtype=np.uint16).reshape(SIDE, SIDE) * 16
    (tmp_path / "a.tif").write_bytes(tiff_of_12_bits(values))
    found, peak = read(tmp_path / "a.tif", SIDE, 1)
    assert torch.equal(found[0], torch.from_numpy(np.rint(values / 4095 * 255)).to(torch.uint8))
    assert peak is None
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 4080\n" + values.astype(">u2").tobytes())
    found, peak = read(tmp_path / "a.pgm", SIDE, 1)
    assert torch.equal(found, BYTES)
    assert peak is None


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_12_bits_in_16_are_refused_and_14_named(tmp_path, caplog, channels):
    def write(top: int) -> None:
        values = np.full((8, 8), top, np.uint16)
        for file in tmp_path.rglob("*.png"):
            if channels > 1:
                planes = np.repeat(values[..., None], channels, 2)
                if channels != 3:
                    planes[..., -1] = 65535  # opaque
                file.write_bytes(colour_png(planes))
            else:
                Image.fromarray(values).save(file)

    for kind in ("train", "test"):
        write_images(tmp_path / kind, {"a": 2, "b": 2})
    write(4095)
    with pytest.raises(
        DataError, match=r"none of the 8 images of 16 bits, such as .*0\.png, has a value above 4095"
    ):
        load_data(str(tmp_path))
    write(16000)
    caplog.clear()
    assert int(load_data(str(tmp_path)).train.images.max()) == 62
    assert "16 bits" in caplog.text
    caplog.clear()
    write(40000)
    assert int(load_data(str(tmp_path)).train.images.max()) in (155, 156)  # 40000 / 257
    assert not caplog.text


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_files_whose_white_is_unknown_are_refused_and_counted(tmp_path, dtype):
    for kind in ("train", "test"):
        write_images(tmp_path / kind, {"a": 2, "b": 2})
    for name in ("train/a/x.tif", "train/b/y.tif", "test/b/z.tif"):
        Image.fromarray(np.full((8, 8), 0.5 if dtype == np.float32 else 70_000, dtype)).save(tmp_path / name)
    mode = "F" if dtype == np.float32 else "I"
    with pytest.raises(DataError, match=rf"x\.tif is no .*mode {mode}.*white.*; so are? . more of"):
        loaded(str(tmp_path))


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright(tmp_path, ending, orientation):
    """Four quarters of different grey; whoever looks sees them in this order."""
    upright = torch.tensor([[0, 80], [160, 240]], dtype=torch.uint8)
    seen = upright.repeat_interleave(8, 0).repeat_interleave(8, 1)
    stored = {
        1: seen,
        2: seen.flip(1),
        3: seen.flip(0, 1),
        4: seen.flip(0),
        5: seen.T,
        6: torch.rot90(seen, 1),
        7: seen.flip(0, 1).T,
        8: torch.rot90(seen, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    file = tmp_path / f"a.{ending}"
    quality = {"lossless": True} if ending == "webp" else {"quality": 100} if ending == "jpg" else {}
    Image.fromarray(stored.numpy()).save(file, exif=exif, **quality)
    found = read(file, 16, 1)[0][0]
    assert (found.int() - seen.int()).abs().max() <= 2


def test_an_image_lying_on_its_side_is_cut_as_it_is_seen(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    wide = Image.new("L", (8, 24))
    wide.paste(255, (0, 8, 8, 16))  # the middle third, also after turning
    wide.save(tmp_path / "a.png", exif=exif)
    assert read(tmp_path / "a.png", 8, 1)[0].min() == 255


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_notes_do_not_cost_a_picture(tmp_path):
    Image.new("L", (8, 8), 9).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read(tmp_path / "a.jpg", 8, 1)[0].unique().tolist() == [9]


RED = (200, 10, 30)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "P transparent", "CMYK"])
def test_colours_are_the_same_in_every_mode(tmp_path, mode):
    image = Image.new("RGB", (8, 8), RED)
    file, more = tmp_path / "a.png", {}
    if mode == "RGBA":
        image.putalpha(40)
    elif mode.startswith("P"):
        image = image.quantize(2)
        more = {"transparency": bytes([40, 90])} if " " in mode else {}
    elif mode == "CMYK":
        image, file = Image.new("CMYK", (8, 8), (55, 245, 225, 0)), tmp_path / "a.tif"
    image.save(file, **more)
    assert read(file, 8, 3)[0][:, 3, 3].tolist() == list(RED)
    luma = 0.299 * RED[0] + 0.587 * RED[1] + 0.114 * RED[2]
    assert abs(int(read(file, 8, 1)[0][0, 3, 3]) - luma) <= 1


def test_grey_with_transparency_stays_grey(tmp_path):
    Image.new("LA", (8, 8), (77, 0)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png", 8, 3)[0].unique().tolist() == [77]
    assert read(tmp_path / "a.png", 8, 1)[0].unique().tolist() == [77]


def test_channels_follow_who_asks_and_else_all_files(tmp_path):
    for kind in ("train", "test"):
        write_images(tmp_path / kind, {"a": 2, "b": 2}, mode="L")
    assert load_data(str(tmp_path)).train.info.shape[0] == 1
    colour = load_data(str(tmp_path), channels=3)
    assert colour.train.info.shape[0] == len(colour.train.info.mean) == 3
    assert colour.test.images[3].unique().tolist() == [11]
    Image.new("RGB", (8, 8), RED).save(tmp_path / "test" / "b" / "9.png")  # the very last file
    assert load_data(str(tmp_path)).train.info.shape[0] == 3
    grey = load_data(str(tmp_path), channels=1)
    assert grey.train.info.shape[0] == len(grey.train.info.mean) == 1
    with pytest.raises(DataError, match="channels=2"):
        loaded(str(tmp_path), channels=2)
    with pytest.raises(DataError, match="digits has images of 1 channel; channels=3"):
        loaded("digits", channels=3)
    write_images(tmp_path / "mini", {"a": 6, "b": 6})
    assert load_data("mini-imagenet", tmp_path / "mini", image_size=8, channels=1).train.info.shape == (1, 8, 8)


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    for kind in ("train", "val", "test"):
        write_images(tmp_path / kind, {"a": 6, "b": 6})
        for name in (".ipynb_checkpoints", ".cache"):
            (tmp_path / kind / name).mkdir()
            Image.new("RGB", (8, 8)).save(tmp_path / kind / name / "0.png")
        (tmp_path / kind / "a" / "._0.png").write_bytes(b"notes of a file system")
        (tmp_path / kind / "a" / ".DS_Store").write_bytes(b"")
        (tmp_path / kind / "a" / ".ipynb_checkpoints").mkdir()
    splits = load_data(str(tmp_path))
    assert splits.train.info.classes == ("a", "b")
    assert [len(loader.images) for loader in splits] == [12, 12, 12]
    assert load_data("mini-imagenet", tmp_path, image_size=8).train.info.classes == ("a", "b")


@pytest.mark.parametrize("how", ["absent", "empty"])
def test_a_class_that_one_part_lacks_keeps_its_number(tmp_path, caplog, how):
    for kind in ("train", "val", "test"):
        write_images(tmp_path / kind, {"a": 2, "b": 2, "c": 2})
    for kind in ("val", "test"):
        for file in (tmp_path / kind / "b").iterdir():
            file.unlink()
        if how == "absent":
            (tmp_path / kind / "b").rmdir()
    splits = load_data(str(tmp_path))
    assert splits.train.info.classes == splits.test.info.classes == ("a", "b", "c")
    assert splits.val.labels.tolist() == splits.test.labels.tolist() == [0, 0, 2, 2]
    assert f"{Path(tmp_path) / 'test'} holds no image of the class 'b'" in caplog.text


def test_what_is_broken_or_missing_is_counted(tmp_path):
    for kind in ("train", "test"):
        write_images(tmp_path / kind, {"a": 3, "b": 3, "c": 3, "d": 3})
    for name in ("train/a/0.png", "train/a/1.png", "train/a/2.png", "test/d/2.png"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(DataError, match=r"train/a/.\.png is no readable image .*; so are 1 more of 8\."):
        loaded(str(tmp_path))
    for name in ("b", "d"):
        (tmp_path / "train" / name).rename(tmp_path / "test" / f"z{name}")
        (tmp_path / "train" / name).mkdir()
    with pytest.raises(DataError, match=r"train/b holds no image \(the same goes for 1 more of 4 classes\)"):
        loaded(str(tmp_path))
    for name in ("b", "d"):
        (tmp_path / "train" / name).rmdir()
    with pytest.raises(DataError, match=r"class 'b', which the training folder lacks .*3 more"):
        loaded(str(tmp_path))


def test_looking_for_what_is_broken_ends(tmp_path, monkeypatch):
    for kind in ("train", "test"):
        write_images(tmp_path / kind, {"a": 9, "b": 9})
        for file in (tmp_path / kind).rglob("*.png"):
            file.write_text("no image")
    monkeypatch.setattr("snnprune.data.parts._ENOUGH", 5)
    with pytest.raises(DataError, match=r"train/a/0\.png is no readable image .*; so are 5 more of 6\."):
        loaded(str(tmp_path))
