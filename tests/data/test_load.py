"""How a set is split, limited, normalised and resized, and loaders from the user's code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from data.conftest import batches_equal, numbered
from snnprune.data import ArrayLoader, info_of, load_data
from snnprune.errors import DataError, ModelFileError


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
    assert train.augment == "light"
    assert train.drop_last
    for loader in (val, test):
        assert batches_equal(list(loader), list(loader)), "the same in every epoch"
    assert load_data("digits", augment=False).train.augment == "none"
    assert info_of(train) is train.info
    assert info_of([1, 2]) is None


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
        ((0.1, 0.2), None, "--mean has 2 values for images of 1 channel"),
        (None, (1, 1, 1), "--std has 3 values"),
        (None, (0.0,), "positive"),
        (None, (-1.0,), "positive"),
        ((float("nan"),), None, "finite"),
        (None, (float("inf"),), "finite"),
        ("abc", None, "no list of numbers"),
        ((), None, "--mean has 0 values"),
        ((123.7,), (58.4,), r"--mean \[123.7\] must lie between 0 and 1.*255"),
        ((-0.5,), (0.5,), r"--mean \[-0.5\] must lie between 0 and 1"),
        ((0.5,), (1.5,), r"--std \[1.5\] must lie between 0 and 1"),
        ((0.5,), None, "--mean .* without --std"),
        (None, (0.5,), "--std .* without --mean"),
    ],
)
def test_wrong_constants_are_refused(mean, std, message):
    with pytest.raises(DataError, match=message):
        load_data("digits", mean=mean, std=std)


def test_constants_are_checked_for_loaders_from_code_too(tmp_path):
    spec = write_code(tmp_path, "    return ['train'], ['val'], ['test']\n")
    with pytest.raises(DataError, match="without --mean"):
        load_data(spec, std=[0.5])
    with pytest.raises(DataError, match="between 0 and 1"):
        load_data(spec, mean=[104], std=[57])


def test_no_normalisation_at_all_is_the_range_from_0_to_1():
    x, _ = next(iter(load_data("digits", mean=[0], std=[1]).test))
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)


def test_image_size_also_resizes_sets_in_memory():
    splits = load_data("digits", image_size=16)
    assert splits.train.info.shape == (1, 16, 16)
    small, large = load_data("digits").test.images.float(), splits.test.images.float()
    assert float((F.avg_pool2d(large, 2) - small).abs().mean()) < 20
    assert float((F.avg_pool2d(large, 2) - small.roll(1, 0)).abs().mean()) > 40, "the measure tells images apart"
    assert abs(float(large.mean() - small.mean())) < 1


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
