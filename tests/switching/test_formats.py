"""Where weights lie in memory changes nothing of what the switcher reads, and of what learns from it."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_network
from torch.nn import functional as F

import snnprune
from snnprune.data import ArrayLoader, DataInfo
from snnprune.learner.speed import channels_last_


def learned(model, x, *, last: bool):
    """Outputs, scales and all gradients of one step, by name."""
    gated = snnprune.attach(copy.deepcopy(model), x)
    if last:
        channels_last_(gated.model)
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in gated.scorer.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator).to(parameter))
    outputs = gated(x)
    F.cross_entropy(outputs, torch.arange(len(x)) % outputs.shape[1]).backward()
    parts = {"outputs": outputs.detach(), **gated.scales}
    for name, parameter in [*gated.model.named_parameters(), *gated.scorer.named_parameters("scorer")]:
        if parameter.grad is not None:
            parts[f"gradient of {name}"] = parameter.grad
    return parts


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "vgg_cov2", "mobilenet_v1", "digits_cnn"])
def test_channels_last_learns_the_same(name):
    _, model, x = make_network(name)
    plain, last = learned(model, x, last=False), learned(model, x, last=True)
    assert plain.keys() == last.keys()
    for part, value in plain.items():
        atol = 1e-6 * float(value.abs().max()) + 1e-12
        torch.testing.assert_close(last[part], value, rtol=1e-4, atol=atol, msg=part)


def test_a_run_in_channels_last_ends_well():
    """A large weight whose shape is there once is read where it lies."""
    _, model, _ = make_network("resnet18")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (64, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.arange(64) % 10
    info = DataInfo("noise", (3, 32, 32), tuple("0123456789"), (0.5,) * 3, (0.3,) * 3)
    train = ArrayLoader(images, labels, info, batch_size=16, shuffle=True)
    config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=2, channels_last=True, search={"share": 0.5})
    report = snnprune.optimize(model.float(), train, None, config).report
    assert report.steps["search"] >= 2
    assert 0.48 < report.compact.macs / report.dense.macs <= 0.5
    assert max(value for value in report.exactness.values() if value is not None) < 1e-10
