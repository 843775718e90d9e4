"""Weights by shape: where they lie, what their gradients are, and that one copy makes them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrizations

from snnprune.switching.stacks import Stacks


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *[nn.Linear(3, 3) for _ in range(3)], nn.Linear(3, 2), nn.Linear(2, 3), nn.Linear(3, 2)
    ).double()


NAMES = [f"{i}.weight" for i in range(6)]


def test_every_name_is_where_it_is_said_to_be():
    net = model()
    stacks = Stacks(net, [*NAMES, *NAMES[:2]])
    found = stacks(net)
    assert [tuple(s.shape) for s in found] == [(3, 3, 3), (2, 2, 3), (1, 3, 2)]
    for name in NAMES:
        stack, place = stacks.place[name]
        assert torch.equal(found[stack][place], net.get_parameter(name))
        assert stacks.names[stack][place] == name


def test_gradients_are_those_of_the_weights():
    net = model()
    stacks = Stacks(net, NAMES)
    pulls = [torch.randn_like(net.get_parameter(name)) for name in NAMES]
    found = stacks(net)
    total = sum(
        (found[stacks.place[n][0]][stacks.place[n][1]] ** 2 * p).sum() for n, p in zip(NAMES, pulls, strict=True)
    )
    grads = torch.autograd.grad(total, [net.get_parameter(name) for name in NAMES])
    for name, pull, grad in zip(NAMES, pulls, grads, strict=True):
        assert torch.allclose(grad, 2 * net.get_parameter(name) * pull)


def test_a_stack_that_nobody_reads_gives_no_gradient():
    net = model()
    stacks = Stacks(net, NAMES)
    stacks(net)[2].sum().backward()
    assert net[0].weight.grad is None
    assert torch.equal(net[4].weight.grad, torch.ones(3, 2, dtype=torch.float64))


def test_what_a_parametrisation_computes_is_read():
    net = model()
    parametrizations.weight_norm(net[1])
    stacks = Stacks(net, NAMES)
    stacks(net)[0].square().sum().backward()
    assert net[1].parametrizations.weight.original0.grad is not None
