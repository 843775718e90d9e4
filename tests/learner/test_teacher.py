"""The teacher runs once per batch, and once per sample where samples are always the same."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune.data import ArrayLoader, DataInfo
from snnprune.inputs import Batch, map_tensors, moved
from snnprune.learner import Interrupted, PruneConfig, Speed, TaskLoss, Teacher, loop

COUNT, SIZE = 90, 16
CONFIG = PruneConfig(target={"params": 0.5}, epochs=3, search={"share": 0.3}, seed=1)


class Counted(nn.Sequential):
    """Counts the inputs that run through it, over all copies."""

    seen: ClassVar[list[int]] = []

    def forward(self, x):
        Counted.seen.append(len(x))
        return super().forward(x)


def network() -> Counted:
    torch.manual_seed(0)
    return Counted(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 24), nn.ReLU(), nn.Linear(24, 3))


def loader(augment=False, count=COUNT, **options) -> ArrayLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (count,), generator=generator)
    info = DataInfo("made up", (1, 8, 8), ("a", "b", "c"), (0.5,), (0.3,))
    return ArrayLoader(images, labels, info, batch_size=SIZE, augment=augment, **{"shuffle": True, **options})


@pytest.fixture(autouse=True)
def _count():
    Counted.seen = []


def test_batches_say_what_samples_they_hold():
    data = loader()
    for batch in data.batches(3):
        assert isinstance(batch, Batch)
        images, labels = batch
        assert torch.equal(labels, data.labels[batch.places])
        assert torch.equal(images, torch.cat(list(data.in_order()))[batch.places])
    assert [type(batch) for batch in loader(augment=True).batches(0)] == [tuple] * len(data)


def test_a_batch_stays_what_it_is_where_it_goes():
    batch = next(loader().batches(0))
    for other in (moved(batch, torch.device("cpu")), copy.deepcopy(batch), map_tensors(lambda x: x[:], batch)):
        assert isinstance(other, Batch)
        assert torch.equal(other.places, batch.places)
        assert all(torch.equal(a, b) for a, b in zip(other, batch, strict=True))
    first = map_tensors(lambda x: x[:3], batch)
    assert torch.equal(first.places, batch.places[:3])
    assert isinstance(moved(batch, torch.device("meta")).source, ArrayLoader)


def test_a_part_of_a_batch_knows_its_own_samples():
    whole = next(loader().batches(0))
    parts = [
        next(loader().batches(0, part=lambda n, at=at: slice(at * n // 2, (at + 1) * n // 2))) for at in (0, 1)
    ]
    assert torch.equal(torch.cat([part.places for part in parts]), whole.places)


def test_kept_outputs_are_the_teachers():
    model = network().eval().double()
    teacher, data = Teacher(model), loader()
    normalised = data.normalised
    data.normalised = lambda images: normalised(images).double()
    for epoch in range(2):
        for batch in data.batches(epoch):
            torch.testing.assert_close(teacher(batch, batch[0]), model(batch[0]), rtol=1e-12, atol=1e-12)


def test_a_sample_is_asked_about_once():
    teacher, data = Teacher(network().eval()), loader()
    for epoch in range(3):
        for batch in data.batches(epoch):
            teacher(batch, batch[0])
    assert sum(Counted.seen) == COUNT
    other = teacher.at(Speed("bfloat16", channels_last=True))
    state = torch.random.get_rng_state()
    for batch in data.on(torch.device("cpu")).batches(5):
        assert torch.equal(other(batch, batch[0]), teacher(batch, batch[0]))
    assert sum(Counted.seen) == COUNT, "shared by copies of the teacher and of the loader"
    assert torch.equal(state, torch.random.get_rng_state())


def test_kept_outputs_depend_on_the_sample_alone():
    """Whichever batch comes first, as in a run that goes on somewhere in the middle."""
    model = network().eval()
    first, second = Teacher(model), Teacher(model)
    ahead = list(loader().batches(0))
    for batch in reversed(ahead):
        first(batch, batch[0])
    for batch in ahead:
        assert torch.equal(first(batch, batch[0]), second(batch, batch[0]))


def test_other_data_are_not_taken_for_the_first():
    teacher = Teacher(network().eval())
    one, two = loader(), loader()
    two.images = 255 - two.images
    for data in (one, two, one):
        batch = next(data.batches(0))
        torch.testing.assert_close(teacher(batch, batch[0]), teacher.model(batch[0]))


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda: loader(augment=True), 10**9),
        (loader, 0),
        (loader, COUNT * 3 * 4 - 1),
        (lambda: [tuple(b) for b in loader()], 10**9),
    ],
)
def test_where_nothing_can_be_kept_the_teacher_runs_once_per_batch(make, limit):
    teacher, data = Teacher(network().eval(), limit=limit), make()
    loss = TaskLoss(teacher, distill=0.5, temperature=2.0)
    Counted.seen = []
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    for batch in data:
        loss(lambda x: {"logits": student(x), "aux": student(x)}, batch)
    looks = 1 if limit == COUNT * 3 * 4 - 1 else 0  # after the first outputs it is known that they are too many
    assert sum(Counted.seen) == COUNT + looks * SIZE


def test_outputs_that_just_fit_are_kept():
    teacher = Teacher(network().eval(), limit=COUNT * 3 * 4)
    for batch in loader():
        teacher(batch, batch[0])
    assert sum(Counted.seen) == COUNT


def test_kept_outputs_are_in_the_precision_of_the_run():
    model = network().eval()
    batch = next(loader().batches(0))
    assert Teacher(model, precision="bfloat16")(batch, batch[0]).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):  # a recovery in another precision than the search before it
        assert Teacher(model)(batch, batch[0]).dtype == torch.float32


def run(data, config=CONFIG, **options):
    """Weights of the compact model."""
    return snnprune.optimize(network(), data, None, config, **options).model.state_dict()


def asked(monkeypatch, data, config=CONFIG) -> int:
    """How many inputs the teacher of a whole run is asked about."""
    inputs = []
    original = Teacher.__init__

    def init(self, model, **options):
        original(self, model, **options)
        model.register_forward_pre_hook(lambda _m, args: inputs.append(len(args[0])))

    with monkeypatch.context() as patch:
        patch.setattr(Teacher, "__init__", init)
        run(data, config)
    return sum(inputs)


def test_search_and_recovery_ask_once(monkeypatch):
    assert asked(monkeypatch, loader()) == COUNT
    assert asked(monkeypatch, loader(augment=True)) > 2 * COUNT
    assert asked(monkeypatch, [tuple(b) for b in loader().batches(0)]) > 2 * COUNT


def test_a_run_of_one_epoch_does_not_ask_about_all_samples_first(monkeypatch):
    short = PruneConfig(target={"params": 0.5}, epochs=0.5, seed=1)
    assert asked(monkeypatch, loader(), short) < COUNT


def test_trials_share_what_the_teacher_said(monkeypatch):
    config = PruneConfig(target={"drop": 0.9}, epochs=2, trials=2, seed=1, search={"share": 0.3})
    inputs = []
    original = Teacher.__init__

    def init(self, model, **options):
        original(self, model, **options)
        model.register_forward_pre_hook(lambda _m, args: inputs.append(len(args[0])))

    monkeypatch.setattr(Teacher, "__init__", init)
    data = loader()
    snnprune.optimize(network(), data, loader(shuffle=False), config)
    assert sum(inputs) == COUNT


@pytest.mark.parametrize("stage", ["search", "recover"])
def test_a_run_that_goes_on_ends_with_the_same_bits(tmp_path, monkeypatch, stage):
    whole = run(loader())
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)

    def stop(event):
        if event.stage == stage and event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        run(loader(), checkpoint=tmp_path, callbacks=[stop])
    again = run(loader(), checkpoint=tmp_path, resume=True)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_loss_of_the_users_own_still_unpacks_its_batch():
    kinds = set()

    def loss_fn(model, batch):
        images, labels = batch
        kinds.add(type(batch))
        return F.cross_entropy(model(images), labels)

    snnprune.optimize(network(), loader(), None, CONFIG, loss_fn=loss_fn)
    assert kinds == {Batch}
