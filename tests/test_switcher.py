"""The switcher decides by weights, not by position, and none of the known traps is open."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_network
from torch import Tensor, nn

import snnprune
from snnprune.proof.tracing import trace
from snnprune.switching import GatedModel
from snnprune.switching.encoding import Scorer
from snnprune.switching.rule import soft_and_hard
from snnprune.switching.segments import Segments, straight_through


def scorer_of(model, groups, seed=0, **options) -> Scorer:
    """A scorer whose U-Net has a say: its head is not zero."""
    scorer = Scorer(model, groups, seed=seed, **options)
    with torch.no_grad():
        for net in (scorer.switcher, scorer.fc_switcher):
            if net is not None:
                generator = torch.Generator().manual_seed(seed)
                net.head.weight.copy_(torch.randn(net.head.weight.shape, generator=generator))
    return scorer


def values_of(scorer: Scorer, model: nn.Module) -> dict[str, Tensor]:
    return scorer.segments.split(scorer(model))


def ranks(x: Tensor) -> Tensor:
    return x.argsort().argsort().double()


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([ranks(a), ranks(b)]))[0, 1])


@pytest.mark.parametrize("rows", [5, 16, 37])
@pytest.mark.parametrize("width", [3, 16, 50])
@pytest.mark.parametrize("stride", [1, 4])
def test_one_value_per_row_for_any_shape(rows, width, stride):
    net = snnprune.Switcher(2, 3, width, stride=stride)
    out = net(torch.randn(2, rows, width))
    assert out.shape == (3, rows)
    out.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


def permuted_hidden(model: nn.Module, order: Tensor) -> nn.Module:
    """LeNet5 with the neurons of conv2 in another order: the same function."""
    clone = copy.deepcopy(model)
    with torch.no_grad():
        clone.conv2.weight.copy_(model.conv2.weight[order])
        clone.conv2.bias.copy_(model.conv2.bias[order])
        columns = (order[:, None] * 16 + torch.arange(16)).flatten()
        clone.fc1.weight.copy_(model.fc1.weight[:, columns])
    return clone


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trap_5_permuted_neurons_have_permuted_scores(seed):
    """Also the scores of all other groups must not care."""
    _, model, x = make_network("lenet5_caffe", seed)
    groups = trace(model, x)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    twin = permuted_hidden(model, order)
    assert torch.allclose(model(x), twin(x))
    scorer = scorer_of(model, groups, seed)
    with torch.no_grad():
        before, after = values_of(scorer, model), values_of(scorer, twin)
    assert correlation(before["conv2"][order], after["conv2"]) >= 0.9
    units = (order[:, None] * 16 + torch.arange(16)).flatten()
    assert correlation(before["fc1:in"][units], after["fc1:in"]) >= 0.9
    assert correlation(before["fc1"], after["fc1"]) >= 0.9
    assert correlation(before["conv1"], after["conv1"]) >= 0.9
    assert correlation(before["conv2"], after["conv2"]) < 0.6, "the permutation must move something"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trap_5_no_checkerboard(seed):
    """The kept set shows no period of 2, 4 or 8 along the rows of random weights."""
    _, model, x = make_network("mlp", seed)
    groups = trace(model, x)
    with torch.no_grad():
        values = values_of(scorer_of(model, groups, seed), model)["features.0:in"]
    kept = (values > values.median()).double() - 0.5
    for lag in (2, 4, 8):
        auto = float((kept[:-lag] * kept[lag:]).mean() / kept.square().mean())
        assert abs(auto) < 0.15, (lag, auto)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_fresh_start_does_not_decide_by_position(seed):
    """Random weights: even and odd rows, and every fourth, are on about equally often."""
    _, model, x = make_network("mlp", seed)
    with torch.no_grad():
        values = values_of(Scorer(model, trace(model, x), start="fresh", scores="switcher", seed=seed), model)
    on = (values["features.0:in"] > 0).double()
    for period in (2, 4):
        shares = torch.stack([on[first::period].mean() for first in range(period)])
        assert float(shares.max() - shares.min()) < 0.15, (period, shares)


@pytest.mark.parametrize("factor", [2.0**-13, 1.0, 2.0**10])
def test_trap_1_scores_differ_within_every_group_whatever_the_weights_scale(factor):
    _, model, x = make_network("lenet5_caffe")
    groups = trace(model, x)
    scorer = scorer_of(model, groups)
    with torch.no_grad():
        reference = scorer.segments.split(scorer.raw(model))
        model.fc1.weight.mul_(factor)
        model.conv1.weight.mul_(factor)
        scaled = scorer.segments.split(scorer.raw(model))
    for name, raw in scaled.items():
        assert float(raw.std()) > 0.1, name
        assert torch.allclose(raw, reference[name], atol=1e-5), name


def test_post_training_start_is_near_one_and_ordered_by_norm():
    _, model, x = make_network("mlp")
    groups = trace(model, x)
    with torch.no_grad():
        model.features[0].weight[7].mul_(0.01)
        model.features[2].weight[:, 7].mul_(0.01)
        values = values_of(Scorer(model, groups), model)
    for u in values.values():
        assert abs(float(u.mean()) - 1) < 1e-3
    spread = torch.cat(list(values.values())).std()
    assert abs(float(spread) - 0.05) < 5e-3
    assert int(values["features.0"].argmin()) == 7


@pytest.mark.parametrize("name", ["mlp", "lenet5_caffe", "resnet20", "mobilenet_v1_025", "digits_cnn"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fresh_start_is_no_lottery(name, seed):
    """Every group begins with some neurons on and some off."""
    _, model, x = make_network(name, seed)
    groups = trace(model, x)
    values = values_of(Scorer(model, groups, start="fresh", scores="switcher", seed=seed), model)
    for group, u in values.items():
        alive = float((u > 0).float().mean())
        assert 0.3 < alive < 0.95, (group, alive)


def test_fresh_start_feeds_fc_matrices_as_stacked_channels():
    _, model, x = make_network("lenet5_caffe")
    scorer = Scorer(model, trace(model, x), start="fresh", scores="switcher")
    assert scorer.matrices is not None
    assert scorer.matrices.ids == ["fc1:in", "fc1"]
    assert tuple(scorer.matrices(model).shape) == (2, 800, 500)
    assert scorer.rows is not None
    assert scorer.rows.ids == ["conv1", "conv2"]


def scales_of(values, mask):
    """Scales of one group."""
    soft, hard = soft_and_hard(values, mask, Segments({"g": len(values)}, "cpu"), normalize=True)
    return straight_through(hard, soft)


def test_trap_4_scales_are_defined_without_a_free_factor():
    """A factor on all values of a group changes nothing: the kept scales have mean 1."""
    generator = torch.Generator().manual_seed(0)
    u = 0.5 + torch.rand(20, generator=generator)
    mask = u > 0.8
    one = scales_of(u, mask)
    three = scales_of(3 * u, mask)
    assert torch.allclose(one, three)
    assert abs(float(one[mask].mean()) - 1) < 1e-6
    assert bool((one[~mask] == 0).all())


def test_straight_through_reaches_neurons_that_are_off():
    u = torch.tensor([1.0, 0.9, 0.2], requires_grad=True)
    mask = torch.tensor([True, True, False])
    scales = scales_of(u, mask)
    assert float(scales[2].detach()) == 0.0
    (scales * torch.tensor([1.0, 1.0, 5.0])).sum().backward()
    assert float(u.grad[2]) == pytest.approx(5 / 0.95)


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_trap_6_no_layer_collapses_under_pressure(metric):
    """All scores of one layer at the bottom: its floor holds, and the budget is met by the others."""
    from snnprune.budget import CostModel

    _, model, x = make_network("lenet5_caffe")
    groups = trace(model, x)
    cost = CostModel(model, groups, x)
    generator = torch.Generator().manual_seed(0)
    values = {g.id: 1 + 0.05 * torch.randn(g.size, generator=generator) for g in groups if g.prunable}
    values["conv2"] -= 10
    masks = cost.select(metric, 0.3, values).kept
    assert 5 <= int(masks["conv2"].sum()) < 20
    assert cost.share(metric, masks) <= 0.3
    for g in groups:
        if g.prunable:
            assert int(masks[g.id].sum()) >= 0.1 * g.size
    gated = GatedModel(model, groups, cost=cost, scorer=Scorer(model, groups))
    gated.set_budget({metric: 0.3})
    kept = [gated.segments.split(gated._select(gated.segments.join(values)))["conv2"]]
    gated.choice.lifts = gated.segments.join(
        {n: torch.full((len(u),), 10.0 * (n == "conv2")) for n, u in values.items()}
    )
    kept.append(gated.segments.split(gated._select(gated.segments.join(values)))["conv2"])
    gated.detach()
    assert kept[0].tolist() == masks["conv2"].tolist()
    assert int(kept[1].sum()) > int(kept[0].sum()), "a shift lifts its whole group"


def test_switcher_reads_weights_after_they_change():
    _, model, x = make_network("digits_cnn")
    groups = trace(model, x)
    scorer = scorer_of(model, groups)
    with torch.no_grad():
        before = values_of(scorer, model)["features.3"]
        model.features[3].weight[3].mul_(5)
        after = values_of(scorer, model)["features.3"]
    assert float(after[3]) > float(before[3]) + 0.05


def test_input_of_the_switcher_carries_gradient_to_the_weights():
    """Eqs. 5-6: the network's gradient also flows through the switcher."""
    _, model, x = make_network("digits_cnn")
    scorer = scorer_of(model, trace(model, x))
    scorer(model).square().sum().backward()
    for module in (model.features[0], model.features[3], model.hidden[0], model.classifier):
        assert float(module.weight.grad.abs().sum()) > 0
