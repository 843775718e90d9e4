"""Accuracy against the kept share: that of the model that is really cut."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import compared, make_network, same_state

import snnprune
from snnprune.errors import ConfigError
from snnprune.metrics import count_macs, count_params
from snnprune.surgery import fold_, remove_


@pytest.fixture(scope="module")
def case():
    _, model, _ = make_network("digits_cnn")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 1, 8, 8, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        labels = model(x).argmax(1)  # so that the dense accuracy is 1, and a cut can be seen
    return model, [(x[:25], labels[:25]), (x[25:], labels[25:])]


def test_every_point_is_the_accuracy_and_the_cost_of_the_cut_model(case):
    model, data = case
    before, told = copy.deepcopy(model), []
    found = snnprune.sensitivity(
        model, data, shares=(0.5, 0.1), targets=(0.6, 0.3), on_step=lambda *at: told.append(at)
    )
    assert same_state(model, before)
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert (found.accuracy, found.count) == (1.0, 40)
    groups = [g for g in snnprune.trace(model, data[0][0][:2]) if g.prunable]
    assert [(g["id"], g["size"]) for g in found.groups] == [(g.id, g.size) for g in groups]
    assert told == [(i, 2 * len(groups) + 2) for i in range(1, 2 * len(groups) + 3)]
    with snnprune.attach(copy.deepcopy(model), data[0][0][:2]) as gated:
        with torch.no_grad():
            values = gated.segments.split(gated.scorer(gated.model))
        dense = count_macs(model, data[0][0]), count_params(model)
        for group, row in zip(groups, found.groups, strict=True):
            for point, share in zip(row["points"], (0.5, 0.1), strict=True):
                assert point["kept"] == -(-group.size * share // 1)
                scale = torch.zeros(group.size)
                scale[values[group.id].argsort(descending=True, stable=True)[: point["kept"]]] = 1
                scales = {g.id: torch.ones(g.size) for g in groups} | {group.id: scale}
                cut = remove_(fold_(copy.deepcopy(model), groups, scales), groups, scales)
                assert point["accuracy"] == snnprune.evaluate(cut, data).accuracy
                assert point["macs"] == pytest.approx(count_macs(cut, data[0][0]) / dense[0])
                assert point["params"] == pytest.approx(count_params(cut) / dense[1])
        for point in found.whole:
            gated.set_budget({"macs": point["target"]})
            cut = gated.compact()
            assert point["macs"] == pytest.approx(count_macs(cut, data[0][0]) / dense[0])
            assert point["target"] - 0.02 <= point["macs"] <= point["target"]
    assert min(p["accuracy"] for p in found.whole) < 1
    assert found.to_dict()["whole"] == found.whole


def test_targets_below_the_floors_are_left_out(case):
    model, data = case
    found = snnprune.sensitivity(model, data, shares=(0.5,), targets=(0.9, 0.001), floor=0.5, cost="params")
    assert [p["target"] for p in found.whole] == [0.9]
    assert found.whole[0]["params"] <= 0.9
    assert found.cost == "params"


def test_batches_change_the_order(case):
    model, data = case
    plain = snnprune.sensitivity(model, data, shares=(0.3,), targets=(0.5, 0.25))
    informed = snnprune.sensitivity(model, data, shares=(0.3,), targets=(0.5, 0.25), batches=data)
    assert plain.whole != informed.whole


def test_cuts_through_all_groups_are_timed_on_request(case, timed):
    model, data = case
    options = {"shares": (0.5,), "targets": (0.6, 0.3)}
    plain = snnprune.sensitivity(model, data, **options)
    assert plain.served is None
    assert timed == []
    found = snnprune.sensitivity(model, data, **options, time=True, serving=snnprune.Serving(batch=4))
    dense = count_macs(model, data[0][0][:2])
    assert timed == [(dense, pytest.approx(point["macs"] * dense)) for point in found.whole]
    for point, before in zip(found.whole, plain.whole, strict=True):
        assert point["latency"] == pytest.approx(point["macs"])
        assert point["dense_ms"] == pytest.approx(4 * dense / 1e6)
        assert {k: v for k, v in point.items() if k in before} == before
    assert found.groups == plain.groups
    assert found.accuracy == plain.accuracy
    assert found.served == {
        "engine": "cpu", "version": "onnxruntime 1.31.1", "device": "Some CPU", "batch": 4, "precision": "fp32",
        "threads": 1,
    }  # fmt: skip


def test_cuts_that_cannot_be_timed_have_their_accuracy(case, timed, monkeypatch, caplog):
    model, data = case
    kept = [compared(None, 1.0, refused="it varies"), RuntimeError("no engine")]

    def beside(_self, _compact, **_more):
        one = kept.pop(0)
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr("snnprune.runs.timer.SideBySide.__call__", beside)
    found = snnprune.sensitivity(model, data, shares=(0.5,), targets=(0.6, 0.4, 0.3), time=True)
    first, *others = found.whole
    assert (first["latency"], first["compact_ms"], first["refused"]) == (None, 1.0, "it varies")
    assert all("latency" not in point and point["accuracy"] >= 0 for point in others)
    assert "no engine" in caplog.text


def test_bad_values_are_refused(case):
    model, data = case
    for changes in ({"time": 1}, {"serving": "cpu"}, {"cost": "flops"}, {"shares": (1.5,)}, {"targets": (0.0,)}):
        with pytest.raises(ConfigError):
            snnprune.sensitivity(model, data, **changes)
