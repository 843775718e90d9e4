"""Sets by name and from arrays: read as they are, or refused by name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Explosive

from snnprune.data import load_data
from snnprune.errors import DataError
from snnprune.labels import classes_of


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, np.bool_])
def test_one_hot_labels_in_an_npz_file(tmp_path, dtype):
    plain = np.arange(12) % 3
    np.savez(tmp_path / "plain.npz", **arrays())
    np.savez(tmp_path / "d.npz", **arrays(y_train=np.eye(3, dtype=dtype)[plain]))
    found, wanted = load_data(str(tmp_path / "d.npz")), load_data(str(tmp_path / "plain.npz"))
    assert found.train.info.classes == ("0", "1", "2")
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(classes_of(one.labels), other.labels)
    limited = load_data(str(tmp_path / "d.npz"), limit=3).train
    assert sorted(classes_of(limited.labels).tolist()) == [0, 1, 2]


def test_probabilities_in_an_npz_file_stay_what_they_are(tmp_path):
    soft = np.random.default_rng(0).dirichlet(np.ones(3), 12).astype(np.float32)
    content = arrays(y_train=soft)
    np.savez(tmp_path / "d.npz", **content)
    train, val, _ = load_data(str(tmp_path / "d.npz"), augment=False, batch_size=4)
    of = {image.tobytes(): row for image, row in zip(content["x_train"], soft, strict=True)}
    for loader in (train, val):
        for image, row in zip(loader.images, loader.labels, strict=True):
            assert np.array_equal(row.numpy(), of[image.numpy().tobytes()])
    assert next(iter(train))[1].shape == (4, 3)


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
        ({"y_train": np.zeros(12)}, "y_train must be integer labels"),
        ({"y_train": np.zeros((12, 3))}, "y_train must hold 12 .*row 0 sums to 0"),
        ({"y_train": np.ones((12, 3), dtype=np.int64)}, "y_train must hold 12 .*row 0 sums to 3"),
        ({"y_train": np.eye(6, 2, dtype=np.int64)}, "y_train must hold 12 "),
        ({"y_train": np.eye(6, dtype=np.int64)}, r"y_train must hold 12 .*\(6, 6\)"),
        ({"x_train": np.zeros((12, 8, 8), dtype=np.uint16)}, "x_train must be uint8.*0 to 255.*uint16"),
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


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=r"'cifar11'.*digits.*cifar100.*Did you mean cifar10"):
        load_data("cifar11")
    for name in (str(tmp_path / "absent"), str(tmp_path / "absent.npz")):
        with pytest.raises(DataError, match="there is no folder or") as caught:
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
