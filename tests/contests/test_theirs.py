"""torch-pruning's own pruner: the ratio that meets a cost, what it removed, and what is not exact."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from snnprune.criteria.foreign import importance_of
from snnprune.errors import CriterionError
from snnprune.learner import PruneConfig, RecoveryOptions, TaskLoss
from snnprune.metrics import count_params
from snnprune.rivals.inexact import inexactness
from snnprune.rivals.sparse import GROWTHS, learn_sparsely_
from snnprune.rivals.theirs import DEEPEST, GROWTH, Way, _ratios, fit

X = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def way(name="l2", **options):
    return Way(lambda: importance_of(name), ignored=("head",), **options)


def test_the_ratio_of_a_cost_that_falls():
    low, high = _ratios(lambda ratio: 1 - ratio, 0.3)
    assert low < 0.7 <= high
    assert high - low == pytest.approx(DEEPEST / 4096)


def test_the_ratio_of_a_cost_that_rises_again():
    """Beyond 0.6 a ranking over all layers would empty one, which is then left whole."""
    low, high = _ratios(lambda ratio: 1 - ratio if ratio < 0.6 else 0.99, 0.5)
    assert 0.5 - 1e-3 < low < 0.5 <= high < 0.5 + 1e-3
    with pytest.raises(CriterionError, match="leaves 40 or more, at every ratio"):
        _ratios(lambda ratio: max(40.0, 100 - 100 * ratio), 30)


@pytest.mark.parametrize("scope", ["local", "global"])
def test_what_is_left_says_which_channels_went(model, scope):
    before = copy.deepcopy(model.state_dict())
    small, left = fit(way(scope=scope), model, X, count_params, 0.5 * count_params(model))
    assert 0.3 < count_params(small) / count_params(model) <= 0.5
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert len(left["outer"]) == small.outer.in_channels < 12
    kept = torch.tensor(left["inner"])
    assert torch.equal(small.norm.weight, model.norm.weight[kept])
    columns = torch.tensor(left["head"])
    assert torch.equal(small.head.weight, model.head.weight[:, columns])
    assert inexactness(model, small, left, X) < 1e-10
    wrong = {**left, "inner": sorted(set(range(10)) - set(left["inner"]))[: len(left["inner"])] or [0]}
    assert inexactness(model, small, wrong, X) > 1e-3
    with torch.no_grad():
        small.head.weight[0, 0] += 1
    assert inexactness(model, small, left, X) > 1e-3


def test_a_cost_out_of_reach(model):
    with pytest.raises(CriterionError, match="Ask for a larger target"):
        fit(way(), model, X, count_params, 5)


@pytest.mark.parametrize(("sparse", "name"), [("bn", "bn-scale"), ("group", "l2")])
def test_sparse_learning_shrinks_what_it_should(model, sparse, name):
    batches = [(X, torch.tensor([0, 1, 2, 0]))] * 10

    def nothing(network, batch):
        return 0 * network(batch[0]).sum()

    other = copy.deepcopy(model)
    learn_sparsely_(way(name, sparse=sparse, reg=0.1), model, X, batches, nothing, PruneConfig(lr=0.1), steps=10)
    if sparse == "bn":
        assert model.norm.weight.abs().sum() < 0.95 * other.norm.weight.abs().sum()
    else:
        assert model.inner.weight.square().sum() < 0.99 * other.inner.weight.square().sum()
    assert torch.equal(model.head.bias, other.head.bias)
    assert not model.training


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_sparse_learning_is_of_the_recoverys_optimiser(model, kind):
    """Each option has its say: where nothing else pushes, a step of AdamW is as long as its rate."""
    batches = [(X, torch.tensor([0, 1, 2, 0]))]

    def pushed(network, batch):
        return 1e-3 * network.inner.weight.sum() + 0 * network(batch[0]).sum()

    def moved(steps=1, **options):
        recovery = RecoveryOptions(**{"warmup": 0.0, "momentum": 0.0, **options})
        learned = copy.deepcopy(model)
        config = PruneConfig(lr=0.1, optimizer=kind, recovery=recovery, weight_decay=0.5)
        learn_sparsely_(
            way("l2", sparse="group", reg=0.0), learned, X, batches * steps, pushed, config, steps=steps
        )
        return learned.inner.weight.detach() - model.inner.weight.detach()

    each = -0.05 if kind == "adamw" else -0.05 * 1e-3  # half of the peak rate, and no weight decay
    torch.testing.assert_close(moved(), torch.full_like(model.inner.weight, each), rtol=1e-3, atol=1e-8)
    torch.testing.assert_close(
        moved(steps=4, warmup=1.0), 2.5 * moved(), rtol=1e-3, atol=1e-8
    )  # 1, 2, 3, 4 quarters
    if kind == "sgd":  # Nesterov's first step is 1 + momentum long
        torch.testing.assert_close(moved(momentum=0.5), 1.5 * moved(), rtol=1e-3, atol=1e-8)
        norm = 1e-3 * model.inner.weight.numel() ** 0.5
        torch.testing.assert_close(moved(clip=norm / 4), moved() / 4, rtol=1e-2, atol=1e-8)


def test_labels_teach_in_the_precision_of_the_run(model):
    seen = []
    model.inner.register_forward_hook(lambda _m, _x, out: seen.append(out.dtype))
    for precision in ("float32", "bfloat16"):
        loss = TaskLoss(None, distill=0.0, temperature=1.0, precision=precision)
        loss.labelled(model, (X, torch.tensor([0, 1, 2, 0])))
        loss.hard(model, (X, torch.tensor([0, 1, 2, 0])))
    assert seen == [torch.float32, torch.float32, torch.bfloat16, torch.float32]


def test_a_network_that_its_graph_cannot_follow():
    class Lost(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            with torch.no_grad():  # its graph is made of gradients' functions
                return self.b(self.a(x))

    with pytest.raises(CriterionError, match="torch-pruning's pruner"):
        fit(way(), Lost().eval(), torch.randn(2, 4), count_params, 20)


def test_a_random_order_is_that_of_its_seed_at_every_ratio(model):
    found = []
    for before, seed in ((1, 7), (2, 7), (2, 8)):
        torch.manual_seed(before)
        found.append(fit(way("random", seed=seed), model, X, count_params, 0.5 * count_params(model))[1])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("scope", ["local", "global"])
def test_small_steps_stop_where_the_target_is_met(model, scope):
    limit = 0.6 * count_params(model)
    costs = []

    def count(network):
        costs.append(count_params(network))
        return costs[-1]

    small, left = fit(way(scope=scope, gradual=True), model, X, count, limit)
    assert count_params(small) == costs[-1] <= limit < costs[-2], "one group less would not do"
    assert costs == sorted(costs, reverse=True)
    assert inexactness(model, small, left, X) < 1e-10
    with pytest.raises(CriterionError, match="Ask for a larger target"):
        fit(way(scope=scope, gradual=True), model, X, count_params, 5)


def test_a_growing_regulariser_grows_as_often_in_few_steps(model, monkeypatch):
    def nothing(network, batch):
        return 0 * network(batch[0]).sum()

    import torch_pruning as tp

    grown = []
    monkeypatch.setattr(tp.pruner.GrowingRegPruner, "update_reg", lambda self: grown.append(self.delta_reg))
    asked = way(sparse="growing", reg=0.1)
    for steps in (7, 130):
        before, grown[:] = model.inner.weight.square().sum().item(), []
        batches = [(X, torch.tensor([0, 1, 2, 0]))] * steps
        learn_sparsely_(asked, model, X, batches, nothing, PruneConfig(lr=0.1), steps=steps)
        assert grown == [GROWTH] * GROWTHS
        assert model.inner.weight.square().sum() < 0.99 * before


def test_small_squares_order_a_network_of_half_precision_too(model):
    generator = torch.Generator().manual_seed(3)
    gradients = {n: 1e-9 * torch.rand(p.shape, generator=generator) for n, p in model.named_parameters()}

    def found(network, x):
        return fit(way("hessian"), network, x, count_params, 0.5 * count_params(model), gradients)[1]

    assert found(copy.deepcopy(model).half(), X.half()) == found(model, X)


@pytest.mark.parametrize("options", [{}, {"scope": "global"}, {"gradual": True}])
def test_what_is_nowhere_a_number_is_no_order(model, options):
    """But one layer without an order, as of zeros over their mean, does not spoil the others."""
    import torch_pruning as tp

    def saying(*nowhere):
        class Says(tp.importance.MagnitudeImportance):
            def __call__(self, group):
                value = super().__call__(group)
                return value * torch.nan if not nowhere or len(value) in nowhere else value

        return Way(Says, ignored=("head",), **options)

    with pytest.raises(CriterionError, match=r"no order: .* all its scores are NaN"):
        fit(saying(), model, X, count_params, 0.5 * count_params(model))
    if options.get("scope") != "global":
        small, _ = fit(saying(model.inner.out_channels), model, X, count_params, 0.5 * count_params(model))
        assert small.outer.in_channels < model.outer.in_channels


@pytest.mark.parametrize("kind", ["1d", "3d"])
def test_one_ratio_comes_as_near_whatever_the_convolution(kind):
    """The same network as a convolution over rows: the first layers take the milder ratio there too."""
    torch.manual_seed(0)
    shapes = {"1d": ((3,), (1,)), "2d": ((1, 3), (0, 1)), "3d": ((1, 1, 3), (0, 0, 1))}

    def network(dims):
        size, padding = shapes[dims]
        conv = getattr(nn, f"Conv{dims}")
        layers = [(3, 8), (8, 8), (8, 8)]
        made = [layer for pair in layers for layer in (conv(*pair, size, padding=padding), nn.ReLU())]
        pool = getattr(nn, f"AdaptiveAvgPool{dims}")(1)
        return nn.Sequential(*made, pool, nn.Flatten(), nn.Linear(8, 4)).eval()

    flat, other = network("2d"), network(kind)
    found = []
    for net in (flat, other):
        for name, value in net.state_dict().items():
            value.copy_(flat.state_dict()[name].reshape(value.shape))
        length = 4 if net is flat else len(shapes[kind][0]) + 2
        x = torch.randn(2, 3, *[1] * (length - 3), 16)
        small, _ = fit(Way(lambda: importance_of("l2"), ignored=("8",)), net, x, count_params, 200)
        found.append([m.weight.shape[0] for m in small if hasattr(m, "weight")])
    assert found[0] == found[1]
    assert len(set(found[0][:3])) > 1, "one ratio for all would do"
