"""Data sets: what is read, how it is split, and that batches depend on (seed, epoch, step) alone."""

from __future__ import annotations

import itertools
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from snnprune.data import ArrayLoader, DataInfo, info_of, load_data
from snnprune.errors import DataError, ModelFileError

GREY = DataInfo("grey", (1, 8, 8), ("0", "1"), (0.0,), (1.0,))
COLOUR = DataInfo("colour", (3, 16, 16), ("0", "1"), (0.0,) * 3, (1.0,) * 3)


def noise(n: int, info: DataInfo = GREY, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, *info.shape), dtype=torch.uint8, generator=generator)
    return images, torch.arange(n) % 2


def batches_equal(a: list, b: list) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True)
    )


def numbered(n: int, first: int = 0) -> np.ndarray:
    """(n, 8, 8) images that carry their number in the first two pixels."""
    images = np.zeros((n, 8, 8), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(first, first + n), 256)
    return images


def numbers(loader: ArrayLoader) -> list[int]:
    return (loader.images[:, 0, 0, 0].long() * 256 + loader.images[:, 0, 0, 1].long()).tolist()


def write_npz(path: Path, labels: list[int], test_labels: list[int]) -> Path:
    np.savez(
        path,
        x_train=numbered(len(labels)),
        y_train=np.array(labels),
        x_test=numbered(len(test_labels), first=10_000),
        y_test=np.array(test_labels),
    )
    return path


def write_images(folder: Path, per_class: dict[str, int], size=(8, 8), mode="RGB") -> Path:
    """Plain-coloured images: the k-th of class c has the value 10 c + k."""
    for label, (name, count) in enumerate(sorted(per_class.items())):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            value = 10 * label + k
            Image.new(mode, size, value if mode == "L" else (value,) * 3).save(folder / name / f"{k}.png")
    return folder


# ---- the loader


@pytest.mark.parametrize("info", [GREY, COLOUR], ids=["grey", "colour"])
def test_a_batch_depends_on_seed_epoch_and_step_alone(info):
    data = noise(50, info)
    options = {"batch_size": 8, "shuffle": True, "augment": True, "drop_last": True}
    loader = ArrayLoader(*data, info, seed=3, **options)
    whole = list(loader.batches(2))
    assert len(whole) == len(loader) == 6
    torch.manual_seed(99)  # another random state must not matter
    for start in range(7):
        assert batches_equal(list(loader.batches(2, start)), whole[start:])
    assert batches_equal(list(ArrayLoader(*data, info, seed=3, **options).batches(2)), whole)
    assert not batches_equal(list(loader.batches(3)), whole)
    assert not batches_equal(list(ArrayLoader(*data, info, seed=4, **options).batches(2)), whole)


def test_the_loader_leaves_the_global_random_state_alone():
    loader = ArrayLoader(*noise(20), GREY, batch_size=4, shuffle=True, augment=True)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(before, torch.get_rng_state())


def test_iterating_counts_the_epochs():
    loader = ArrayLoader(*noise(20), GREY, batch_size=4, shuffle=True)
    first, second = list(loader), list(loader)
    assert not batches_equal(first, second)
    assert batches_equal(first, list(loader.batches(0)))
    assert batches_equal(second, list(loader.batches(1)))


def test_an_iteration_that_is_broken_off_is_no_epoch():
    loader = ArrayLoader(*noise(20), GREY, batch_size=4, shuffle=True)
    next(iter(loader))
    assert batches_equal(list(loader), list(loader.batches(0)))


def test_an_epoch_holds_every_image_once_with_its_label():
    images, labels = torch.from_numpy(numbered(37))[:, None], torch.arange(37)
    loader = ArrayLoader(images, labels, GREY, batch_size=8, shuffle=True)
    x, y = (torch.cat(part) for part in zip(*loader, strict=True))
    assert len(loader) == 5
    assert y.tolist() != list(range(37))
    assert sorted(y.tolist()) == list(range(37))
    assert torch.equal((x[:, 0, 0, 1] * 255).round().long(), y)
    plain = ArrayLoader(images, labels, GREY, batch_size=8)
    assert torch.cat([y for _, y in plain]).tolist() == list(range(37))


