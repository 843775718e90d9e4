"""What loaders and models draw: equal for equal seeds, equal after a stop, different in different processes."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import snnprune
from learner.conftest import loaders, problem
from snnprune.learner import Interrupted, PruneConfig, SearchOptions, loop
from snnprune.ranks import Ranks
from snnprune.streams import rng_state

CONFIG = PruneConfig(target={"params": 0.4}, epochs=3, search=SearchOptions(share=0.4), seed=3)


class Foreign(TensorDataset):
    """Augmentation that draws from the generators of Python and NumPy."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x * (0.5 + random.random()) + 0.1 * float(np.random.standard_normal()), y  # noqa: NPY002


def run(model, *, seed: int, stop: tuple[str, int] | None = None, **options):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    before = rng_state()

    def tell(event):
        if stop and (event.stage, event.step) == stop:
            raise KeyboardInterrupt

    train = DataLoader(Foreign(*problem()), batch_size=16, shuffle=True)
    try:
        result = snnprune.optimize(model, train, loaders()[1], CONFIG, callbacks=[tell], **options)
        return result.model.state_dict()
    finally:
        after = rng_state()
        assert before["python"] == after["python"], "the caller's streams go on where they were"
        assert torch.equal(before["numpy"][0], after["numpy"][0])
        assert torch.equal(before["cpu"], after["cpu"])


@pytest.mark.parametrize("stop", [("search", 4), ("recover", 8)])
def test_a_loader_that_draws_from_python_and_numpy_goes_on_to_the_bit(trained, tmp_path, monkeypatch, stop):
    monkeypatch.setattr(loop, "_REPORT_SECONDS", 0.0)  # every step is told of
    whole = run(trained, seed=1)
    with pytest.raises(Interrupted):
        run(trained, seed=2, stop=stop, checkpoint=tmp_path)
    again = run(trained, seed=3, checkpoint=tmp_path, resume=True)
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


class Recorder:
    """A stage that only draws."""

    name, total = "search", 8

    def __init__(self) -> None:
        self.step, self.drawn, self.read = 0, [], []

    def train_step(self, batch) -> torch.Tensor:
        self.read.append(batch[0].flatten().tolist())
        self.drawn.append((float(torch.rand(())), random.random(), float(np.random.random())))  # noqa: NPY002
        return torch.zeros(1)

    def check(self, batch):
        pass

    def after_epoch(self, epoch):
        return {}

    def state(self):
        return {}

    def load(self, state):
        pass

    def values(self):
        return {}


class Jitter(TensorDataset):
    def __getitem__(self, index):
        (x,) = super().__getitem__(index)
        return x + torch.rand(()), torch.tensor(random.random())


def recorded(monkeypatch, ranks: Ranks, sampler=None) -> Recorder:
    monkeypatch.setattr(Ranks, "any", lambda self, *flags: flags)
    monkeypatch.setattr(loop, "current", lambda: ranks)
    stage = Recorder()
    loader = DataLoader(Jitter(torch.zeros(32, 1)), batch_size=8, sampler=sampler)
    loop.run_stage(stage, loader, seed=3, device=torch.device("cpu"))
    return stage


def test_no_process_draws_what_another_draws_at_any_step(monkeypatch):
    stages = [recorded(monkeypatch, Ranks(rank, 3)) for rank in range(3)]
    for kind in range(3):
        numbers = [drawn[kind] for stage in stages for drawn in stage.drawn]
        assert len(set(numbers)) == 3 * Recorder.total
    again = recorded(monkeypatch, Ranks(1, 3))
    assert again.drawn == stages[1].drawn


def test_processes_share_the_draws_of_a_loader_unless_each_has_samples_of_its_own(monkeypatch):
    alone = recorded(monkeypatch, Ranks())
    parts = [recorded(monkeypatch, Ranks(rank, 2)).read for rank in range(2)]
    assert [left + right for left, right in zip(*parts, strict=True)] == alone.read
    data = Jitter(torch.zeros(32, 1))
    own = [
        recorded(monkeypatch, Ranks(rank, 2), DistributedSampler(data, num_replicas=2, rank=rank)).read
        for rank in range(2)
    ]
    assert not {x for batch in own[0] for x in batch} & {x for batch in own[1] for x in batch}
