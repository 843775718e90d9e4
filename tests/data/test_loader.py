"""The loader: batches depend on (seed, epoch, step) alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from data.conftest import batches_equal, numbered
from snnprune.data import ArrayLoader, DataInfo
from snnprune.errors import DataError

GREY = DataInfo("grey", (1, 8, 8), ("0", "1"), (0.0,), (1.0,))
COLOUR = DataInfo("colour", (3, 16, 16), ("0", "1"), (0.0,) * 3, (1.0,) * 3)


def noise(n: int, info: DataInfo = GREY, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, *info.shape), dtype=torch.uint8, generator=generator)
    return images, torch.arange(n) % 2


def test_a_loader_on_a_device_leaves_the_other_as_it_is():
    loader = ArrayLoader(*noise(50, COLOUR), COLOUR, batch_size=8, shuffle=True, augment=True, seed=3)
    other = loader.on(torch.device("meta"))
    assert {t.device.type for batch in other for t in batch} == {"meta"}
    assert [x.shape for x, _ in other.batches(0)] == [x.shape for x, _ in loader.batches(0)]
    assert loader.device.type == "cpu"
    for name in ("cpu", "cpu:0"):  # which tensors call "cpu", as they call "cuda" "cuda:0"
        assert batches_equal(list(loader.on(torch.device(name)).batches(1)), list(loader.batches(1)))


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