def test_the_last_batch_is_dropped_unless_it_is_the_only_one():
    assert [len(y) for _, y in ArrayLoader(*noise(20), GREY, batch_size=8, drop_last=True)] == [8, 8]
    assert [len(y) for _, y in ArrayLoader(*noise(20), GREY, batch_size=8)] == [8, 8, 4]
    few = ArrayLoader(*noise(5), GREY, batch_size=8, drop_last=True)
    assert len(few) == 1
    assert [len(y) for _, y in few] == [5]


@pytest.mark.parametrize(("info", "mirrors"), [(GREY, False), (COLOUR, True)], ids=["grey", "colour"])
def test_augmentation_shifts_by_an_eighth_and_mirrors_only_colour(info, mirrors):
    images, labels = noise(64, info)
    loader = ArrayLoader(images, labels, info, batch_size=64, augment=True)
    x, _ = next(iter(loader))
    side = info.shape[1]
    reach = side // 8
    padded = F.pad(images.float() / 255, (reach,) * 4, mode="replicate")
    seen = set()
    for i in range(64):
        found = []
        for top, left in itertools.product(range(2 * reach + 1), repeat=2):
            window = padded[i, :, top : top + side, left : left + side]
            found += [(top, left, False)] * torch.equal(x[i], window)
            found += [(top, left, True)] * torch.equal(x[i], window.flip(2))
        assert len(found) == 1, f"image {i} is no shifted original"
        seen.add(found[0])
    assert {flip for *_, flip in seen} == ({False, True} if mirrors else {False})
    assert len({top for top, *_ in seen}) == len({left for _, left, _ in seen}) == 2 * reach + 1


def test_mean_and_std_are_applied_per_channel():
    images, labels = noise(6, COLOUR)
    info = DataInfo("x", (3, 16, 16), ("0", "1"), (0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
    x, _ = next(iter(ArrayLoader(images, labels, info, batch_size=6)))
    for channel in range(3):
        expected = (images[:, channel].double() / 255 - info.mean[channel]) / info.std[channel]
        assert torch.allclose(x[:, channel].double(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(4, 1, 8, 8), torch.zeros(4)),
        (torch.zeros(4, 8, 8, dtype=torch.uint8), torch.zeros(4)),
        (torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(3)),
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0)),
    ],
    ids=["float", "no-channels", "too-few-labels", "empty"],
)
def test_the_loader_refuses_what_is_no_data(images, labels):
    with pytest.raises(DataError):
        ArrayLoader(images, labels, GREY, batch_size=2)


# ---- splits


def test_digits_has_fixed_sizes_and_a_test_set_that_is_never_learned_from():
    from sklearn.datasets import load_digits

    everything = {}
    for pixels in load_digits().data:
        key = np.rint(pixels * (255 / 16)).astype(np.uint8).tobytes()
        everything[key] = everything.get(key, 0) + 1
    held_out = None
    for seed in (0, 1):
        splits = load_data("digits", seed=seed)
        parts = [[image.numpy().tobytes() for image in loader.images] for loader in splits]
        assert [len(part) for part in parts] == [1293, 144, 360]
        counted: dict[bytes, int] = {}
        for key in (key for part in parts for key in part):
            counted[key] = counted.get(key, 0) + 1
        assert counted == everything, "every image is in exactly one part"
        assert held_out in (None, parts[2]), "the test set does not depend on the seed"
        held_out = parts[2]
    assert not set(parts[2]) & set(parts[0] + parts[1])


def test_the_validation_part_is_carved_class_by_class(tmp_path):
    labels = [0] * 40 + [1] * 20 + [2] * 3 + [3]
    path = write_npz(tmp_path / "d.npz", labels, [0, 1, 2, 3])
    train, val, test = load_data(str(path), val_fraction=0.1)
    assert sorted(numbers(train) + numbers(val)) == list(range(64))
    assert numbers(test) == [10_000, 10_001, 10_002, 10_003]
    assert [labels[i] for i in numbers(val)] == val.labels.tolist()
    assert [labels[i] for i in numbers(train)] == train.labels.tolist()
    assert val.labels.bincount(minlength=4).tolist() == [4, 2, 1, 0], "no class is emptied"
    again = load_data(str(path), val_fraction=0.1)
    other = load_data(str(path), val_fraction=0.1, seed=1)
    assert numbers(again.val) == numbers(val)
    assert numbers(other.val) != numbers(val)
    assert len(load_data(str(path), val_fraction=0.5).val.labels) == 20 + 10 + 2


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_a_validation_share_outside_0_1_is_refused(fraction):
    with pytest.raises(DataError, match="val_fraction"):
        load_data("digits", val_fraction=fraction)


