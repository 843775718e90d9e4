"""Iterative pruning: the way to the target, and the steps on it."""

from __future__ import annotations

import pytest
from torch import nn

from snnprune.rivals.rounds import in_rounds, lengths_of, shares_of


def test_shares_fall_evenly_to_the_target():
    assert shares_of(0.5, 5) == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    assert shares_of(0.3, 1) == [0.3]


@pytest.mark.parametrize("steps", [1, 7, 100, 351])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_lengths_are_all_steps(steps, rounds):
    found = lengths_of(steps, rounds)
    assert len(found) == rounds
    assert sum(found) == steps
    assert len(set(found[:-1])) <= 1
    assert found[-1] >= steps / 2


def test_cuts_and_recoveries_take_turns():
    done = []

    def cut(network, share):
        done.append(("cut", share))
        return nn.Linear(1, 1)

    in_rounds(
        nn.Linear(1, 1), [0.8, 0.6, 0.4], [3, 3, 6], cut, lambda network, at, steps: done.append((at, steps))
    )
    assert done == [("cut", 0.8), (0, 3), ("cut", 0.6), (1, 3), ("cut", 0.4)]
