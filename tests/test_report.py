"""Reports and metrics."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import make_network
from torch import nn

import snnprune
from snnprune.errors import DataError, RunError
from snnprune.runs.report import ModelFigures, Report, goal, human


def report() -> Report:
    return Report(
        ModelFigures(0.95, 0.2, 2_000_000, 1000),
        ModelFigures(0.94, 0.25, 1_000_000, 400),
        groups=[{"id": "a", "size": 10, "kept": 4, "weakened": 1, "strengthened": 3}],
        exactness={"fold": 1e-16, "remove": 0.0, "onnx": 1e-7},
        target={"macs": 0.5},
        seed=3,
        data="digits",
        split="test",
        seconds=1.5,
        device="cpu",
    )


def test_json_round_trip_and_fixed_keys(tmp_path):
    report().to_json(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["dense"] == {"accuracy": 0.95, "loss": 0.2, "macs": 2_000_000, "params": 1000, "value": 0.95}
    fixed = {"dense", "compact", "groups", "exactness", "target", "seed", "data", "versions", "device", "seconds"}
    assert fixed <= content.keys()
    again = Report.read(tmp_path / "report.json")
    assert again == report()


@pytest.mark.parametrize("text", ["{}", "[1]", "null", '{"dense": 3}', "x"])
def test_damaged_reports_are_refused(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(RunError):
        Report.read(tmp_path / "report.json")


def test_table_shows_points_and_shares():
    text = str(report())
    for part in ("95.00%", "94.00%", "-1.00 points", "50.0% kept", "40.0% kept"):
        assert part in text


@pytest.mark.parametrize(
    ("number", "text"), [(12, "12"), (999, "999"), (1234, "1.23k"), (5.5e8, "550M"), (2e9, "2G")]
)
def test_human_numbers(number, text):
    assert human(number) == text


def test_evaluate_counts_and_restores_the_mode():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 2)).train()
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]]))
        model[2].bias.zero_()
    x = torch.tensor([[1.0, 0, 0, 0], [2, 0, 0, 0], [-1, 0, 0, 0]]).reshape(3, 1, 2, 2)
    result = snnprune.evaluate(model, [(x[:2], torch.tensor([0, 1])), (x[2:], torch.tensor([1]))])
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.count == 3
    assert all(m.training for m in model.modules())
    with pytest.raises(DataError):
        snnprune.evaluate(model, [])


def test_compare_measures_both():
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.3})
        small = gated.compact()
    found = snnprune.compare(model, small, [(x, torch.zeros(4).long())], example_inputs=x)
    assert found.compact.params <= 0.3 * found.dense.params
    assert found.dense.accuracy is not None


def test_a_target_reads_as_on_the_command_line(tmp_path):
    made = report()
    for target, said in (
        ({"macs": 0.5}, "macs=0.5"),
        ({"latency": 0.25}, "latency=0.25"),
        ({"latency": "3ms"}, "latency=3ms"),
        ({"latency": "1e-05ms"}, "latency=1e-05ms"),
        (None, "free"),
    ):
        made.target = target
        made.to_json(tmp_path / "report.json")
        assert goal(Report.read(tmp_path / "report.json").target) == said


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("dense", {"accuracy": None, "loss": None, "macs": 0, "params": 1}),
        ("dense", {"accuracy": "1", "loss": None, "macs": 1, "params": 1}),
        ("compact", {"accuracy": None, "loss": None, "macs": 1.5, "params": 1}),
        ("groups", [{"id": "a", "size": 0, "kept": 1, "weakened": 0, "strengthened": 0}]),
        ("groups", [{"id": 3, "size": 1, "kept": 1, "weakened": 0, "strengthened": 0}]),
        ("groups", 3),
        ("exactness", {"fold": "x"}),
        ("target", {"macs": "[red]"}),
        ("target", {"macs": "3ms"}),
        ("target", {"latency": [3]}),
        ("target", {"latency": "[red]ms"}),
        ("seconds", None),
        ("data", ["x"]),
        ("kept_whole", [{"id": 1, "reason": ""}]),
        ("history", [3]),
    ],
)
def test_reports_with_values_of_another_form_are_refused(tmp_path, part, value):
    content = report().to_dict()
    content[part] = value
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match="no report of this version"):
        Report.read(tmp_path / "report.json")