def test_one_image_per_class_leaves_nothing_to_validate_on(tmp_path):
    with pytest.raises(DataError, match="no validation part"):
        load_data(str(write_npz(tmp_path / "d.npz", [0, 1], [0, 1])))


def test_limit_takes_a_balanced_subset_of_the_training_part_alone(tmp_path):
    labels = [c for c in range(10) for _ in range(20)]
    path = str(write_npz(tmp_path / "d.npz", labels, [0, 9]))
    whole = load_data(path)
    for limit in (10, 15, 100):
        splits = load_data(path, limit=limit)
        assert len(splits.train.images) == limit
        assert set(numbers(splits.train)) < set(numbers(whole.train))
        assert numbers(splits.val) == numbers(whole.val)
        assert splits.train.labels.tolist() == [labels[i] for i in numbers(splits.train)]
        counts = splits.train.labels.bincount(minlength=10)
        assert int(counts.max() - counts.min()) <= 1, f"limit={limit}: {counts.tolist()}"
        assert numbers(load_data(path, limit=limit).train) == numbers(splits.train)
    assert numbers(load_data(path, limit=15, seed=1).train) != numbers(load_data(path, limit=15).train)
    assert numbers(load_data(path, limit=10**6).train) == numbers(whole.train)


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": -3}, {"image_size": 0}, {"batch_size": 0}])
def test_senseless_numbers_are_named(options):
    with pytest.raises(DataError, match=next(iter(options))):
        load_data("digits", **options)


def test_the_loaders_shuffle_and_augment_the_training_part_alone():
    train, val, test = load_data("digits", batch_size=32)
    assert train.shuffle
    assert train.augment
    assert train.drop_last
    for loader in (val, test):
        assert batches_equal(list(loader), list(loader)), "the same in every epoch"
    assert not load_data("digits", augment=False).train.augment
    assert info_of(train) is train.info
    assert info_of([1, 2]) is None


# ---- normalisation


def test_constants_given_by_the_user_replace_those_of_the_set():
    own = load_data("digits").train.info
    assert own.mean != (0.25,)
    given = load_data("digits", mean=[0.25], std=[0.5])
    assert given.train.info.mean == given.test.info.mean == (0.25,)
    x, _ = next(iter(given.val))
    images = given.val.images[: len(x)].float() / 255
    assert torch.allclose(x, (images - 0.25) / 0.5, atol=1e-6)


def test_one_value_serves_all_channels():
    assert load_data("fake", mean=[0.5], std=[0.25]).train.info.std == (0.25,) * 3


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0.1, 0.2), None, "--mean has 2 values for images of 1 channels"),
        (None, (1, 1, 1), "--std has 3 values"),
        (None, (0.0,), "positive"),
        (None, (-1.0,), "positive"),
        ((float("nan"),), None, "finite"),
        (None, (float("inf"),), "finite"),
        ("abc", None, "no list of numbers"),
        ((), None, "--mean has 0 values"),
    ],
)
def test_wrong_constants_are_refused(mean, std, message):
    with pytest.raises(DataError, match=message):
        load_data("digits", mean=mean, std=std)


