"""A metric of the user's own decides and is reported: history, trials, report, page, checkpoints."""

from __future__ import annotations

import io
import json
import logging

import pytest
import torch
from torch import nn
from visual.conftest import folder, report  # noqa: F401
from visual.test_page import Reader

import snnprune
from snnprune.errors import DataError, RunError, TargetError
from snnprune.files import write_json
from snnprune.learner import PruneConfig, SearchOptions
from snnprune.measures import MetricInfo
from snnprune.runs.report import ModelFigures, Report
from snnprune.runs.visual import write_comparison, write_page
from snnprune.runs.visual.compared import comparison, head

torch.manual_seed(0)
X = torch.randn(96, 6)
Y = (X[:, :3].argmax(1)).long()
TRAIN = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 64, 16)]
VAL, TEST = [(X[64:80], Y[64:80])], [(X[80:], Y[80:])]
SHORT = PruneConfig(target={"params": 0.6}, epochs=2, search=SearchOptions(share=0.5), round_to=1)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))


def size(model, loader):
    """Closed form: the sum of what the model says, in absolute values."""
    return float(sum(model(x).abs().sum() for x, _ in loader))


SIZE = snnprune.Metric(size, name="mean size", higher_is_better=False)


def test_history_and_report_have_the_metric_and_its_name(tmp_path):
    events = []
    result = snnprune.optimize(net(), TRAIN, VAL, SHORT, test=TEST, metric=SIZE, callbacks=[events.append])
    found = result.report
    assert found.metric == MetricInfo("mean size", higher_is_better=False, percent=False)
    with torch.no_grad():
        for figures, model in ((found.dense, net()), (found.compact, result.model)):
            assert figures.value == pytest.approx(float(model(TEST[0][0]).abs().sum()), rel=1e-6)
            assert (figures.accuracy, figures.loss) == (None, None)
        assert found.history[-1]["val_value"] == pytest.approx(
            float(result.model(VAL[0][0]).abs().sum()), rel=1e-6
        )
    assert {entry["val_metric"] for entry in found.history} == {"mean size"}
    assert not any("val_accuracy" in entry for entry in found.history)
    told = [event.values for event in events if event.values and "val_value" in event.values]
    assert [values["val_value"] for values in told] == [entry["val_value"] for entry in found.history]
    assert "mean size (test)" in str(found)
    assert "accuracy" not in str(found)
    found.to_json(tmp_path / "report.json")
    again = Report.read(tmp_path / "report.json")
    assert again == found
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["metric"] == {"name": "mean size", "higher_is_better": False, "percent": False}
    assert content["compact"]["value"] == found.compact.value


@pytest.mark.parametrize("better", [True, False])
def test_drop_is_in_the_metrics_units_and_in_the_worse_direction(better):
    """The metric is the number of parameters over ten, so what a trial loses is known beforehand."""
    sign = 1 if better else -1

    def tenths(model, loader):
        return sign * sum(p.numel() for p in model.parameters()) / 10

    metric = snnprune.Metric(tenths, name="size", higher_is_better=better)
    dense = sum(p.numel() for p in net().parameters()) / 10
    config = PruneConfig(target={"drop": 12.0}, trials=4, epochs=0.5, round_to=1)
    found = snnprune.optimize(net(), TRAIN, VAL, config, metric=metric).report
    assert found.dense.value == sign * dense
    for trial in found.trials:
        assert trial["drop"] == pytest.approx(dense - sign * trial["val_value"])
        assert trial["passed"] == (trial["drop"] <= 12.0)
        assert trial["val_metric"] == "size"
    assert {trial["passed"] for trial in found.trials} == {True, False}, (
        "both are seen, so that the direction counts"
    )
    assert dense - sign * found.compact.value <= 12.0
    with pytest.raises(TargetError, match=r"no trial kept the size: even macs=.* of the validation size"):
        snnprune.optimize(
            net(), TRAIN, VAL, PruneConfig(target={"drop": 1.0}, trials=1, epochs=0.5), metric=metric
        )


def test_a_fraction_cannot_lose_all_of_itself_and_other_units_can():
    part = snnprune.Metric(lambda model, loader: 0.5, name="part", percent=True)
    config = PruneConfig(target={"drop": 1.5}, trials=1, epochs=0.5)
    with pytest.raises(TargetError, match=r"drop=1\.5 is no fraction of part"):
        snnprune.optimize(net(), TRAIN, VAL, config, metric=part)
    assert snnprune.optimize(net(), TRAIN, VAL, config, metric=SIZE).report.trials


