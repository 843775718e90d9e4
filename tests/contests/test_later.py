"""Rounds go on in the data where the ones before stopped, where those come in a fixed order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset

import snnprune
from contests.conftest import CONFIG, arrays, stop_at
from snnprune.learner.recovering import RecoverStage
from snnprune.rivals.later import later


def test_an_epoch_begins_later_and_ends_with_what_was_left_out():
    fixed = DataLoader(TensorDataset(torch.arange(10)), batch_size=2)
    for loader in ([0, 1, 2, 3, 4], (0, 1, 2, 3, 4), fixed):
        for steps in (0, 3, 5, 8):
            moved = later(loader, steps, 5)
            found = [int(x[0][0]) // 2 if isinstance(x, list) else x for x in moved]
            assert found == [(at + steps) % 5 for at in range(5)]
            assert len(moved) == 5


def test_no_sample_is_read_twice():
    class Reads(TensorDataset):
        read = 0

        def __getitem__(self, index):
            Reads.read += 1
            return super().__getitem__(index)

    loader = DataLoader(Reads(torch.arange(11)), batch_size=2, collate_fn=lambda rows: [int(r[0]) for r in rows])
    assert list(later(loader, 4, 6)) == [[8, 9], [10], [0, 1], [2, 3], [4, 5], [6, 7]]
    assert Reads.read == 11


class Mixed(Sampler):
    """Batches in an order of their own each time."""

    def __iter__(self):
        return iter(torch.randperm(5)[:, None].tolist())

    def __len__(self):
        return 5


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(5))


class Doubled(DataLoader):
    def __iter__(self):
        return (2 * x for (x,) in super().__iter__())


def test_what_shuffles_or_may_do_so_stays_as_it_is():
    samples = TensorDataset(torch.arange(5))
    for loader in (
        DataLoader(samples, shuffle=True),
        DataLoader(samples, batch_sampler=Mixed()),
        DataLoader(samples, batch_size=None),
        DataLoader(Stream(), batch_size=None),
        Doubled(samples),
        arrays(96, 0, shuffle=True, seed=3),
        range(5),
    ):
        assert later(loader, 3, 5) is loader


@pytest.mark.parametrize("start", range(6))
def test_a_loader_of_ours_gives_any_batch_of_any_epoch(start):
    loader = arrays(96, 0)
    moved = later(loader, 14, 6)
    wanted = [x for x, _ in loader.batches(1)]
    found = [x for x, _ in moved.batches(1, start)]
    assert len(found) == 6 - start
    for at, x in enumerate(found):
        assert torch.equal(x, wanted[(2 + start + at) % 6])


@pytest.mark.parametrize(("method", "least"), [("l2-iterative:local", 40), ("taylor-iterative:local", 30)])
def test_rounds_see_all_of_the_data(model, method, least):
    """Each began with the first batch, so that one epoch of 40 saw the first 20 alone; ten steps only look."""
    generator = torch.Generator().manual_seed(0)
    train = [(torch.randn(4, 1, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0])) for _ in range(40)]
    seen = []

    def loss(network, batch):
        if torch.is_grad_enabled():
            seen.append(float(batch[0][0, 0, 0, 0]))
        return F.cross_entropy(network(batch[0]), batch[1])

    config = replace(CONFIG, epochs=1)
    found = snnprune.contest(model, train, None, config, methods=[method], seeds=1, test=train[:2], loss_fn=loss)
    assert found.rows[0]["failed"] is None
    assert sum(found.rows[0]["steps"].values()) == 40
    assert len(set(seen)) >= least
    assert max(Counter(seen).values()) <= (1 if method.startswith("l2") else 2), "looked at and learned from"


def entropy(network, batch):
    return F.cross_entropy(network(batch[0]), batch[1])


@pytest.mark.parametrize("call", [6, 25])
def test_a_stop_changes_nothing(model, tmp_path, monkeypatch, call):
    """In a round, and in the recovery that ends it; the data come in a fixed order."""
    generator = torch.Generator().manual_seed(0)
    train = [(torch.randn(4, 1, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0])) for _ in range(40)]

    def held(folder, **more):
        config = replace(CONFIG, epochs=1)
        options = {"methods": ["l2-iterative:local"], "seeds": 1, "test": train[:9], "folder": folder, **more}
        options["loss_fn"] = entropy
        return snnprune.contest(model, train, None, config, **options)

    whole = held(tmp_path / "whole").rows[0]
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, call)
        with pytest.raises(KeyboardInterrupt):
            held(tmp_path / "stopped")
    again = held(tmp_path / "stopped", resume=True).rows[0]
    assert whole["failed"] is None
    for name in (
        "value",
        "macs",
        "params",
        "exact",
        "steps",
        "note",
    ):  # the value is a loss, which any change moves
        assert again[name] == whole[name], name


def test_too_few_steps_for_all_rounds_are_told(model, data):
    few = [batch for batch, _ in zip(data[0].batches(0), range(12), strict=False)]
    for steps, said in ((12, "it has steps for 3 of its 5 rounds"), (20, None)):
        config = replace(CONFIG, epochs=steps / len(few))
        found = snnprune.contest(model, few, None, config, methods=["l2-iterative:local"], seeds=1, test=data[2])
        note = found.rows[0]["note"]
        assert note == said if said else "rounds" not in (note or "")
        assert ("of its 5 rounds" in str(found)) == (said is not None)
