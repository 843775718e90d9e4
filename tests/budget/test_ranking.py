"""The order in which neurons go, against one that is computed group by group."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from snnprune.budget.blocks import at_least, whole_blocks
from snnprune.budget.ranking import Members, Ranking, Row

CPU = torch.device("cpu")
ALL = math.inf


def blocks(scores, parts, least, floor, step):
    """Scores of one group: infinite for those that stay, else of the best neuron of the block."""
    must = np.zeros(len(scores), dtype=bool)
    for neurons in parts:
        must[neurons[np.argsort(-scores[neurons], kind="stable")[: at_least(floor, len(neurons))]]] = True
    order = np.lexsort((np.arange(len(scores)), -scores, ~must))
    least = max(least, whole_blocks(int(must.sum()), step, len(scores)))
    ranked = scores[order].copy()
    ranked[:least] = ALL
    rest = ranked[least:]
    ranked[least:] = rest[(np.arange(len(rest)) // step) * step]
    found = np.empty_like(ranked)
    found[order] = ranked
    return found


@pytest.mark.parametrize("digits", [8, 1])
@pytest.mark.parametrize("lead", [1, 16])
@pytest.mark.parametrize("seed", range(8))
def test_levels_are_the_places_of_blocks(seed, lead, digits):
    """Random groups, floors, blocks and parts; of equal scores the first goes last."""
    rng = np.random.default_rng(seed)
    floor = float(rng.choice([0.0, 0.1, 0.35]))
    groups, steps, scores, want = [], [], [], []
    for _ in range(rng.integers(1, 6)):
        size, step = int(rng.integers(1, 40)), int(rng.choice([1, 2, 4, 8]))
        parts = [np.sort(rng.permutation(size)[: rng.integers(1, size + 1)]) for _ in range(rng.integers(0, 3))]
        members = Members(size, whole_blocks(at_least(floor, size), step, size), parts)
        groups.append(members)
        steps.append(step)
        scores.append(rng.normal(size=size).round(digits))
        want.append(blocks(scores[-1], parts, members.least, floor, step))
    row = Row(tuple(steps), (True,) * len(groups))
    flat, blocked = np.concatenate(scores), np.concatenate(want)
    ranked = Ranking(groups, [row, row], floor=floor, lead=lead, device=CPU)(torch.from_numpy(flat))
    first, second = ranked.levels[:, lead:-1].numpy()
    for levels in (first, second):
        assert ((levels == 0) == np.isinf(blocked)).all()
        assert levels[levels > 0].min(initial=lead) >= lead
    free = ~np.isinf(blocked)
    assert (first == second).all()
    assert (first[free] >= lead + np.array([(flat > b).sum() for b in blocked[free]])).all()
    assert (first[free] < lead + np.array([(flat >= b).sum() for b in blocked[free]])).all()
    for i, j in zip(*np.nonzero(blocked[free][:, None] > blocked[free]), strict=True):
        assert second[free][i] < second[free][j]
    alone = Ranking(groups, [row], floor=floor, lead=lead, device=CPU)(torch.from_numpy(flat))
    assert torch.equal(alone.levels[0], ranked.levels[1])


def test_groups_that_are_left_out_come_last():
    groups = [Members(4, 1), Members(3, 1)]
    rows = [Row((1, 1), (True, True)), Row((1, 1), (True, False)), Row((2, 1), (True, True))]
    scores = torch.tensor([1.0, 9, 5, 7, 8, 2, 6])
    levels = Ranking(groups, rows, floor=0.0, lead=1, device=CPU)(scores).levels[:, 1:-1]
    # 9, 8, 7, 6, 5, 2, 1 have the places 1 to 7, and the best of each group stays; blocks begin behind it
    assert levels.tolist() == [[7, 0, 5, 3, 0, 6, 4], [7, 0, 5, 3, 0, 8, 8], [5, 0, 5, 3, 0, 6, 4]]


@pytest.mark.parametrize("lead", [1, 4])
def test_neurons_beyond_the_most_come_after_all_sets(lead):
    """Three of four stay at most, of the second group exactly two; equal scores do not bring a neuron back."""
    groups = [Members(4, 1, most=3), Members(3, 2, most=2)]
    scores = torch.tensor([7.0, 9, 7, 7, 8, 2, 6])
    for rows in ([Row((1, 1), (True, True))], [Row((2, 1), (True, True)), Row((1, 1), (True, False))]):
        levels = Ranking(groups, rows, floor=0.0, lead=lead, device=CPU)(scores).levels[:, lead:-1]
        assert ((levels >= 4 * (lead + 8)) == torch.tensor([False, False, False, True, False, True, False])).all()
        assert (levels[:, [1, 4, 6]] == 0).all()
        assert ((levels[:, [0, 2]] > 0) & (levels[:, [0, 2]] < lead + 7)).all()


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("stays", range(3))
def test_one_single_input_stays_that_belongs_to_a_channel_which_stays(stays, extra):
    """Channels 0, 1, 2 have inputs 0-1, 2-3, 4-5 of a layer; the best input belongs to a channel that goes."""
    channels = np.where(np.arange(3) == stays, 1.0, 0.1)
    inputs = np.arange(6) / 10.0
    inputs[2 * stays : 2 * stays + 2] -= 5
    groups = [Members(3, 1), Members(6, 1, reads=[(3 + np.arange(6), np.arange(6)[None] // 2)])]
    row = Row((1, 1), (True, True))
    ranking = Ranking(groups, [row] * (1 + extra), floor=0.0, lead=1, device=CPU)
    levels = ranking(torch.from_numpy(np.concatenate([channels, inputs]))).levels[:, 1:-1]
    best = int(inputs.argmax())
    for found in levels:
        assert np.flatnonzero(found[:3] == 0).tolist() == [stays]
        assert np.flatnonzero(found[3:] == 0).tolist() == sorted({best, 2 * stays + 1})


def test_no_single_input_is_lifted_where_no_channel_is_sure_to_stay():
    reads = [(2 + np.arange(2), np.array([[1, 1]]))]  # of the channel that goes first
    groups = [Members(2, 1), Members(2, 1, reads=reads)]
    ranking = Ranking(groups, [Row((1, 1), (True, True))], floor=0.0, lead=1, device=CPU)
    assert ranking(torch.tensor([4.0, 1, 2, 3])).levels[0, 1:-1].tolist() == [0, 4, 3, 0]