# ---- folders


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
    assert seen[-1] == (16, 16)
    learned = torch.cat([splits.train.images, splits.val.images])[:, 0, 0, 0]
    labels = torch.cat([splits.train.labels, splits.val.labels])
    assert sorted(learned.tolist()) == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 20, 21]
    assert torch.equal(learned.long() // 10, labels)
    assert splits.test.images[:, -1, -1, -1].tolist() == [0, 10, 11, 20]
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


def test_image_size_also_resizes_sets_in_memory():
    splits = load_data("digits", image_size=16)
    assert splits.train.info.shape == (1, 16, 16)
    small, large = load_data("digits").test.images.float(), splits.test.images.float()
    assert float((F.avg_pool2d(large, 2) - small).abs().mean()) < 20
    assert float((F.avg_pool2d(large, 2) - small.roll(1, 0)).abs().mean()) > 40, "the measure tells images apart"
    assert abs(float(large.mean() - small.mean())) < 1


def broken(folder: Path, how: str) -> str:
    """Damage a good folder; returns what the message must name."""
    file = folder / "train" / "b" / "1.png"
    if how == "no train":
        shutil.rmtree(folder / "train")
        return "train/<class>/"
    if how == "no test":
        shutil.rmtree(folder / "test")
        return "test/<class>/"
    if how == "empty class":
        for image in (folder / "train" / "b").iterdir():
            image.unlink()
        return str(folder / "train" / "b")
    if how == "no test images of a class":
        shutil.rmtree(folder / "test" / "b")
        return str(folder / "test" / "b")
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
        "no test",
        "empty class",
        "no test images of a class",
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
        load_data(str(tmp_path))
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
        load_data("mini-imagenet", tmp_path / "nowhere")


# ---- arrays


def arrays(**changes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    content = {
        "x_train": rng.integers(0, 256, (12, 8, 8), dtype=np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": rng.integers(0, 256, (3, 8, 8), dtype=np.uint8),
        "y_test": np.arange(3),
    }
    content.update(changes)
    return {key: value for key, value in content.items() if value is not None}


def test_an_npz_file_is_read_as_it_is(tmp_path):
    content = arrays()
    np.savez_compressed(tmp_path / "d.npz", **content)
    train, val, test = load_data(str(tmp_path / "d.npz"))
    assert train.info.kind == "arrays"
    assert train.info.classes == ("0", "1", "2")
    assert np.array_equal(test.images.numpy()[:, 0], content["x_test"])
    assert test.labels.tolist() == [0, 1, 2]
    learned = {image.numpy().tobytes() for loader in (train, val) for image in loader.images}
    assert learned == {image.tobytes() for image in content["x_train"]}


def test_channels_come_last_in_an_npz_file(tmp_path):
    rng = np.random.default_rng(0)
    content = arrays(
        x_train=rng.integers(0, 256, (12, 8, 6, 3), dtype=np.uint8),
        x_test=rng.integers(0, 256, (3, 8, 6, 3), dtype=np.uint8),
        y_train=(np.arange(12) % 3)[:, None],
    )
    np.savez(tmp_path / "d.npz", **content)
    splits = load_data(str(tmp_path / "d.npz"))
    assert splits.train.info.shape == (3, 8, 6)
    assert np.array_equal(splits.test.images.numpy(), content["x_test"].transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None, "x_test": None}, "lacks the arrays x_test, y_test"),
        ({"x_train": np.zeros((12, 8, 8), dtype=np.float32)}, "x_train must be uint8.*float32"),
        ({"x_train": np.zeros((12, 64), dtype=np.uint8)}, "x_train must be uint8"),
        ({"x_train": np.zeros((0, 8, 8), dtype=np.uint8)}, "x_train must be uint8"),
        ({"x_train": np.zeros((12, 0, 8), dtype=np.uint8)}, "x_train must be uint8"),
        ({"x_train": np.zeros((12, 8, 8, 2), dtype=np.uint8)}, "2 channels; 1 or 3"),
        ({"y_train": np.arange(11)}, "y_train must hold 12 integer labels"),
        ({"y_train": np.zeros(12)}, "y_train must hold 12 integer labels"),
        ({"y_train": np.arange(12) - 1}, "y_train must hold 12 integer labels"),
        ({"y_train": np.arange(12) * 10**12}, "y_train must hold 12 integer labels"),
        ({"x_test": np.zeros((3, 9, 9), dtype=np.uint8)}, r"\(1, 8, 8\), test \(1, 9, 9\)"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, changes, message):
    np.savez(tmp_path / "d.npz", **arrays(**changes))
    with pytest.raises(DataError, match=message) as caught:
        load_data(str(tmp_path / "d.npz"))
    assert "d.npz" in str(caught.value)


class Explosive:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def test_an_object_array_is_never_unpickled(tmp_path):
    marker = tmp_path / "ran"
    bomb = np.array([Explosive(marker)] * 12, dtype=object)
    np.savez(tmp_path / "d.npz", **arrays(y_train=bomb))
    with pytest.raises(DataError, match=r"d\.npz"):
        load_data(str(tmp_path / "d.npz"))
    assert not marker.exists()
    with np.load(tmp_path / "d.npz", allow_pickle=True) as content:
        content["y_train"]
    assert marker.exists(), "the test file does run code when it is trusted"


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    np.savez_compressed(path, **arrays())
    good = path.read_bytes()
    middle = len(good) // 4
    for damaged in (
        good[: len(good) // 2],
        b"",
        b"no archive at all",
        good[:middle] + bytes(20) + good[middle + 20 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"d\.npz"):
            load_data(str(path))


def test_a_member_that_is_no_array_is_refused(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, **arrays(x_train=None))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train", b"just bytes")
    with pytest.raises(DataError, match="x_train must be uint8"):
        load_data(str(path))


# ---- code, names


def write_code(tmp_path: Path, body: str) -> str:
    path = tmp_path / "mine.py"
    path.write_text(f"import torch\n\ndef loaders():\n{body}")
    return f"{path}:loaders"


def test_loaders_come_from_code(tmp_path):
    three = load_data(write_code(tmp_path, "    return ['train'], ['val'], ['test']\n"))
    assert three == (["train"], ["val"], ["test"])
    two = load_data(write_code(tmp_path, "    return [['train'], ['val']]\n"))
    assert two == (["train"], ["val"], ["val"])


@pytest.mark.parametrize("body", ["    return ['train']\n", "    return {}\n", "    raise OSError('no disk')\n"])
def test_code_that_gives_no_loaders_is_named(tmp_path, body):
    with pytest.raises(DataError, match=r"mine\.py:loaders") as caught:
        load_data(write_code(tmp_path, body))
    assert "raise" not in body or "no disk" in str(caught.value)


def test_code_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"absent\.py"):
        load_data(str(tmp_path / "absent.py:loaders"))
    with pytest.raises(ModelFileError, match="no function 'other'"):
        load_data(write_code(tmp_path, "    return 1\n").replace("loaders", "other"))


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    for name in ("cifar11", str(tmp_path / "absent"), str(tmp_path / "absent.npz")):
        with pytest.raises(DataError, match=r"digits.*cifar100") as caught:
            load_data(name)
        assert name in str(caught.value)


def test_fake_is_the_same_every_time_and_has_as_many_classes_as_asked_for():
    a, b = load_data("fake", num_classes=4, image_size=12), load_data("fake", num_classes=4, image_size=12)
    assert a.train.info.shape == (3, 12, 12)
    assert len(a.train.info.classes) == 4
    assert torch.equal(a.test.images, b.test.images)
    assert set(a.test.labels.tolist()) == {0, 1, 2, 3}


def test_torchvision_sets_are_read_from_disk_and_a_failed_download_says_where_to_look(tmp_path, monkeypatch):
    from torchvision import datasets

    class Cifar:
        classes = ("cat", "dog")

        def __init__(self, root: str, train: bool, download: bool) -> None:
            if not Path(root, "here").exists():
                if not download:
                    raise RuntimeError("Dataset not found")
                Path(root, "CIFAR", "raw").mkdir(parents=True)
                raise OSError("no network")
            count = 20 if train else 4
            self.data = np.zeros((count, 32, 32, 3), dtype=np.uint8)
            self.data[..., 1] = 7
            self.targets = [i % 2 for i in range(count)]

    monkeypatch.setattr(datasets, "CIFAR10", Cifar)
    for download in (True, False):
        with pytest.raises(DataError, match="--data-root") as caught:
            load_data("cifar10", tmp_path / "sets", download=download)
        assert str(tmp_path) in str(caught.value)
        assert not list(tmp_path.iterdir()), "a failed download leaves nothing"
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "here").touch()
    splits = load_data("cifar10", tmp_path / "sets")
    assert [len(loader.images) for loader in splits] == [18, 2, 4]
    assert splits.test.images[0, :, 0, 0].tolist() == [0, 7, 0]
    assert splits.train.info.classes == ("cat", "dog")
    assert splits.train.info.mean == (0.4914, 0.4822, 0.4465)
