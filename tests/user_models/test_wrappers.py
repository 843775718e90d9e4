"""Wrapped, compiled and scripted models."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import snnprune
from snnprune.errors import UnsupportedModelError
from snnprune.metrics import count_macs
from snnprune.proof import relative_difference
from user_models.conftest import CONFIG, X, Y, cnn


def test_wrappers_are_looked_through():
    model = cnn()
    names = {g.id for g in snnprune.trace(model, X[:2])}
    for wrapped in (nn.DataParallel(model), torch.compile(model), torch.compile(nn.DataParallel(model))):
        assert {g.id for g in snnprune.trace(wrapped, X[:2])} == names
        with snnprune.attach(wrapped, X[:2]) as gated:
            assert gated.model is model
    result = snnprune.optimize(torch.compile(model), [(X, Y)], None, CONFIG)
    assert type(result.model) is nn.Sequential


@pytest.mark.filterwarnings("ignore")  # dynamo's own
def test_compiled_parts_run_eagerly_under_gates():
    part, whole = cnn(), cnn()
    part[3] = torch.compile(part[3])
    whole.compile()
    for model in (part, whole):
        with snnprune.attach(model, X[:2]) as gated:
            gated.set_budget({"macs": 0.5})
            assert relative_difference(gated(X), gated.compact()(X)) < 1e-4
            assert count_macs(gated.compact(), X) <= 0.5 * count_macs(cnn(), X)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_stripped(prefix, tmp_path):
    from snnprune.registry import load_model

    net = torchvision.models.squeezenet1_1(num_classes=3)
    torch.save({prefix + k: v for k, v in net.state_dict().items()}, tmp_path / "m.pt")
    assert load_model(tmp_path / "m.pt").arch == "squeezenet1_1"


def test_scripted_models_say_what_to_do():
    with pytest.raises(UnsupportedModelError, match="TorchScript"):
        snnprune.trace(torch.jit.script(cnn()), X[:2])
