"""What is said before a run that will be worthless, and what is not said of one that will not."""

from __future__ import annotations

import contextlib
import logging
import math

import pytest
import torch
from conftest import DIGITS
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import snnprune
from snnprune.analysis import plan
from snnprune.learner import Event, PruneConfig
from snnprune.pipeline.prospects import (
    RisingLoss,
    count_of,
    few_steps,
    large_batch,
    near_chance,
    size_of,
    too_few_to_judge,
)
from snnprune.pipeline.setting import Setting
from snnprune.registry import build


def loader(count: int, size: int, *, drop: bool = False) -> DataLoader:
    images, labels = torch.rand(count, 1, 8, 8), torch.arange(count) % 10
    return DataLoader(TensorDataset(images, labels), batch_size=size, drop_last=drop)


def test_few_steps():
    config = PruneConfig(epochs=3, search={"least": 20})
    said = few_steps(config, 2, 7, 128)
    assert said is not None
    assert said.startswith("the search has 2 steps, in which next to nothing is learned")
    assert "Give 29 epochs or more (3 now), or a smaller batch size (128 inputs now)" in said  # 29 x 7 is over 200
    assert "1 step," in (few_steps(config, 1, 7, None) or "")
    assert "batch" not in (few_steps(config, 1, 7, None) or "")
    assert few_steps(config, 5, 7, 128) is None
    assert few_steps(PruneConfig(target=None), 1, 7, 128) is None


@pytest.mark.parametrize(("epochs", "search"), [(0.5, 1), (1, 1), (3, 3), (10, 10), (20, 20), (30, 20), (60, 30)])
def test_a_search_has_a_least_number_of_steps_but_never_more_than_a_tenth_for_it(epochs, search):
    config = PruneConfig(epochs=epochs, search={"share": 0.05, "least": 20})
    setting = Setting(build(DIGITS).eval(), loader(100, 10), None, None, config, torch.device("cpu"))
    assert setting.steps(config).search == search
    assert setting.steps(config).total == 10 * epochs


def test_what_a_loader_tells():
    assert (count_of(loader(90, 10)), size_of(loader(90, 10))) == (90, 10)
    train, val, _ = snnprune.load_data("digits", batch_size=64, limit=200)
    assert (count_of(train), size_of(train)) == (200, 64)
    assert count_of(val) == len(val.labels)
    assert count_of([1, 2]) is size_of([1, 2]) is None


def test_large_batches():
    assert "a batch is to hold 128 inputs, and there are 90" in (large_batch(loader(90, 128)) or "")
    assert "a batch size of 11 or so" in (large_batch(loader(90, 128)) or "")
    assert large_batch(loader(128, 128)) is None
    assert large_batch([(torch.rand(2, 3), torch.zeros(2))]) is None


def test_parts_too_small_to_judge():
    config = PruneConfig(target={"drop": 0.02})
    said = too_few_to_judge(config, 100)
    # 2 x sqrt(2 x 0.02 / 100) = 0.04
    assert said is not None
    assert said.startswith(
        "100 validation inputs cannot judge a drop of 2 points: by chance alone they are off by"
    )
    assert "about 4.0. Give at least 400, or" in said
    assert too_few_to_judge(config, 400) is None
    assert too_few_to_judge(config, None) is None
    assert too_few_to_judge(PruneConfig(), 10) is None
    assert too_few_to_judge(PruneConfig(target={"drop": 0.0}), 10) is None


@pytest.mark.parametrize(
    ("classes", "accuracy", "told"),
    [
        (2, 0.54, True),
        (2, 0.56, False),
        (10, 0.18, True),
        (10, 0.2, False),
        (1000, 0.0019, True),
        (1000, 0.1, False),
    ],
)
def test_near_chance(classes, accuracy, told):
    assert (near_chance(accuracy, classes) is not None) == told


def test_a_run_says_it_before_it_learns(caplog):
    """All at once: three images a class, a batch for all, an untrained network, a drop of half a point."""
    torch.manual_seed(0)
    train = loader(30, 64)
    config = PruneConfig(target={"drop": 0.005}, epochs=2, trials=1)
    said: list[str] = []

    def stop(event: Event) -> None:
        if event.stage in ("probe", "search"):
            said.extend(r.getMessage() for r in caplog.records if r.name.startswith("snnprune.pipeline"))
            raise KeyboardInterrupt

    with caplog.at_level(logging.WARNING, "snnprune"), pytest.raises(KeyboardInterrupt):
        snnprune.optimize(build(DIGITS), train, loader(20, 20), config, callbacks=[stop])
    assert sum("the search has 1 step," in line for line in said) == 1
    assert sum("a batch is to hold 64 inputs, and there are 30" in line for line in said) == 1
    assert sum("20 validation inputs cannot judge a drop of 0.5 points" in line for line in said) == 1
    assert sum("near chance" in line for line in said) == 1


def test_a_plan_says_it_too():
    found = plan(build(DIGITS), loader(30, 64), None, PruneConfig(epochs=2))
    assert any("the search has 1 step" in note for note in found.notes)
    assert any("a batch is to hold 64" in note for note in found.notes)


def test_a_run_that_will_do_says_nothing(caplog):
    model = build(DIGITS)
    train, val, _ = snnprune.load_data("digits", batch_size=64)
    config = PruneConfig(epochs=4)
    setting = Setting(model.eval(), train, val, None, config, torch.device("cpu"))
    assert setting.doubts(config, measured=False) == []


def events(stage: str, losses: list[float], start: int = 1) -> list[Event]:
    return [Event(stage, step, 100, {"loss": loss}) for step, loss in enumerate(losses, start)]


@pytest.mark.parametrize(
    ("classes", "losses", "told"),
    [
        (10, [0.5, 0.6, 2.0], False),
        (10, [0.5, 0.6, 6.8], False),  # 3 x ln 10 is 6.9
        (10, [0.5, 0.6, 7.0], True),
        (None, [0.5, 0.6, 1.4], False),
        (None, [0.5, 0.6, 1.6], True),
        (None, [math.nan, 0.5, 1.6], True),
    ],
)
def test_a_loss_that_rises(classes, losses, told, caplog):
    look = RisingLoss(classes)
    with caplog.at_level(logging.WARNING, "snnprune"):
        for event in events("recover", losses):
            look(event)
    assert ("the learning rate is probably too high" in caplog.text) == told


def test_a_loss_that_rises_is_told_once_and_of_the_first_steps_alone(caplog):
    with caplog.at_level(logging.WARNING, "snnprune"):
        look = RisingLoss(None)
        for event in [*events("search", [1.0, 9.0, 9.0]), *events("recover", [1.0, 9.0])]:
            look(event)
        late = RisingLoss(None)
        for event in [*events("search", [1.0]), *events("search", [9.0], start=60), Event("check")]:
            late(event)
    assert len(caplog.records) == 1
    assert "after 2 steps of the search, and was 1:" in caplog.text


def test_a_rate_that_is_too_high_is_told(caplog):
    """A real one, of a network that does diverge."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    data = [(torch.rand(16, 1, 8, 8), torch.arange(16) % 10)] * 20
    config = PruneConfig(target={"params": 0.6}, epochs=4, lr=200.0, distill=0.0, input_neurons=False)
    with caplog.at_level(logging.WARNING, "snnprune"), contextlib.suppress(snnprune.SnnPruneError):
        snnprune.optimize(model, data, None, config)
    assert "the learning rate is probably too high" in caplog.text
