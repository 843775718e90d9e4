"""Engines that take a network as a whole: prices by least squares, against a machine of closed form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import snnprune
from snnprune.budget import CostModel
from snnprune.errors import TimingError
from snnprune.timing import Serving, coarse, profile_of
from snnprune.timing.coarse import features, nonnegative, takes_whole

PRICES = np.array([3e-6, 5e-6, 2e-5, 0.4])  # ms for a product, a depthwise product, a number written, the network


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.deep = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)
        self.mix = nn.Conv2d(64, 96, 1)
        self.head = nn.Linear(96, 10)

    def forward(self, x):
        return self.head(self.mix(self.deep(self.stem(x).relu()).relu()).relu().mean((2, 3)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    model, example = Net().eval(), torch.rand(2, 3, 16, 16)
    groups = snnprune.trace(model, example)
    return model, groups, CostModel(model, groups, example), example


@pytest.fixture
def machine(monkeypatch, network):
    """Every network takes what `PRICES` say of its layers' widths; lists how many were timed."""
    timed = []
    _, _, cost, _ = network

    def ms(model):
        found = PRICES[-1]
        for layer in (layer for layer in cost.layers if layer.macs):
            module = model.get_submodule(layer.name)
            out, into = module.weight.shape[0], module.weight.shape[1]
            blocks = [8 * -(-n // 8) for n in (into, out)]
            positions = 1 if isinstance(module, nn.Linear) else 256
            kernel = 1 if isinstance(module, nn.Linear) else module.weight[0, 0].numel()
            found += PRICES[2] * positions * blocks[1]
            if layer.inputs is None:
                found += PRICES[1] * positions * kernel * blocks[1]
            else:
                found += PRICES[0] * positions * kernel * blocks[0] * blocks[1]
        return found

    class Times(dict):
        def ratio(self, name):
            return self[name].ms / self["dense"].ms

    class Beside:
        def __init__(self, dense, _example, _serving, *, limit) -> None:
            assert limit > 0
            self.dense = dense

        def times(self, compact):
            timed.append(compact)
            one = type("One", (), {})
            found = Times(dense=one(), compact=one())
            found["dense"].ms, found["compact"].ms = ms(self.dense), ms(compact)
            return found

    monkeypatch.setattr(coarse, "SideBySide", Beside)
    return timed


def test_the_time_of_any_cut_is_found(network, machine):
    model, groups, cost, example = network
    found = profile_of(model, groups, cost, example, Serving(engine="torch"))
    assert len(machine) == 7
    assert found.graphs == 8
    assert found.predicted_ms == pytest.approx(found.dense_ms, rel=1e-6)
    assert found.error < 1e-6
    cost.add_times(found.parts)
    for a, b in itertools.product((64, 33, 8), (96, 41, 17)):
        kept = {g: np.arange(cost.groups[g].size) < n for g, n in zip(cost.groups, (a, b), strict=True)}
        layers = [layer for layer in cost.layers if layer.macs]
        assert cost.cost("latency", kept) == pytest.approx(
            float(np.array(features(layers, kept)) @ PRICES), rel=1e-6
        )


def test_times_of_before_are_taken_and_others_refused(network, machine, tmp_path):
    model, groups, cost, example = network
    first = profile_of(model, groups, cost, example, Serving(engine="torch"))
    machine.clear()
    again = coarse.coarse_profile(model, groups, cost, example, Serving(engine="torch"), known=first.answers)
    assert not machine
    assert again.predicted_ms == first.predicted_ms
    less = {name: ms for name, ms in first.answers.items() if name != "whole-3"}
    with pytest.raises(TimingError, match="some are missing"):
        coarse.coarse_profile(model, groups, cost, example, Serving(engine="torch"), known=less)


def test_processes_agree(network, machine):
    model, groups, cost, example = network
    told = []

    def agree(values):
        told.append(values)
        return values if len(values) == 1 else [2 * ms for ms in values]

    first = profile_of(model, groups, cost, example, Serving(engine="torch"), agree=agree)
    assert [len(values) for values in told] == [1, 8]
    assert first.dense_ms == pytest.approx(2 * told[1][0])


def test_factors_are_at_least_0():
    rng = np.random.default_rng(0)
    table = rng.random((20, 4))
    assert nonnegative(table, table @ [1.0, 0.0, 2.0, 3.0]) == pytest.approx([1, 0, 2, 3], abs=1e-9)
    pulled = nonnegative(table, table @ [1.0, -1.0, 2.0, 3.0])
    assert (pulled >= 0).all()
    assert pulled[1] == 0
    assert nonnegative(np.zeros((3, 2)), np.ones(3)) == pytest.approx([0, 0])


def test_who_takes_a_network_as_a_whole():
    every = ("cpu", "cuda", "cuda-graphs", "tensorrt", "torch", "torch-compiled", "torch-graphs")
    assert {e for e in every if not takes_whole(Serving(engine=e))} == {"cpu", "cuda"}
