"""Runs that switch connections: zeros that stay zeros, and files that hold them compressed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import DIGITS
from pipeline.conftest import ctrl_c, made, model, quick, said, same, stop_at, weights  # noqa: F401
from torch import nn

import snnprune
from snnprune import PruneConfig
from snnprune.cli.main import run
from snnprune.errors import ConfigError, StructureError, TargetError
from snnprune.learner.recovering import RecoverStage
from snnprune.learner.searching import SearchStage
from snnprune.registry import build
from snnprune.runs.saving import load, save
from snnprune.runs.sparse import pack, unpack

CONNECTION = ["--data", "digits", "--arch", DIGITS, "--epochs", "2", "--device", "cpu"]
CONNECTION += ["--granularity", "connection", "--target", "params=0.4"]


@pytest.fixture(autouse=True)
def place(here) -> Path:
    return here


@pytest.fixture(scope="module")
def result():
    torch.manual_seed(0)
    net = build(DIGITS)
    train, val, _ = snnprune.load_data("digits", batch_size=128, augment=False)
    config = PruneConfig(granularity="connection", target={"params": 0.4}, epochs=2)
    return snnprune.optimize(net, train, val, config)


def test_the_budget_is_met_by_exact_zeros_after_the_recovery(result):
    report = result.report
    share = report.compact.nonzero / report.dense.params
    assert 0.39 < share <= 0.4
    assert report.compact.params < report.dense.params, "some neurons lost all connections"
    layers = {g["id"]: g["kept"] for g in report.groups}
    found = {n: int(result.model.get_parameter(n).count_nonzero()) for n in layers}
    assert found == layers, "zeros stayed zeros, and nothing else became one"
    assert report.exactness["remove"] < 1e-12
    assert "parameters that are not 0" in str(report)


def test_files_hold_the_values_and_one_bit_a_weight(result, tmp_path):
    result.save(tmp_path / "run")
    structure = json.loads((tmp_path / "run" / "structure.json").read_text())
    assert set(structure["sparse"]) == {g["id"] for g in result.report.groups}
    report = result.report
    bound = 4 * report.compact.nonzero + report.compact.params / 8 + 8000
    assert (tmp_path / "run" / "model.safetensors").stat().st_size < bound < 4 * report.compact.params
    again = snnprune.load(tmp_path / "run", model=build(DIGITS))
    assert same(again.state_dict(), result.model.state_dict())
    assert result.report.exactness["onnx"] < 1e-4


@pytest.mark.parametrize(("stage", "call"), [(SearchStage, 1), (RecoverStage, 4)])
@pytest.mark.usefixtures("quick")
def test_a_stopped_run_goes_on_as_if_nothing_had_been(model, said, monkeypatch, stage, call):  # noqa: F811
    def optimize(*more):
        return run(["optimize", str(model), *CONNECTION, *more])

    assert optimize("--output", "whole") == 0
    with monkeypatch.context() as patch:
        stop_at(patch, stage, call)
        said(optimize("--output", "out"), 130)
    assert optimize("--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(Path("whole")))
    assert run(["evaluate", "out", "--data", "digits", "--arch", DIGITS, "--device", "cpu"]) == 0


def test_a_sparse_result_can_be_pruned_again(result, caplog):
    train, val, _ = snnprune.load_data("digits", batch_size=128, augment=False)
    assert any(isinstance(m, snnprune.IndexedLinear) for m in result.model.modules()), "the harder case"
    config = PruneConfig(granularity="connection", target={"params": 0.7}, epochs=1)
    again = snnprune.optimize(result.model, train, val, config)
    before = result.report.compact.nonzero
    assert 0.6 * before < again.report.compact.nonzero <= 0.7 * before, "zeros are no connections any more"
    assert "zeros will be filled" not in caplog.text
    snnprune.optimize(result.model, train, val, PruneConfig(target={"macs": 0.9}, epochs=0.5))
    assert "zeros will be filled" in caplog.text


def test_multiply_adds_are_no_target_for_connections():
    with pytest.raises(TargetError, match="use params="):
        PruneConfig(granularity="connection")
    with pytest.raises(ConfigError, match="granularity='weight' is unknown"):
        PruneConfig(granularity="weight")  # type: ignore[arg-type]


def test_the_papers_free_mode_switches_connections_too():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
    train, val, _ = snnprune.load_data("digits", batch_size=64, augment=False)
    config = PruneConfig.paper(granularity="connection", epochs=12, lr=0.05, search={"switcher_lr": 0.01})
    result = snnprune.optimize(net, train, val, config)
    assert 0.2 < result.report.compact.nonzero / result.report.dense.params < 0.95
    assert result.report.compact.accuracy > 0.8


def test_drop_is_judged_by_params_where_connections_are_switched():
    torch.manual_seed(0)
    train, val, _ = snnprune.load_data("digits", batch_size=128, augment=False)
    config = PruneConfig(granularity="connection", target={"drop": 0.99}, epochs=0.5, trials=2)
    result = snnprune.optimize(build(DIGITS), train, val, config)
    assert [set(t) >= {"params", "passed"} for t in result.report.trials] == [True, True]
    assert result.report.compact.nonzero / result.report.dense.params <= result.report.trials[-1]["params"]


def test_packed_weights_come_back_to_the_bit():
    torch.manual_seed(0)
    weight = torch.randn(7, 9) * (torch.rand(7, 9) > 0.6)
    state = {"a.weight": weight, "a.bias": torch.randn(7)}
    packed = pack(state, ["a.weight"])
    assert set(packed) == {"a.weight.nonzero", "a.weight.bits", "a.bias"}
    assert packed["a.weight.bits"].numel() == 8
    back = unpack(packed, {"a.weight": [7, 9]}, {"a": {"out": 7, "in": 9}})
    assert same(back, state)


@pytest.mark.parametrize(
    ("entries", "change", "says"),
    [
        ([1], {}, "not a mapping"),
        ({"a.weight": [7, 2**40]}, {}, "which no layer has"),
        ({"a.bias": [7, 9]}, {}, "which no layer has"),
        ({"b.weight": [7, 9]}, {}, "which no layer has"),
        ({"a.weight": "79"}, {}, "which no layer has"),
        ({"a.weight": [7, 9]}, {"a.weight.bits": None}, "missing in the weights file"),
        ({"a.weight": [7, 9]}, {"a.weight.bits": torch.zeros(7, dtype=torch.uint8)}, "7,"),
        ({"a.weight": [7, 9]}, {"a.weight.bits": torch.zeros(8)}, "bytes for 63 weights"),
        ({"a.weight": [7, 9]}, {"a.weight.nonzero": torch.zeros(3)}, "values for its bits"),
        ({"a.weight": [7, 9]}, {"a.weight.nonzero": torch.zeros(1, 40)}, "values for its bits"),
    ],
)
def test_malformed_sparse_parameters_are_refused(entries, change, says):
    torch.manual_seed(0)
    packed = pack({"a.weight": torch.randn(7, 9)}, ["a.weight"])
    packed.update(change)
    packed = {k: v for k, v in packed.items() if v is not None}
    with pytest.raises(StructureError, match=says):
        unpack(packed, entries, {"a": {"out": 7, "in": 9}})


def test_saving_by_hand(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 3))
    with torch.no_grad():
        net[0].weight *= torch.rand(10, 20) > 0.9
    save(net, tmp_path, sparse=["0.weight"])
    again = load(tmp_path, model=nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 3)))
    assert same(again.state_dict(), net.state_dict())
