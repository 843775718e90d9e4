"""Very many classes take as long as as many images, and files that cannot be read are named."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data.conftest import loaded, numbered
from data.test_folder import write_images
from snnprune.data import load_data
from snnprune.data.parts import Held
from snnprune.data.splitting import split, subset
from snnprune.errors import DataError


class Elements(TorchDispatchMode):
    """Counts the elements of all tensors that operations make."""

    made = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function._schema.name.endswith("_") or "split" in function._schema.name:  # in place, or a view
            return out
        self.made += sum(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
        return out


@pytest.mark.parametrize("work", [lambda part: split(part, 0.1, 0), lambda part: subset(part, 500, 0)])
def test_classes_are_told_apart_by_one_sort(work):
    classes, count = 1000, 3000
    part = Held(torch.zeros(count, 1, 1, 1, dtype=torch.uint8)), torch.arange(count) % classes
    with Elements() as seen:
        work(part)
    assert seen.made < 60 * count, "comparing all labels with every class makes 1000 times their number"


def test_the_split_is_that_of_each_class_drawn_in_turn():
    """As one class after the other would be looked for, so that runs of before can be gone on with."""
    labels = torch.randint(0, 40, (500,), generator=torch.Generator().manual_seed(1))
    labels[0] = 77
    images = torch.arange(500, dtype=torch.int32).reshape(500, 1, 1, 1)
    generator = torch.Generator().manual_seed(5)
    chosen = []
    for label in labels.unique():
        own = (labels == label).nonzero().flatten()
        count = max(1, round(0.2 * len(own))) if len(own) > 1 else 0
        chosen += own[torch.randperm(len(own), generator=generator)[:count]].tolist()
    (kept, _), (val, val_labels) = split((Held(images), labels), 0.2, 5)
    assert val.all().flatten().tolist() == sorted(chosen)
    assert torch.equal(val_labels, labels[sorted(chosen)])
    assert len(kept) + len(val) == 500


def test_a_subset_takes_the_first_of_every_class_in_a_drawn_order():
    labels = torch.tensor([3, 1, 1, 3, 3, 3, 7, 1, 3])
    images = torch.arange(9).reshape(9, 1, 1, 1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2)).tolist()
    rank = {at: [i for i in order if labels[i] == labels[at]].index(at) for at in range(9)}
    for limit in range(1, 10):
        taken = sorted(sorted(order, key=lambda at: rank[at])[:limit])
        assert subset((Held(images), labels), limit, 2)[0].all().flatten().tolist() == taken


def test_classes_of_a_folder_are_looked_up_and_not_searched_for(tmp_path, monkeypatch):
    """Texts that are compared count how often."""
    from snnprune.data import folder as module

    compared = 0

    class Name(str):
        __slots__ = ()

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    names = [Name(f"c{i}") for i in range(2000)]
    monkeypatch.setattr(module, "_folders", lambda _path: names)
    monkeypatch.setattr(module, "_files", lambda _path, classes: [(Path(n), i) for i, n in enumerate(classes)])
    module._other_part(tmp_path, [Name(n) for n in reversed(names)])
    assert compared < 10_000


def test_mini_imagenet_goes_through_its_files_once(tmp_path, monkeypatch):
    from snnprune.data import folder as module

    looked = 0

    class Item(tuple):
        __slots__ = ()

        def __getitem__(self, at):
            nonlocal looked
            looked += 1
            return tuple.__getitem__(self, at)

    names = [f"c{i}" for i in range(500)]
    monkeypatch.setattr(module, "_folders", lambda _path: names)
    files = [Item((Path(n), i)) for i, n in enumerate(names) for _ in "123456"]
    monkeypatch.setattr(module, "_files", lambda _path, _classes: files)
    read = module.mini_imagenet(tmp_path, 84, 3, 0)
    assert [len(labels) for _, labels in (read.train, read.test)] == [2500, 500]
    assert looked < 20_000


def good(folder: Path) -> Path:
    for kind in ("train", "test"):
        write_images(folder / kind, {"a": 3, "b": 3})
    return folder


def test_a_link_that_leads_nowhere_is_named_and_not_passed_over(tmp_path):
    good(tmp_path)
    for name, target in (("dead.png", "nowhere"), ("loop.png", "loop.png")):
        link = tmp_path / "train" / "b" / name
        link.symlink_to(target)
        with pytest.raises(DataError, match=rf"{name} is no readable image"):
            loaded(str(tmp_path))
        link.unlink()


@pytest.mark.parametrize("name", ["train", "train/b", "test", "test/a", "train/a/1.png"])
def test_what_may_not_be_read_is_named(tmp_path, monkeypatch, name):
    good(tmp_path)
    forbidden = tmp_path / name

    def guarded(method):
        def call(self, *args, **kwargs):
            if self == forbidden:
                raise PermissionError(errno.EACCES, "Permission denied", str(self))
            return method(self, *args, **kwargs)

        return call

    for method in ("iterdir", "open"):
        monkeypatch.setattr(Path, method, guarded(getattr(Path, method)))
    plain = Image.open

    def opened(file, *args, **kwargs):
        if Path(file) == forbidden:
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return plain(file, *args, **kwargs)

    monkeypatch.setattr(Image, "open", opened)
    with pytest.raises(DataError, match=rf"{name} (cannot be read or written|is no readable image)") as caught:
        loaded(str(tmp_path))
    assert "ermission" in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_pipes_and_files_in_place_of_folders(tmp_path):
    good(tmp_path / "d")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file.npz").mkdir()
    for name in ("pipe", "file.npz", "d/train/a/1.png"):
        with pytest.raises(DataError):
            load_data(str(tmp_path / name))


def test_an_array_file_with_a_label_below_0_tells_its_smallest_and_largest(tmp_path):
    labels = np.arange(20) % 10
    labels[3] = -1
    np.savez(tmp_path / "d.npz", x_train=numbered(20), y_train=labels, x_test=numbered(10), y_test=np.arange(10))
    with pytest.raises(DataError, match=r"y_train.*hold the label -1, and go up to 9"):
        load_data(str(tmp_path / "d.npz"))


def test_a_fake_set_that_does_not_fit_into_memory_is_named(monkeypatch):
    monkeypatch.setattr("snnprune.memory.available_memory", lambda: 2**24)
    with pytest.raises(DataError, match=r"fake, of 1000 classes at 32x32, needs .*smaller num_classes"):
        load_data("fake", num_classes=1000)