def test_without_labels_the_teacher_says_what_is_good_and_labels_of_validation_data_are_used():
    plain = [x for x, _ in TRAIN]
    found = snnprune.optimize(net(), plain, [VAL[0][0]], SHORT).report
    assert (found.metric.name, found.metric.higher_is_better) == ("loss", False)
    assert found.dense.value == pytest.approx(0, abs=1e-6)
    assert found.compact.value > 1e-4
    labelled = snnprune.optimize(net(), plain, VAL, SHORT, test=TEST).report
    assert labelled.dense.accuracy == snnprune.evaluate(net(), TEST).accuracy
    with pytest.raises(DataError, match="the test data have no labels, unlike the validation data"):
        snnprune.optimize(net(), plain, VAL, SHORT, test=[TEST[0][0]])
    with pytest.raises(DataError, match="the validation data have no labels, unlike those to learn from"):
        snnprune.optimize(net(), TRAIN, [VAL[0][0]], SHORT)


def test_a_metric_of_ones_own_takes_any_validation_data():
    def count(model, loader):
        return float(sum(batch["n"] for batch in loader))

    config = SHORT
    found = snnprune.optimize(
        net(), TRAIN, [{"n": 3}], config, test=[{"n": 5}], metric=count, example_inputs=X[:2]
    ).report
    assert (found.dense.value, found.history[-1]["val_value"]) == (5.0, 3.0)


def test_the_stop_rule_follows_the_metric():
    config = PruneConfig(target=None, epochs=8, search=SearchOptions(share=1.0, patience=2, alternate="together"))
    worse = iter(range(100))
    metric = snnprune.Metric(lambda model, loader: next(worse), higher_is_better=False, name="worse")
    found = snnprune.optimize(net(), TRAIN, VAL, config, metric=metric).report
    assert len([entry for entry in found.history if entry["stage"] == "search"]) == 3
    better = iter(range(100))
    metric = snnprune.Metric(lambda model, loader: next(better), name="better")
    found = snnprune.optimize(net(), TRAIN, VAL, config, metric=metric).report
    assert len([entry for entry in found.history if entry["stage"] == "search"]) == 8


def stop(event):
    if event.stage == "recover" and event.step >= 3:
        raise KeyboardInterrupt


def test_a_resumed_run_has_the_same_history_and_no_other_metric(tmp_path):
    full = snnprune.optimize(net(), TRAIN, VAL, SHORT, metric=SIZE)
    with pytest.raises(KeyboardInterrupt):
        snnprune.optimize(net(), TRAIN, VAL, SHORT, metric=SIZE, checkpoint=tmp_path, callbacks=[stop])

    def other(model, loader):
        return 1.0

    for wrong in (
        None,
        snnprune.Metric(other, name="mean size", higher_is_better=False),
        snnprune.Metric(size, name="mean size", higher_is_better=True),
        snnprune.Metric(size, name="size", higher_is_better=False),
    ):
        with pytest.raises(RunError, match="metric"):
            snnprune.optimize(net(), TRAIN, VAL, SHORT, metric=wrong, checkpoint=tmp_path, resume=True)
    again = snnprune.optimize(net(), TRAIN, VAL, SHORT, metric=SIZE, checkpoint=tmp_path, resume=True)
    assert again.report.history == full.report.history
    assert again.report.compact == full.report.compact
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), full.model.parameters(), strict=True))


def test_sensitivity_and_compare_measure_it():
    found = snnprune.sensitivity(net(), VAL, shares=(0.5,), targets=(0.5,), metric=SIZE, cost="params")
    with torch.no_grad():
        assert found.value == pytest.approx(float(net()(VAL[0][0]).abs().sum()), rel=1e-6)
    assert (found.metric, found.accuracy, found.cost) == (SIZE.info, None, "params")
    entries = [*found.groups[0]["points"], *found.whole]
    assert all("accuracy" not in entry and entry["value"] > 0 for entry in entries)
    assert found.to_dict()["metric"] == SIZE.info.to_dict()
    both = snnprune.compare(net(), net(), VAL, example_inputs=X[:2], metric=SIZE)
    assert both.dense.value == both.compact.value == pytest.approx(found.value)
    loss = snnprune.compare(net(), net(), VAL, example_inputs=X[:2], loss_fn=lambda m, b: m(b[0]).pow(2).mean())
    assert loss.metric.name == "loss"
    assert str(loss).count("loss (given)") == 1


def test_the_cost_that_was_called_metric_is_still_taken():
    with pytest.warns(DeprecationWarning, match="cost='params'"):
        found = snnprune.sensitivity(net(), VAL, shares=(0.5,), targets=(), metric="params")
    assert (found.cost, found.metric.name) == ("params", "accuracy")


IOU = MetricInfo("mIoU", higher_is_better=True, percent=True)
ERROR = MetricInfo("error", higher_is_better=False, percent=False)
TRIALS = [
    {"macs": 0.5, "val_metric": "error", "val_value": 2.5, "drop": 0.5, "passed": False},
    {"macs": 0.75, "val_metric": "error", "val_value": 2.125, "drop": 0.125, "passed": True},
]


