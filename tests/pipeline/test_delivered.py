"""Targets are checked on the model that goes out."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

import snnprune
from snnprune.budget import CostModel
from snnprune.errors import ExactnessError, TargetError
from snnprune.pipeline.delivered import check_delivered


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 3))


DATA = [(torch.randn(16, 12), torch.randint(0, 3, (16,))) for _ in range(6)]


def narrow(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 20), nn.ReLU(), nn.Linear(20, 3))


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_too_much_is_refused_with_the_excess(metric):
    cost = {"macs": lambda w: 12 * w + 20 * w + 60, "params": lambda w: 13 * w + 20 * w + 20 + 63}[metric]
    share = cost(20) / cost(40)
    check_delivered({metric: share}, net(), narrow(20), DATA[0][0])
    check_delivered({metric: share - 0.0099}, net(), narrow(20), DATA[0][0])
    check_delivered(None, net(), net(), DATA[0][0])
    with pytest.raises(TargetError, match=rf"{metric}=0\.3 .* has {share:.3f} .*\({cost(20)} of {cost(40)}\), "):
        check_delivered({metric: 0.3}, net(), narrow(20), DATA[0][0])


class Boxes(nn.Module):
    """A second stage that sees as many rows as the first one finds, which is another matter than its widths."""

    def __init__(self, width: int, found: int) -> None:
        super().__init__()
        self.a, self.o, self.found = nn.Linear(12, width), nn.Linear(width, 30), found

    def forward(self, x):
        return self.o(torch.relu(self.a(x))[: self.found])


def test_more_boxes_are_no_wider_layers():
    x = torch.randn(8, 12)
    check_delivered({"macs": 0.5}, Boxes(40, found=2), Boxes(20, found=8), x)
    with pytest.raises(TargetError, match=r"has 1\.000 of the dense macs"):
        check_delivered({"macs": 0.5}, Boxes(40, found=8), Boxes(40, found=1), x)


def test_zeros_of_switched_connections_do_not_count():
    dense, compact = net(), net()
    with torch.no_grad():
        compact[0].weight[:, :8] = 0
    whole = 12 * 40 + 40 + 40 * 20 + 20 + 63
    share = (whole - 8 * 40) / whole
    check_delivered({"params": share}, dense, compact, DATA[0][0], sparse=["0.weight"])
    with pytest.raises(TargetError, match=f"{whole - 8 * 40} of {whole}"):
        check_delivered({"params": share - 0.02}, dense, compact, DATA[0][0], sparse=["0.weight"])
    with pytest.raises(TargetError, match=f"{whole} of {whole}"):
        check_delivered({"params": share}, dense, compact, DATA[0][0])


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_a_run_whose_prices_are_wrong_gives_no_result(metric, monkeypatch):
    """As long as costs were only predicted, a wrong price meant a target that was missed in silence."""
    true = CostModel._sum

    def cheap(self, which, kept):
        return true(self, which, kept) * (0.5 if which == metric else 1.0)

    monkeypatch.setattr(CostModel, "_sum", cheap)
    config = snnprune.PruneConfig(target={metric: 0.75}, epochs=2, round_to=1)
    with pytest.raises(ExactnessError, match=rf"has \d+ {metric}, where \d+ were predicted"):
        snnprune.optimize(net(), DATA, DATA, config)


def test_the_last_word_is_the_count_on_the_result(monkeypatch):
    """Whatever the search believes: a compact model that is too large is no result."""
    monkeypatch.setattr("snnprune.pipeline.job.check_predicted", lambda *_, **__: None)
    monkeypatch.setattr("snnprune.switching.GatedModel.compact", lambda self: copy.deepcopy(self.plain_copy()))
    config = snnprune.PruneConfig(target={"params": 0.5}, epochs=2)
    with pytest.raises(TargetError, match=r"params=0\.5 was asked for, but the compact model has 1\.000"):
        snnprune.optimize(net(), DATA, DATA, config)


@pytest.mark.parametrize(
    ("granularity", "metric"), [("neuron", "macs"), ("neuron", "params"), ("connection", "params")]
)
def test_runs_meet_their_targets_as_counted(granularity, metric):
    config = snnprune.PruneConfig(target={metric: 0.5}, epochs=2, round_to=1, granularity=granularity)
    result = snnprune.optimize(net(), DATA, DATA, config)
    model = result.model
    if granularity == "connection":
        have = sum(int(torch.count_nonzero(p)) for p in model.parameters())
    else:
        have = getattr(result.report.compact, metric)
        assert (
            have
            == {
                "macs": snnprune.metrics.count_macs(model, DATA[0][0]),
                "params": sum(p.numel() for p in model.parameters()),
            }[metric]
        )
    assert 0.48 <= have / getattr(result.report.dense, metric) <= 0.501


def test_a_model_that_was_trained_further_is_not_saved_with_the_accuracy_of_before(here, caplog):
    result = snnprune.optimize(net(), DATA, DATA, snnprune.PruneConfig(target={"params": 0.6}, epochs=1))
    result.save("as-measured", onnx=False)
    assert json.loads(Path("as-measured/report.json").read_text())["compact"]["accuracy"] is not None
    assert "changed since" not in caplog.text
    with torch.no_grad():
        result.model[0].weight[0, 0] += 1
    result.save("changed", onnx=False)
    assert "the model has changed since it was measured" in caplog.text
    compact = json.loads(Path("changed/report.json").read_text())["compact"]
    assert (compact["accuracy"], compact["loss"]) == (None, None)
    assert compact["params"] == result.report.compact.params
