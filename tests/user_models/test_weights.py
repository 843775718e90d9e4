"""Weights that are tied, frozen, or of another precision."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from user_models.conftest import CONFIG, X, Y, cnn, exact


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.o = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 5)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.o(F.relu(self.b(F.relu(self.a(x)))))


def test_tied_weights_are_not_folded_twice():
    found = exact(Tied(), torch.randn(16, 12))
    assert found == {"a:in", "o:in"}  # pixels of a are neurons of b: single inputs go, of both at once


def test_tied_weights_stay_tied_when_saved(tmp_path):
    model = Tied()
    snnprune.save(model, tmp_path / "m")
    again = snnprune.load(tmp_path / "m", model=Tied())
    assert again.b.weight is again.a.weight


def test_a_fully_frozen_model_learns_its_scales():
    model = cnn().requires_grad_(False)
    result = snnprune.optimize(model, [(X, Y)] * 2, None, CONFIG)
    assert result.report.compact.macs <= 0.5 * result.report.dense.macs
    assert not any(p.requires_grad for p in result.model.parameters())


def test_frozen_parts_stay_frozen():
    model = cnn()
    model[0].requires_grad_(False)
    result = snnprune.optimize(model, [(X, Y)] * 2, None, CONFIG)
    flags = [p.requires_grad for p in result.model.parameters()]
    assert flags[:2] == [False, False]
    assert all(flags[2:])
    ours, before = result.model[0].weight, model[0].weight
    kept = [i for i in range(16) if any(torch.equal(before[i], row) for row in ours)]
    assert len(kept) == len(ours) < 16, "frozen weights are cut, never changed"


def test_double_and_bfloat16_models_export(tmp_path):
    for name, dtype in (("d", torch.float64), ("b", torch.bfloat16)):
        model = cnn().to(dtype).eval()
        check = snnprune.export_onnx(model, tmp_path / f"{name}.onnx", X[:4].to(dtype))
        assert check.max_abs_error < 1e-4
