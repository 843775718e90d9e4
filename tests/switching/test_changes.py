"""Whether weights have changed, whatever has changed them."""

from __future__ import annotations

import gc

import pytest
import torch
from conftest import make_network
from torch import nn
from torch.optim import optimizer as optimizers

import snnprune
from snnprune.proof import relative_difference
from snnprune.switching import changes
from snnprune.switching.changes import Changes


@pytest.mark.parametrize("how", ["fused", "foreach", "plain"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_scales_follow_the_steps_of_every_optimiser(kind, how):
    """Fused ones change weights without counting it: scales would stay those of weights that are gone."""
    _, model, x = make_network("digits_cnn")
    options = {} if how == "plain" else {how: True}
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.5})
        for parameters in (gated.scorer_parameters(), gated.network_parameters()):
            optimizer = kind(parameters, lr=0.05, **options)
            before = gated.scales
            gated(x).square().mean().backward()
            optimizer.step()
            after = gated.scales
            assert any(not torch.equal(before[n], after[n]) for n in before)
            assert relative_difference(gated(x), gated.compact()(x)) <= 1e-10


def test_steps_of_other_optimisers_do_not_count():
    mine, other = nn.Linear(2, 2), nn.Linear(2, 2)
    mine_of = Changes(mine.parameters())
    first = mine_of.state()
    other(torch.ones(1, 2)).sum().backward()
    torch.optim.SGD(other.parameters(), 0.1).step()
    assert mine_of.state() == first
    with torch.no_grad():
        mine.weight.add_(1)
    assert mine_of.state() != first


def test_nobody_is_kept_alive_and_the_closed_are_not_told():
    model = nn.Linear(2, 2)
    before = len(changes._LIVING)
    gone, closed = Changes(model.parameters()), Changes(model.parameters())
    closed.close()
    assert len(changes._LIVING) == before + 1
    del gone
    gc.collect()
    assert len(changes._LIVING) == before
    model(torch.ones(1, 2)).sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert closed.steps == 0
    assert list(optimizers._global_optimizer_post_hooks.values()).count(changes._stepped) == 1


@pytest.mark.parametrize("grad", [False, True])
def test_averaged_weights_that_are_swapped_in_are_seen(grad):
    """`p.data = ...` is no change in place, and averages of weights come and go by it between two batches."""
    _, model, _ = make_network("lenet5_caffe")
    x = torch.randn(70, 1, 28, 28, dtype=torch.float64)
    with snnprune.attach(model, x[:2]) as gated, torch.set_grad_enabled(grad):
        gated.set_budget({"params": 0.5})
        gated(x)
        before = gated.scales
        for parameter in model.parameters():
            parameter.data = parameter.data * torch.linspace(0.5, 2, parameter.numel()).view_as(parameter)
        assert any(not torch.equal(before[n], s) for n, s in gated.scales.items())
        assert relative_difference(gated(x), gated.compact()(x)) <= 1e-10


def test_weights_changed_where_nobody_counts_are_scaled_as_they_are():
    """In place through `p.data`: the scales stay those of before, but new weights are what is scaled."""
    _, model, _ = make_network("lenet5_caffe")
    x = torch.randn(70, 1, 28, 28, dtype=torch.float64)
    with snnprune.attach(model, x[:2]) as gated, torch.no_grad():
        gated.set_budget({"params": 0.5})
        gated(x)
        model.conv2.weight.data.mul_(torch.linspace(0.5, 2, 50).view(-1, 1, 1, 1))
        assert relative_difference(gated(x), gated.compact()(x)) <= 1e-10
        before = gated.scales
        gated.forget()
        assert any(not torch.equal(before[n], s) for n, s in gated.scales.items())
