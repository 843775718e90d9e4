"""Intervals of shares and of their differences: published figures, limits, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import snnprune
from snnprune.measures import Evaluation, MetricInfo
from snnprune.measures.answers import Answers
from snnprune.measures.intervals import change_interval, share_interval
from snnprune.ranks import Ranks


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), 857, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_shares_have_the_published_interval(right, count, low, high):
    assert share_interval(right / count, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    # both right, only the first, only the second, neither; 2635, table II, method 10
    [((36, 12, 2, 0), 0.0569, 0.3404), ((36, 14, 0, 0), 0.1528, 0.4167)],
)
def test_paired_differences_have_the_published_interval(cells, low, high):
    both, one, other, neither = cells
    count = both + one + other + neither
    found = change_interval((both + other) / count, (both + one) / count, count, both)
    assert found == pytest.approx((low, high), abs=5e-5)
    mirrored = change_interval((both + one) / count, (both + other) / count, count, both)
    assert mirrored == pytest.approx((-high, -low), abs=5e-5)


def test_what_is_common_to_both_is_corrected_for_continuity():
    """20 right in both, 5 and 3 in one, 22 in none: the product 20 x 22 - 5 x 3 counts by half of 50 less."""
    both, one, other, neither, count = 20, 5, 3, 22, 50
    alike = (both * neither - one * other - count / 2) / math.sqrt(25 * 25 * 23 * 27)
    (a, b), (c, d) = share_interval(25 / 50, count), share_interval(23 / 50, count)

    def reach(down: float, up: float) -> float:
        return math.sqrt(down**2 - 2 * alike * down * up + up**2)

    change = (other - one) / count
    expected = change - reach(0.46 - c, b - 0.5), change + reach(d - 0.46, 0.5 - a)
    assert change_interval(0.5, 0.46, count, both) == pytest.approx(expected)
    weak = change_interval(0.5, 0.5, 50, 13)  # 13 x 13 - 12 x 12 = 25, which the correction takes away
    assert weak == pytest.approx(change_interval(0.5, 0.5, 50))


def test_two_samples_put_the_intervals_of_their_shares_together():
    low, high = change_interval(0.6, 0.8, 50)
    (a, b), (c, d) = share_interval(0.6, 50), share_interval(0.8, 50)
    assert low == pytest.approx(0.2 - math.hypot(0.8 - c, b - 0.6))
    assert high == pytest.approx(0.2 + math.hypot(d - 0.8, 0.6 - a))


def test_models_that_are_right_on_the_same_inputs_are_told_apart_by_fewer():
    apart, alike = change_interval(0.9, 0.89, 1000), change_interval(0.9, 0.89, 1000, both=889)
    assert alike[1] - alike[0] < 0.5 * (apart[1] - apart[0])
    assert alike[0] < -0.01 < alike[1]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_right_and_all_wrong_are_no_certainty(share):
    low, high = change_interval(share, share, 30, both=round(30 * share))
    assert -0.2 < low < 0 < high < 0.2


def test_nineteen_of_twenty_intervals_hold_the_truth():
    rng = np.random.default_rng(0)
    cells, count = np.array([0.80, 0.08, 0.05, 0.07]), 400  # both, only before, only after, neither
    held = {"paired": 0, "two samples": 0}
    for both, one, other, _ in rng.multinomial(count, cells, 2000):
        shares = (both + one) / count, (both + other) / count
        for name, known in (("paired", int(both)), ("two samples", None)):
            low, high = change_interval(*shares, count, known)
            held[name] += low <= -0.03 <= high
    assert 0.93 < held["paired"] / 2000 < 0.97
    assert held["two samples"] > held["paired"] + 50  # too wide rather than too narrow


IMAGES = torch.arange(12.0).view(12, 1)
LABELS = torch.zeros(12, dtype=torch.long)


def sayer(right: set[int]):
    """A model that says the right class for these inputs, 0, and 1 for the others."""

    def run(images: torch.Tensor) -> torch.Tensor:
        wrong = torch.tensor([int(x) not in right for x in images[:, 0]])
        return torch.nn.functional.one_hot(wrong.long(), 2).float()

    return run


def batches(order):
    return [(IMAGES[order][i : i + 5], LABELS[order][i : i + 5]) for i in range(0, 12, 5)]


def test_inputs_that_both_models_get_right_are_counted():
    same = batches(torch.arange(12))
    first, second = (snnprune.evaluate(sayer(right), same) for right in ({0, 1, 2, 7}, {1, 2, 3, 11}))
    assert first.answers is not None
    assert first.answers.both(second.answers, Ranks()) == 2
    assert first.interval == share_interval(4 / 12, 12)
    assert first.to_dict()["interval"] == list(share_interval(4 / 12, 12))


def test_another_order_is_seen_although_the_labels_are_the_same():
    first = snnprune.evaluate(sayer({0, 1}), batches(torch.arange(12)))
    other = snnprune.evaluate(sayer({0, 1}), batches(torch.arange(11, -1, -1)))
    assert first.accuracy == other.accuracy
    assert first.answers is not None
    assert first.answers.both(other.answers, Ranks()) is None
    assert first.answers.both(None, Ranks()) is None


class TwoProcesses(Ranks):
    """This process, and one whose answers were such."""

    other: tuple[float, ...] = (0.0, 5.0)

    def total(self, *values):
        return tuple(a + b for a, b in zip(values, self.other, strict=True))


def test_several_processes_count_together():
    found = Answers.of([torch.tensor([True, False, True])], [torch.arange(3.0)])
    assert found.both(found, TwoProcesses()) == 7
    strange = TwoProcesses()
    object.__setattr__(strange, "other", (1.0, 0.0))  # its inputs came in another order
    assert found.both(found, strange) is None


def test_other_metrics_have_no_interval():
    found = Evaluation(0.5, None, 10, MetricInfo("mIoU", percent=True))
    assert found.interval is None
    assert "interval" not in found.to_dict()