@pytest.mark.pages
def test_pages_show_the_metric_and_not_accuracy(folder, tmp_path):  # noqa: F811
    figures = {
        "dense": ModelFigures(None, None, 1000, 500, value=0.7),
        "compact": ModelFigures(None, None, 400, 250, value=0.6),
    }
    report(metric=IOU, **figures).to_json(folder / "report.json")
    words = Reader(write_page(folder).read_text()).words
    assert "60.00%" in words
    assert "test mIoU, -10.00 points" in words
    assert "accuracy" not in words.lower()
    assert "validation mIoU" in words, "above the epochs"
    figures = {
        "dense": ModelFigures(None, None, 1000, 500, value=2.0),
        "compact": ModelFigures(None, None, 400, 250, value=2.125),
    }
    report(metric=ERROR, target={"drop": 0.25}, trials=TRIALS, **figures).to_json(folder / "report.json")
    words = Reader(write_page(folder).read_text()).words
    for wanted in ("test error, +0.125", "validation error", "2.125", "Error against cost"):
        assert wanted in words, wanted
    assert "accuracy" not in words.lower()


def test_runs_of_several_metrics_say_so_row_by_row(tmp_path):
    iou = report(
        metric=IOU,
        dense=ModelFigures(None, None, 1000, 500, value=0.7),
        compact=ModelFigures(None, None, 400, 250, value=0.6),
    )
    error = report(
        metric=ERROR,
        dense=ModelFigures(None, None, 1000, 500, value=2.0),
        compact=ModelFigures(None, None, 400, 250, value=2.5),
    )
    assert {"dense mIoU", "mIoU", "points"} <= set(head([("a", iou), ("b", iou)]))
    rows = [
        dict(zip(head(runs), row, strict=True))
        for runs in [[("a", iou), ("b", error)]]
        for row in comparison(runs)
    ]
    assert [(r["metric"], r["dense value"], r["value"], r["change"]) for r in rows] == [
        ("mIoU", "70.00%", "60.00%", "-10.00"),
        ("error", "2", "2.5", "+0.5"),
    ]
    runs = [("a", iou), ("b", error), ("c", iou), ("d", error)]
    read = Reader(write_comparison(runs, tmp_path / "all.html").read_text())
    assert read.tags.count("figure") == 2, "points of different metrics do not share a drawing"


def test_a_report_of_before_there_was_a_choice_is_one_of_accuracy(tmp_path):
    content = report().to_dict()
    del content["metric"]
    for name in ("dense", "compact"):
        del content[name]["value"]
    content["history"] = [{"stage": "recover", "step": 6, "val_accuracy": 0.88, "val_loss": 0.3}]
    content["trials"] = [{"macs": 0.5, "val_accuracy": 0.9, "drop": 0.0, "passed": True}]
    content["curve"] = [{"stage": "search", "step": 1, "loss": 0.5, "budget": 0.9, "metric": "macs"}]
    write_json(tmp_path / "report.json", content)
    found = Report.read(tmp_path / "report.json")
    assert found.metric == MetricInfo()
    assert (found.dense.value, found.compact.value) == (0.9, 0.88)
    assert (found.history[0]["val_metric"], found.history[0]["val_value"]) == ("accuracy", 0.88)
    assert found.trials[0]["val_value"] == 0.9
    assert ("accuracy (test)", "90.00%", "88.00%", "-2.00 points") in found.rows()


@pytest.mark.parametrize("wrong", [3, {"name": "x"}, {"name": "x", "higher_is_better": 1, "percent": False}])
def test_a_report_with_a_metric_of_another_form_is_refused(tmp_path, wrong):
    write_json(tmp_path / "report.json", {**report().to_dict(), "metric": wrong})
    with pytest.raises(RunError, match="no report of this version"):
        Report.read(tmp_path / "report.json")


def test_progress_goes_where_it_is_told_to(caplog, capsys):
    lines = io.StringIO()
    snnprune.optimize(net(), TRAIN, VAL, SHORT, metric=SIZE, callbacks=[snnprune.Progress(lines, seconds=0)])
    text = lines.getvalue()
    assert text.startswith("tracing groups\n")
    assert "recovering 3/3" in text
    assert "val mean size" in text
    with caplog.at_level(logging.INFO, "snnprune.progress"):
        snnprune.optimize(net(), TRAIN, VAL, SHORT, callbacks=[snnprune.Progress()])
    assert any("val accuracy" in record.getMessage() and "%" in record.getMessage() for record in caplog.records)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(snnprune.SnnPruneError, match="stream=3"):
        snnprune.Progress(3)
