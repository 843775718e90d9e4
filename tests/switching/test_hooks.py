"""Forwards that somebody else has put on a layer, before or while there are gates."""

from __future__ import annotations

from types import MethodType

import torch
from test_blocks import gated_neurons
from torch import nn

import snnprune
from snnprune.proof import relative_difference


def test_a_forward_of_somebody_elses_stays_and_is_scaled_at_its_input():
    gated, model, x = gated_neurons()
    expected = gated(x).detach()
    scales = gated.scales
    gated.detach()
    wrapped = MethodType(lambda self, x: nn.Conv2d.forward(self, x), model.second)
    model.second.forward = wrapped
    with snnprune.attach(model, x) as gated:
        gated.set_scales(scales)
        assert model.second.forward is wrapped
        assert torch.allclose(gated(x), expected, rtol=1e-12, atol=1e-14)
        assert relative_difference(gated.compact()(x), expected) < 1e-12
    assert model.second.__dict__.pop("forward") is wrapped


def test_a_forward_that_is_wrapped_while_gated_is_scaled_once():
    gated, model, x = gated_neurons()
    expected = gated(x).detach()
    ours = model.second.forward
    model.second.forward = lambda x: ours(x)
    assert torch.equal(gated(x), expected)
    gated.detach()
    assert torch.equal(model.second(x.repeat(1, 3, 1, 1)[:, :8]), ours(x.repeat(1, 3, 1, 1)[:, :8])), "plain again"
    del model.second.forward
