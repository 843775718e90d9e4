"""What the figures of a run are worth: sentences below its table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import ROOT  # noqa: F401
from torch import nn

import snnprune
from snnprune.learner import PruneConfig, SearchOptions
from snnprune.measures import MetricInfo
from snnprune.measures.intervals import change_interval
from snnprune.runs.judged import interval_of, worth
from snnprune.runs.report import ModelFigures, Report


def report(before=0.90, after=0.88, *, target=None, both=None, count=1000, **more) -> Report:
    known = {"split": "test", "inputs": {"train": 5000, "val": 400, "test": count}} | more
    return Report(
        ModelFigures(before, 0.3, 1000, 100),
        ModelFigures(after, 0.4, 500, 50),
        groups=[],
        exactness={},
        target=target,
        seed=0,
        data="photos",
        seconds=1.0,
        device="cpu",
        both_right=both,
        **known,
    )


def test_the_change_the_inputs_and_the_interval_are_said():
    low, high = change_interval(0.90, 0.88, 1000, 870)
    (said,) = worth(report(both=870))
    assert said == (
        f"accuracy: -2.00 points on 1,000 test inputs; 95 % interval of the change: {100 * low:+.2f} to "
        f"{100 * high:+.2f}"
    )
    assert interval_of(report(both=870)) == (low, high)


@pytest.mark.parametrize(
    ("after", "drop", "both", "said"),
    [
        (0.895, 0.02, 893, "on the test data it is kept"),
        (0.895, 0.006, 860, "on the test data it is kept, though so few inputs do not rule out one of"),
        (
            0.88,
            0.01,
            850,
            "on the test data it is missed by 1.00 points, which may be chance: the interval holds it",
        ),
        (0.80, 0.01, 795, "on the test data it is missed by 9.00 points, and not by chance alone"),
    ],
)
def test_a_drop_is_judged_on_the_test_data(after, drop, both, said):
    _, found = worth(report(after=after, target={"drop": drop}, both=both))
    assert f"a drop of {100 * drop:.2f} points was allowed, decided on 400 validation inputs; {said}" in found
    assert found.endswith("by which accuracy is judged") == ("missed" in said)
    if said.endswith("kept"):
        assert found.endswith(said)


def test_validation_data_that_decided_are_no_test():
    *_, found = worth(report(target={"drop": 0.01}, split="val"))
    assert "decided about the cut too" in found
    assert len(worth(report(split="val"))) == 1


def test_a_metric_of_ones_own_is_judged_in_its_own_direction_without_an_interval():
    error = MetricInfo("error", higher_is_better=False, percent=False)
    known = report(target={"drop": 0.5}, metric=error)
    known.dense, known.compact = (replace(known.dense, accuracy=None, value=v) for v in (2.0, 2.75))
    first, second = worth(known)
    assert first == "error: +0.75 on 1,000 test inputs"
    assert "missed by 0.25. Ask" in second
    assert "chance" not in second


def test_nothing_is_said_where_nothing_is_known():
    assert worth(report(inputs={})) == []
    assert worth(report(None, None)) == []
    assert interval_of(report(inputs={})) is None


torch.manual_seed(0)
X = torch.randn(120, 6)
Y = X[:, :3].argmax(1)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))


def test_runs_and_comparisons_count_their_inputs(tmp_path):
    train = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 64, 16)]
    val, test = [(X[64:80], Y[64:80])], [(X[80:], Y[80:])]
    options = PruneConfig(target={"params": 0.6}, epochs=2, search=SearchOptions(share=0.5), round_to=1)
    result = snnprune.optimize(net(), train, val, options, test=test)
    dense = net().eval()
    with torch.no_grad():
        both = (dense(X[80:]).argmax(1) == Y[80:]) & (result.model.eval()(X[80:]).argmax(1) == Y[80:])
    assert result.report.inputs["test"] == 40
    assert result.report.both_right == int(both.sum())
    assert "on 40 test inputs; 95 % interval" in str(result.report)
    result.report.to_json(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json").both_right == result.report.both_right
    aside = snnprune.compare(net(), result.model, test, example_inputs=X[:2])
    assert (aside.inputs, aside.both_right) == ({"given": 40}, int(both.sum()))


def test_data_in_another_order_every_time_give_the_wider_interval():
    shuffled = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), 40, shuffle=True)
    found = snnprune.compare(net(), net(), shuffled, example_inputs=X[:2])
    assert (found.inputs, found.both_right) == ({"given": 120}, None)
    shares = found.dense.accuracy, found.compact.accuracy
    assert interval_of(found) == change_interval(*shares, 120)
