"""Parts with a time: what they refuse, and what they take."""

from __future__ import annotations

import numpy as np
import pytest

from snnprune.budget import Columns, CostModel, TimedPart
from snnprune.errors import ConfigError

SIDE = Columns(4, (("a", np.arange(4), np.array([0, 0, 1, 1])), ("b", np.array([3]), np.array([0]))))
OUT = Columns(3, (("c", np.arange(3), np.arange(3)),), np.array([2, 0]))
ROWS, COLUMNS = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1])
TABLE = np.array([[1.0, 2.0], [1.5, 4.0], [3.0, 8.0]])


def made(**changes):
    values = {"inputs": SIDE, "outputs": OUT, "rows": ROWS, "columns": COLUMNS, "table": TABLE} | changes
    return TimedPart("conv", *values.values())


def test_counts_of_the_same_place_cost_the_same():
    part = made()
    assert part.dense == 8.0
    assert part.reached
    kept = {"a": np.array([True, False]), "c": np.array([False, True, True])}
    assert part.cost(kept) == 4.0  # two inputs: row 1; one output: column 1
    assert part.cost({"b": np.array([False])}) == 8.0  # three inputs are of the same stair as four
    assert part.cost({"a": np.zeros(2, bool), "c": np.zeros(3, bool)}) == 1.0
    alone = made(inputs=None, outputs=None, rows=[0], columns=[0], table=[[0.5]])
    assert (alone.dense, alone.cost({}), alone.reached) == (0.5, 0.5, False)


def test_along_a_group_its_first_neurons_stay():
    part = made()
    assert part.along("a", 2, {}).tolist() == [2, 4, 8]
    assert part.along("a", 2, {"b": np.array([False])}).tolist() == [2, 4, 8]
    assert part.along("a", 2, {"c": np.array([True, True, False])}).tolist() == [2, 4, 8]
    assert part.along("a", 2, {"c": np.array([False, True, False])}).tolist() == [1, 1.5, 3]
    assert part.along("c", 3, {}).tolist() == [3, 8, 8, 8]  # columns 0 and 2 alone are read
    assert part.along("d", 1, {}).tolist() == [8, 8]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"table": np.ones(3)[None, None]}, r"table has the shape \(1, 1, 3\)"),
        ({"table": np.ones((0, 2))}, r"shape \(0, 2\)"),
        ({"table": TABLE * np.nan}, "negative or not finite"),
        ({"table": TABLE - 2}, "negative or not finite"),
        ({"table": TABLE[::-1]}, "falls where more inputs are there"),
        ({"table": TABLE[:, ::-1]}, "falls where more outputs are there"),
        ({"rows": ROWS[:-1]}, r"rows are int64 of shape \(4,\); give whole numbers of shape \(5,\)"),
        ({"rows": ROWS * 1.0}, "rows are float64"),
        ({"rows": ROWS[::-1]}, "its rows fall, or point outside of the 3"),
        ({"columns": COLUMNS + 1}, "its columns fall, or point outside of the 2"),
        ({"columns": COLUMNS - 1}, "its columns fall, or point outside"),
        ({"inputs": None}, r"give whole numbers of shape \(1,\)"),
    ],
)
def test_what_is_no_time_is_refused(changes, said):
    with pytest.raises(ConfigError, match=f"^times of conv: .*{said}"):
        made(**changes)


def test_times_of_another_model_are_refused():
    cost = CostModel.__new__(CostModel)
    cost.groups = {}
    with pytest.raises(ConfigError, match="times of conv depend on a, which is no prunable group of this model"):
        cost.add_times([made()])
    still = made(inputs=None, outputs=None, rows=[0], columns=[0], table=[[0.0]])
    for parts in ([], [still]):
        with pytest.raises(ConfigError, match="all parts are 0 ms"):
            cost.add_times(parts)
