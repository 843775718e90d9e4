"""Feature maps: of the kernels that they are said to be of."""

from __future__ import annotations

import torch
from conftest import make_network

import snnprune
from snnprune.runs.pictures import feature_maps


def scales_of(groups, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        g.id: torch.rand(g.size, generator=generator) * (torch.arange(g.size) % 3 > 0)
        for g in groups
        if g.prunable
    }


def test_maps_are_those_of_pruned_and_of_the_strongest_kernels():
    _, model, x = make_network("lenet5_caffe")
    groups = snnprune.trace(model, x)
    scales = scales_of(groups)
    found = feature_maps(model, groups, scales, x)
    assert set(found) == {"input", "conv1|pruned", "conv1|strengthened", "conv2|pruned", "conv2|strengthened"}
    with torch.no_grad():
        maps = model.get_submodule("conv1")(x[:1])[0]
    order = scales["conv1"].argsort(descending=True, stable=True)[:8]
    for kind, channels in (("pruned", (scales["conv1"] == 0).nonzero().flatten()[:8]), ("strengthened", order)):
        pictures = found[f"conv1|{kind}"]
        assert pictures.dtype == torch.uint8
        for picture, channel in zip(pictures, channels.tolist(), strict=True):
            plane = maps[channel]
            wanted = 255 * (plane - plane.min()) / (plane.max() - plane.min())
            assert (picture - wanted).abs().max() <= 0.5 + 1e-6
    assert tuple(found["input"].shape) == (1, 28, 28)


def test_nothing_is_drawn_where_nothing_is_pruned_or_nothing_is_an_image():
    _, model, x = make_network("lenet5_caffe")
    groups = snnprune.trace(model, x)
    whole = {g.id: torch.ones(g.size) for g in groups if g.prunable}
    assert feature_maps(model, groups, whole, x) == {}
    assert feature_maps(model, groups, scales_of(groups), {"x": x}) == {}
    _, model, x = make_network("mlp")
    groups = snnprune.trace(model, x)
    assert feature_maps(model, groups, scales_of(groups), x) == {}


def test_many_layers_give_three_and_large_maps_are_made_smaller():
    _, model, _ = make_network("resnet20")
    x = torch.randn(2, 3, 200, 160, dtype=torch.float64)
    groups = snnprune.trace(model, x)
    found = feature_maps(model, groups, scales_of(groups), x)
    assert len(found) == 1 + 2 * 3
    assert {max(p.shape[1:]) for n, p in found.items() if n.startswith("conv1") or n == "input"} == {96}
    assert all(len(p) <= 8 for n, p in found.items() if n != "input")
    assert not model.training
    assert not any(m._forward_hooks for m in model.modules())
    model.train()
    assert feature_maps(model, groups, scales_of(groups), x).keys() == found.keys()
    assert all(m.training for m in model.modules())


def test_what_cannot_be_drawn_costs_no_result(monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr("snnprune.pipeline.reporting.feature_maps", broken)
    _, model, _ = make_network("digits_cnn")
    train, val, _ = snnprune.load_data("digits", batch_size=128)
    config = snnprune.PruneConfig(target={"params": 0.5}, epochs=0.5)
    assert snnprune.optimize(model.float(), train, val, config).pictures == {}
    assert "CUDA out of memory" in caplog.text
