"""Folders of images: how they are read, and what is refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from data.conftest import loaded
from snnprune.data import load_data
from snnprune.errors import DataError


def write_images(folder: Path, per_class: dict[str, int], size=(8, 8), mode="RGB") -> Path:
    """Plain-coloured images: the k-th of class c has the value 10 c + k."""
    for label, (name, count) in enumerate(sorted(per_class.items())):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            value = 10 * label + k
            Image.new(mode, size, value if mode == "L" else (value,) * 3).save(folder / name / f"{k}.png")
    return folder


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_folder_is_read_class_by_class_in_alphabetical_order(tmp_path, mode):
    write_images(tmp_path / "train", {"b": 4, "a": 6, "c": 2}, mode=mode)
    write_images(tmp_path / "test", {"a": 1, "b": 2, "c": 1}, mode=mode)
    seen = []
    splits = load_data(str(tmp_path), progress=lambda what, done, total: seen.append((done, total)))
    info = splits.train.info
    assert info.classes == ("a", "b", "c")
    assert info.shape == ((1, 8, 8) if mode == "L" else (3, 8, 8))
    assert info.kind == "folder"
    assert not seen, "nothing is decoded before it is asked for"
    learned = torch.cat([splits.train.images, splits.val.images])[:, 0, 0, 0]
    labels = torch.cat([splits.train.labels, splits.val.labels])
    assert sorted(learned.tolist()) == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 20, 21]
    assert torch.equal(learned.long() // 10, labels)
    assert seen == [(9, 9), (3, 3)]
    assert splits.test.images[:, -1, -1, -1].tolist() == [0, 10, 11, 20]
    assert seen == [(9, 9), (3, 3), (4, 4)]
    assert splits.test.labels.tolist() == [0, 1, 1, 2]


def test_train_val_and_test_folders_are_taken_as_they_are(tmp_path):
    write_images(tmp_path / "train", {"a": 4, "b": 4})
    write_images(tmp_path / "val", {"a": 1, "b": 2})
    write_images(tmp_path / "test", {"a": 2, "b": 3})
    assert [len(loader.images) for loader in load_data(str(tmp_path))] == [8, 3, 5]


def test_without_a_test_folder_val_is_the_test_part(tmp_path):
    write_images(tmp_path / "train", {"a": 5, "b": 5})
    write_images(tmp_path / "val", {"a": 1, "b": 2})
    assert [len(loader.images) for loader in load_data(str(tmp_path))] == [8, 2, 3]


def test_images_are_brought_to_one_size_by_their_middle(tmp_path):
    for kind in ("train", "test"):
        write_images(tmp_path / kind, {"a": 2, "b": 2}, size=(16, 16))
    wide = Image.new("RGB", (48, 16), (255, 0, 0))
    wide.paste((0, 255, 0), (16, 0, 32, 16))  # the middle third is green
    wide.save(tmp_path / "test" / "a" / "wide.png")
    splits = load_data(str(tmp_path))
    assert splits.train.info.shape == (3, 16, 16)
    middle = splits.test.images[2]
    assert middle[1].min() == 255
    assert middle[0].max() == 0
    assert load_data(str(tmp_path), image_size=5).test.images.shape == (5, 3, 5, 5)


def test_large_images_become_224_pixels_wide(tmp_path):
    for kind in ("train", "test"):
        write_images(tmp_path / kind, {"a": 2, "b": 2}, size=(80, 70))
    assert load_data(str(tmp_path)).train.info.shape == (3, 224, 224)


def broken(folder: Path, how: str) -> str:
    """Damage a good folder; returns what the message must name."""
    file = folder / "train" / "b" / "1.png"
    if how == "no train":
        shutil.rmtree(folder / "train")
        return "must hold train/<class>/"
    if how == "no images":
        shutil.rmtree(folder / "test")
        (folder / "train").rename(folder / "other")
        (folder / "more").mkdir()
        return "train/<class>/"
    if how == "empty class":
        for image in (folder / "train" / "b").iterdir():
            image.unlink()
        return str(folder / "train" / "b")
    if how == "no test images":
        for image in (folder / "test").rglob("*.png"):
            image.unlink()
        return str(folder / "test")
    if how == "unknown test class":
        write_images(folder / "test" / "z", {"zz": 1})
        return "'z'"
    if how == "one class":
        shutil.rmtree(folder / "train" / "b")
        return "at least 2"
    if how == "text":
        file.write_text("not an image")
    elif how == "empty file":
        file.write_bytes(b"")
    elif how == "cut":
        Image.effect_noise((8, 8), 50).convert("RGB").save(file)
        file.write_bytes(file.read_bytes()[:-60])
    elif how == "first image":
        file = folder / "train" / "a" / "0.png"
        file.write_text("not an image")
    return str(file)


@pytest.mark.parametrize(
    "how",
    [
        "no train",
        "no images",
        "empty class",
        "no test images",
        "unknown test class",
        "one class",
        "text",
        "empty file",
        "cut",
        "first image",
    ],
)
def test_a_folder_with_something_wrong_is_refused_by_name(tmp_path, how):
    for kind in ("train", "test"):
        write_images(tmp_path / kind, {"a": 2, "b": 3})
    load_data(str(tmp_path))
    named = broken(tmp_path, how)
    with pytest.raises(DataError) as caught:
        loaded(str(tmp_path))
    assert named in str(caught.value)


@pytest.mark.parametrize("inner", ["images", "train", "."])
def test_mini_imagenet_is_split_five_to_one_in_every_class(tmp_path, inner):
    write_images(tmp_path / inner, {"n01": 6, "n02": 6, "n03": 6}, size=(10, 8))

    def load(seed: int):
        return load_data("mini-imagenet", tmp_path, image_size=8, seed=seed, val_fraction=0.2)

    train, val, test = load(0)
    assert train.info.classes == ("n01", "n02", "n03")
    assert train.info.shape == (3, 8, 8)
    assert test.labels.tolist() == [0, 1, 2]
    parts = [loader.images[:, 0, 0, 0].tolist() for loader in (train, val, test)]
    assert sorted(v for part in parts for v in part) == [10 * c + k for c in range(3) for k in range(6)]
    assert [v // 10 for v in parts[2]] == [0, 1, 2]
    assert load(0).test.images[:, 0, 0, 0].tolist() == parts[2]
    assert any(load(seed).test.images[:, 0, 0, 0].tolist() != parts[2] for seed in (1, 2, 3))


def test_mini_imagenet_images_are_84_pixels_wide_and_the_folder_must_exist(tmp_path):
    write_images(tmp_path, {"n01": 6, "n02": 6})
    assert load_data("mini-imagenet", tmp_path).train.info.shape == (3, 84, 84)
    with pytest.raises(DataError, match="nowhere"):
        loaded("mini-imagenet", tmp_path / "nowhere")
