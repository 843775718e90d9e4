"""Generators that a loader carries: found wherever they lie, set, and put back."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
import torch
from learner.conftest import Net, loaders, problem
from torch.utils.data import DataLoader, RandomSampler, TensorDataset, WeightedRandomSampler

import snnprune
from snnprune import PruneConfig, SearchOptions
from snnprune.carried import generators_of, kept_carried, seed_carried
from snnprune.learner import Interrupted


def order_of(loader) -> list[int]:
    return [int(i) for batch in loader for i in batch[0]]


DATA = TensorDataset(torch.arange(40))


class Augmented(TensorDataset):
    """Draws from a generator that `draw` gets at."""

    def __init__(self, *tensors, draw) -> None:
        super().__init__(*tensors)
        self.draw = draw

    def __getitem__(self, index):
        return (super().__getitem__(index)[0] + 100 * self.draw(),)


class Holds:
    """As a transform of a user's."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(5)

    def __call__(self) -> int:
        return int(self._rng.integers(1000))


def closure():
    rng = random.Random(5)
    return lambda: rng.randrange(1000)


def drawn(generator) -> int:
    return int(generator.randint(0, 1000))


MAKERS = {
    "PyTorch's recipe": lambda: DataLoader(DATA, 8, shuffle=True, generator=torch.Generator().manual_seed(1)),
    "a sampler's": lambda: DataLoader(DATA, 8, sampler=RandomSampler(DATA, generator=torch.Generator())),
    "weights": lambda: DataLoader(
        DATA, 8, sampler=WeightedRandomSampler([1.0] * 40, 40, generator=torch.Generator())
    ),
    "NumPy's in a transform": lambda: DataLoader(Augmented(DATA.tensors[0], draw=Holds()), 8),
    "Python's in a closure": lambda: DataLoader(Augmented(DATA.tensors[0], draw=closure()), 8),
    "NumPy's old one in a partial function": lambda: DataLoader(
        Augmented(DATA.tensors[0], draw=functools.partial(drawn, np.random.RandomState(3))), 8
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_orders_and_draws_follow_the_seed(name):
    loader = MAKERS[name]()
    assert generators_of(loader)
    with kept_carried([loader]):
        seed_carried(loader, 0, 3)
        first, second = order_of(loader), order_of(loader)
        assert first != second, "it goes on within a seed"
        for key, expected in (((0, 3), True), ((0, 4), False)):
            seed_carried(loader, *key)
            assert (order_of(loader) == first) == expected
        seed_carried(MAKERS[name](), 0, 3)
    fresh = MAKERS[name]()
    if name != "a sampler's" and name != "weights":  # two new ones of PyTorch have the same seed
        assert order_of(loader) == order_of(fresh), "the caller's generators were put back"


def test_what_a_program_shares_is_left_alone():
    loader = DataLoader(DATA, shuffle=True, generator=torch.default_generator)
    assert not generators_of(loader)
    assert not generators_of([np.random, random, DATA, random.randint, random.SystemRandom(), np.random.rand])


@pytest.mark.parametrize("stop_at", [3, 9, 14])
def test_pytorchs_usual_recipe_resumes_to_the_bit(tmp_path, stop_at):
    def train():
        generator = torch.Generator().manual_seed(11)
        return DataLoader(TensorDataset(*problem()), 16, shuffle=True, generator=generator)

    torch.manual_seed(0)
    model, (_, val) = Net().eval(), loaders()
    config = PruneConfig(target={"params": 0.5}, epochs=4, search=SearchOptions(share=0.4), seed=3)
    loader = train()
    before = loader.generator.get_state()
    whole = snnprune.optimize(model, loader, val, config)
    assert torch.equal(loader.generator.get_state(), before)
    steps = 0

    def stop(event):
        nonlocal steps
        if event.stage in ("search", "recover") and event.mark:
            steps += 1
            if steps == stop_at:
                raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        snnprune.optimize(model, train(), val, config, checkpoint=tmp_path, callbacks=[stop])
    again = train()
    next(iter(again))  # however often it was used meanwhile
    resumed = snnprune.optimize(model, again, val, config, checkpoint=tmp_path, resume=True)
    a, b = whole.model.state_dict(), resumed.model.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_that_will_not_resume_to_the_bit_says_so_before_it_starts(tmp_path, caplog):
    class Unseeded(TensorDataset):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + np.random.default_rng().random(), y

    torch.manual_seed(0)
    model, (train, val) = Net().eval(), loaders()
    config = PruneConfig(target={"params": 0.5}, epochs=1)
    said = []

    def note(event):
        said.append((event.stage, "cannot draw an epoch again" in caplog.text))

    snnprune.optimize(model, train, val, config, checkpoint=tmp_path / "a", callbacks=[note])
    assert "cannot draw" not in caplog.text
    said.clear()
    other = DataLoader(Unseeded(*problem()), 16)
    snnprune.optimize(model, other, val, config, checkpoint=tmp_path / "b", callbacks=[note])
    assert said[0] == ("trace", True)


def test_other_threads_are_named(tmp_path, caplog):
    torch.manual_seed(0)
    model, (train, val) = Net().eval(), loaders()
    config = PruneConfig(target={"params": 0.5}, epochs=2)

    def stop(event):
        if event.stage == "recover" and event.step:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        snnprune.optimize(model, train, val, config, checkpoint=tmp_path, callbacks=[stop])
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        snnprune.optimize(model, train, val, config, checkpoint=tmp_path, resume=True)
    finally:
        torch.set_num_threads(threads)
    assert f"threads was {threads}, now {threads + 1}" in caplog.text
