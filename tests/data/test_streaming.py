"""Images that are read anew in every epoch: the same bits whoever reads them, and no more than are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from data.conftest import batches_equal
from snnprune.data import ArrayLoader, StreamLoader, load, load_data
from snnprune.data.images import read
from snnprune.errors import DataError
from snnprune.inputs import first_images
from snnprune.pipeline.contents import contents, why_not_again
from snnprune.streams import seed_of


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes of noise, of many shapes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for part, count in (("train", 10), ("valid", 3), ("test", 4)):
        for name in "ab":
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                height, width = rng.integers(70, 130, 2)
                pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    return folder


def loaders(photos, **options):
    return load_data(photos, image_size=66, batch_size=6, **options)


@pytest.fixture
def no_room(monkeypatch):
    monkeypatch.setattr(load, "available_memory", lambda: 1000)


@pytest.mark.parametrize("augment", ["none", "light"])
def test_what_is_drawn_does_not_depend_on_what_fits_into_memory(photos, no_room, monkeypatch, augment):
    streamed = loaders(photos, augment=augment, workers=0)
    assert [type(loader) for loader in streamed] == [StreamLoader] * 3
    monkeypatch.undo()
    held = loaders(photos, augment=augment)
    assert [type(loader) for loader in held] == [ArrayLoader] * 3
    for one, other in zip(streamed, held, strict=True):
        for epoch in (0, 3):
            assert batches_equal(list(one.batches(epoch)), list(other.batches(epoch)))


def test_training_images_alone_are_cropped_at_random(photos):
    train, val, test = loaders(photos)
    assert isinstance(train, StreamLoader)
    assert train.augment == "standard"
    assert (len(train.samples), len(val.samples), len(test.samples)) == (20, 6, 8)
    for loader in (val, test):
        assert isinstance(loader, ArrayLoader)
        assert batches_equal(list(loader), list(loader)), "the same in every epoch"


@pytest.mark.parametrize("augment", ["standard", "strong"])
def test_an_image_depends_on_seed_and_epoch_alone(photos, augment):
    whole = list(loaders(photos, augment=augment, workers=0).train.batches(2))
    assert [len(labels) for _, labels in whole] == [6, 6, 6]
    torch.manual_seed(99)  # another random state must not matter
    parallel = loaders(photos, augment=augment, workers=2).train
    assert batches_equal(list(parallel.batches(2)), whole)
    assert batches_equal(list(parallel.batches(2, 1)), whole[1:]), "a run that goes on at a step"
    for first, last in ((0, 4), (4, 6)):
        own = list(parallel.batches(2, part=lambda n, a=first, b=last: slice(a, b)))
        assert batches_equal(own, [(x[first:last], y[first:last]) for x, y in whole]), "one process of several"
    assert not batches_equal(list(parallel.batches(3)), whole)
    other = loaders(photos, augment=augment, workers=0, seed=1).train
    assert not torch.equal(next(iter(other.batches(2)))[0], whole[0][0])


def test_the_streams_of_the_program_stay_where_they_are(photos):
    for workers in (0, 2):
        before = torch.get_rng_state()
        list(loaders(photos, augment="strong", workers=workers).train)
        assert torch.equal(before, torch.get_rng_state())


def test_standard_is_what_torchvision_does(photos):
    """With the generator set as ours is, its own transforms give the same bytes."""
    train = loaders(photos, workers=0, mean=[0.0] * 3, std=[1.0] * 3).train
    theirs = v2.Compose(
        [v2.PILToTensor(), v2.RandomResizedCrop(66, scale=(0.25, 1.0), antialias=True), v2.RandomHorizontalFlip()]
    )
    places = next(train.steps(5, 0, None))[3].tolist()
    x, labels = next(iter(train.batches(5)))
    for place, image, label in zip(places, x, labels, strict=True):
        file = train.samples.files[place]
        torch.manual_seed(seed_of(train.seed, "image", 5, place))
        assert torch.equal(image, theirs(Image.open(file)).float() / 255)
        assert "ab"[int(label)] == file.parent.name


@pytest.mark.parametrize(("side", "ratio"), [(66, 0.875), (66, 1.0), (224, 0.875), (100, 0.9)])
def test_what_is_measured_on_is_what_torchvision_cuts(photos, side, ratio):
    theirs = v2.Compose([v2.Resize(round(side / ratio)), v2.CenterCrop(side), v2.PILToTensor()])
    for file in sorted(photos.rglob("*.png"))[:8]:
        assert torch.equal(read(file, side, 3, ratio)[0], theirs(Image.open(file)))


def test_photos_are_cut_from_more_than_their_size_and_small_images_are_not(photos):
    for side, ratio in ((66, 0.875), (64, 1.0)):
        assert load_data(photos, image_size=side).test.samples.crop_ratio == ratio
    assert load_data(photos, image_size=66, crop_ratio=1.0).test.samples.crop_ratio == 1.0
    with pytest.raises(DataError, match=r"crop_ratio=1\.5 must be a number above 0 and at most 1"):
        load_data(photos, crop_ratio=1.5)


def test_only_what_is_asked_for_is_decoded(photos, monkeypatch):
    from snnprune.data import parts

    seen = []
    plain = parts.read
    monkeypatch.setattr(parts, "read", lambda file, *more: (seen.append(file), plain(file, *more))[1])
    train, val, test = loaders(photos, limit=5, augment="light")
    assert not seen
    assert first_images(val, 2).shape == (2, 3, 66, 66)
    assert [file.parts[-3] for file in seen] == ["valid", "valid"]
    list(test)
    assert [file.parts[-3] for file in seen[2:]] == ["test"] * 8
    list(test)
    list(train)
    list(train)
    assert len(seen) == 2 + 8 + 5, "each once"


def test_a_broken_image_ends_the_epoch_by_name(photos, tmp_path):
    import shutil

    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    (folder / "train" / "b" / "3.png").write_text("no image")
    for workers in (0, 2):
        with pytest.raises(DataError, match=r"b/3\.png is no readable image .*\. Mend, replace or remove it\.$"):
            list(loaders(folder, workers=workers).train)


def test_what_sets_a_set_of_files_apart_from_others(photos, tmp_path):
    import shutil

    folder = Path(shutil.copytree(photos, tmp_path / "elsewhere"))
    plain = contents(loaders(photos).train)
    assert why_not_again(loaders(photos).train) is None
    moved, same = contents(loaders(folder).train), contents(loaders(photos, workers=0).train)
    for other in (moved, same):  # the folder may lie elsewhere
        assert other["content"] == plain["content"]
    assert contents(loaders(photos, augment="none").train)["augment"] == "none"
    assert contents(loaders(photos, crop_ratio=1.0).train)["content"] != plain["content"]
    Image.new("RGB", (90, 90)).save(folder / "train" / "a" / "1.png")
    assert contents(loaders(folder).train)["content"] != plain["content"]


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (("train", "valid", "test"), (20, 6, 8)),
        (("training", "validation", "testing"), (20, 6, 8)),
        (("Train", "val"), (18, 2, 6)),
        (("train",), (16, 2, 2)),
        ((".",), (16, 2, 2)),
    ],
)
def test_layouts(photos, tmp_path, names, sizes):
    import shutil

    for name, part in zip(names, ("train", "valid", "test"), strict=False):
        shutil.copytree(photos / part, tmp_path / name, dirs_exist_ok=True)
    found = [load_data(tmp_path, seed=seed) for seed in (0, 1)]
    assert [tuple(len(loader.samples) for loader in splits) for splits in found] == [sizes] * 2
    parts = [set(loader.samples.files) for loader in found[0]]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]
    assert parts[2] == set(found[1].test.samples.files), "the test part is the same for every seed"


def test_levels_are_named(photos):
    for given, level in ((True, "standard"), (False, "none"), ("auto", "standard"), ("light", "light")):
        assert loaders(photos, augment=given).train.augment == level
    assert load_data("digits", augment="auto").train.augment == "light"
    assert isinstance(load_data("digits", augment="standard").train, StreamLoader)
    with pytest.raises(DataError, match="augment='heavy' is none of auto, none, light, standard, strong"):
        load_data("digits", augment="heavy")
    with pytest.raises(DataError, match="workers=-1"):
        loaders(photos, workers=-1)


def test_arrays_are_cropped_at_random_too():
    """Grey digits are never mirrored."""
    train = load_data("digits", augment="standard", workers=0).train
    x, _ = next(iter(train.batches(0)))
    assert x.shape == (128, 1, 8, 8)
    again = load_data("digits", augment="standard", workers=2).train
    assert torch.equal(x, next(iter(again.batches(0)))[0])


@pytest.mark.parametrize(("workers", "times"), [(0, 0), (1, 1)])
def test_memory_is_given_back_before_workers_begin_as_copies(photos, monkeypatch, workers, times):
    called = []
    monkeypatch.setattr("snnprune.data.streaming.give_back", lambda: called.append(True))
    assert len(list(loaders(photos, augment="standard", workers=workers).train.batches(0))) == 3
    assert len(called) == times
