"""Seeds of streams that never coincide, and the state of all generators."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from snnprune import streams
from snnprune.streams import kept, rng_state, seed_all, seed_of, set_rng_state


def draw() -> tuple[float, ...]:
    """A number of each generator; normal ones, of which NumPy and Python make two at a time."""
    return float(torch.randn(())), random.gauss(0, 1), float(np.random.standard_normal())  # noqa: NPY002


def test_no_two_processes_share_a_stream_at_any_steps():
    grid = itertools.product(range(8), range(500))
    seeds = [seed_of(3, "search", "rank", step, rank) for rank, step in grid]
    seeds += [seed_of(seed, stage, "data", epoch) for seed in range(8) for stage in "ab" for epoch in range(50)]
    assert len(set(seeds)) == 8 * 500 + 8 * 2 * 50
    assert len({seed % 2**32 for seed in seeds}) == len(seeds), "the half that the CPU's generator takes"


def test_every_part_of_a_key_counts():
    keys = [(), (0,), (0, 0), (1,), (-1,), (2**32,), (1, 0), (0, 1), ("ab",), ("ba",), (5, 1), (5 + 2**32,)]
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert seed_of(7, "search", 2) == seed_of(7, "search", 2) < 2**64


@pytest.mark.parametrize("seed", [0, 5, -5, 2**63 + 1])
def test_one_seed_begins_all_streams_anew(seed):
    with kept():
        seed_all(seed)
        first = draw()
        seed_all(seed)
        assert draw() == first
        seed_all(5 if seed == -5 else seed + 1)
        assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_a_state_is_put_back_in_the_middle_of_a_pair_of_normal_numbers():
    with kept():
        draw()
        state = rng_state()
        first = draw(), draw()
        set_rng_state(state)
        assert (draw(), draw()) == first


def test_streams_are_kept_for_the_caller_through_an_error():
    before = draw()
    with kept():
        seed_all(1)
        expected = draw()
    with kept():
        seed_all(2)
        with pytest.raises(RuntimeError), kept():  # noqa: PT012
            seed_all(1)
            raise RuntimeError
        assert draw() != expected
        seed_all(1)
        assert draw() == expected
    assert draw() != before


@pytest.mark.parametrize(
    "value",
    [None, 3, (torch.zeros(624), 625, 0, 0.0), (torch.zeros(3), 1, 0, 0.0), (torch.zeros(624), -1, 0, 0.0)],
)
def test_what_is_no_state_of_numpy_is_refused(value):
    """NumPy itself would read past the end of its numbers."""
    with kept(), pytest.raises((ValueError, TypeError)):
        set_rng_state({**rng_state(), "numpy": value})


def test_a_generator_of_numpy_that_is_not_known_is_left_alone(monkeypatch):
    monkeypatch.setattr(streams, "_NUMPY", "another")
    state = rng_state()
    assert "numpy" not in state
    before = float(np.random.standard_normal())  # noqa: NPY002
    seed_all(1)
    set_rng_state(state)
    assert float(np.random.standard_normal()) != before  # noqa: NPY002
