"""The scales of all columns by one gather, and weights scaled together by their shape."""

from __future__ import annotations

import pytest
import torch
from conftest import make_network
from torch import nn

import snnprune
from snnprune.surgery import column_maps
from snnprune.switching.columns import Columns, Work
from snnprune.switching.hooks import gated_weights, scaled_weight
from snnprune.switching.segments import Segments
from snnprune.switching.stacks import Stacks


class Joined(nn.Module):
    """A concatenation, a residual sum, a transposed convolution, and a flattened map of which units go too."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.mix, self.again = nn.Conv2d(10, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.head = nn.Linear(8 * 16, 5)

    def forward(self, x):
        x = torch.relu(self.mix(torch.cat([self.a(x), self.b(x)], 1).relu()))
        x = torch.relu(x + self.again(x))
        return self.head(torch.relu(self.up(x)).flatten(1))


def parts(model, x):
    groups = [g for g in snnprune.trace(model, x) if g.prunable]
    maps = column_maps(model, groups)
    segments = Segments({g.id: g.size for g in groups}, "cpu")
    whole = gated_weights(model, maps)
    stacks = Stacks(model, whole.values())
    return maps, segments, stacks, list(whole), Columns(model, maps, segments, stacks, torch.device("cpu"))


def networks():
    torch.manual_seed(0)
    yield "joined", Joined().double(), torch.randn(2, 3, 2, 2, dtype=torch.float64)
    for name in ("lenet5_caffe", "resnet20", "mobilenet_v1_025", "mlp"):
        yield make_network(name)


@pytest.mark.parametrize("case", list(networks()), ids=lambda case: case[0])
def test_columns_are_those_of_each_layer_alone_with_the_same_gradient(case):
    _, model, x = case
    maps, segments, _, _, columns = parts(model, x)
    flat = torch.rand(segments.total, dtype=torch.float64, requires_grad=True)
    factors, _ = columns(flat)
    weights = {name: torch.rand(maps[name].width, dtype=torch.float64) for name in maps}
    alone = {name: maps[name](segments.split(flat)) for name in maps}
    assert factors.keys() == maps.keys()
    assert all(torch.equal(factors[name], alone[name]) for name in maps)
    found = [
        torch.autograd.grad(sum((weights[n] * each[n]).sum() for n in maps), flat, retain_graph=True)[0]
        for each in (factors, alone)
    ]
    torch.testing.assert_close(*found, rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", list(networks()), ids=lambda case: case[0])
def test_weights_of_one_shape_are_scaled_as_each_would_be_alone(case):
    _, model, x = case
    _, segments, stacks, whole, columns = parts(model, x)
    flat = torch.rand(segments.total, dtype=torch.float64, requires_grad=True)
    work = Work(columns, flat, model, stacks, None)
    assert whole
    own = [flat, *(model.get_submodule(name).weight for name in whole)]
    found = []
    for scaled in (
        {n: work.weight(n, model.get_submodule(n)) for n in whole},
        {n: scaled_weight(model.get_submodule(n), work.factors[n]) for n in whole},
    ):
        total = sum((w * torch.linspace(-1, 1, w.numel()).view_as(w)).sum() for w in scaled.values())
        found.append((scaled, torch.autograd.grad(total, own, retain_graph=True)))
    assert all(torch.equal(found[0][0][n], found[1][0][n]) for n in whole)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_a_weight_that_changes_within_a_pass_is_scaled_as_it_is_then():
    _, model, x = make_network("resnet20")
    _, segments, stacks, whole, columns = parts(model, x)
    flat = torch.rand(segments.total, dtype=torch.float64)
    work = Work(columns, flat, model, stacks, stacks(model))
    first, layer = whole[1], model.get_submodule(whole[1])
    work.weight(whole[0], model.get_submodule(whole[0]))
    with torch.no_grad():
        layer.weight.mul_(2)
    assert torch.equal(work.weight(first, layer), scaled_weight(layer, work.factors[first]))
    layer.weight = nn.Parameter(layer.weight.detach() + 1)
    assert torch.equal(work.weight(first, layer), scaled_weight(layer, work.factors[first]))


def test_consumers_that_do_not_come_first_in_their_stack_are_found():
    _, model, x = make_network("resnet20")
    maps, segments, _, whole, _ = parts(model, x)
    backwards = Stacks(model, [f"{name}.weight" for name in whole[::-1]])
    chosen = {name: maps[name] for name in whole[::3]}
    columns = Columns(model, chosen, segments, backwards, torch.device("cpu"))
    assert any(one.places != list(range(len(one.places))) for one in columns.stacked), "a case in which it matters"
    flat = torch.rand(segments.total, dtype=torch.float64)
    work = Work(columns, flat, model, backwards, None)
    for name in chosen:
        layer = model.get_submodule(name)
        assert torch.equal(work.weight(name, layer), scaled_weight(layer, work.factors[name]))
