"""What criteria are given and what they may say: gradients by hand, half precision, and scores that are none."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune.criteria import judge
from snnprune.criteria.gradients import put_gradients_
from snnprune.errors import ConfigError, CriterionError, DivergedError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()


def loss(model, batch):
    return F.cross_entropy(model(batch["x"]), batch["y"])


X, Y = torch.randn(10, 6, generator=torch.Generator().manual_seed(1)), torch.arange(10) % 3


@pytest.mark.parametrize(
    "batch",
    [
        {"x": X, "y": Y},
        {"task": "A", "x": X, "y": Y},
        {"w": torch.tensor(1.0), "x": X, "y": Y},
        {"w": torch.ones(3), "x": X, "y": Y},
    ],
)
def test_squares_are_of_single_inputs_whatever_stands_before_them(batch):
    twin = network()
    put_gradients_(twin, [batch], loss, squares=True)
    expected = [torch.zeros_like(p) for p in twin.parameters()]
    own = network()
    for at in range(10):
        found = torch.autograd.grad(F.cross_entropy(own(X[at : at + 1]), Y[at : at + 1]), list(own.parameters()))
        for total, gradient in zip(expected, found, strict=True):
            total += gradient.square() / 10
    for parameter, value in zip(twin.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, value)


def test_squares_of_what_comes_time_first():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.GRU(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.body(x)[0].mean(0))

    def labelled(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])

    torch.manual_seed(0)
    model, x = Recurrent().double().eval(), torch.randn(7, 10, 6, dtype=torch.float64)
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for at in range(10):
        found = torch.autograd.grad(labelled(model, (x[:, at : at + 1], Y[at : at + 1])), list(model.parameters()))
        for total, gradient in zip(expected, found, strict=True):
            total += gradient.square() / 10
    put_gradients_(model, [(x, Y)], labelled, squares=True)
    for parameter, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, value)


def test_means_are_over_inputs_of_uneven_batches():
    twin, own = network(), network()
    put_gradients_(
        twin, [{"w": 1.0, "x": X[:7], "y": Y[:7]}, {"w": 1.0, "x": X[7:], "y": Y[7:]}], loss, squares=False
    )
    expected = torch.autograd.grad(F.cross_entropy(own(X), Y), list(own.parameters()))
    for parameter, value in zip(twin.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, value)


class Known:
    """A batch whose form is only known to the loss."""


def test_batches_that_cannot_be_taken_apart_are_refused_for_squares_alone():
    def own(model, batch):
        return F.cross_entropy(model(X), Y)

    put_gradients_(network(), [Known()], own, squares=False)
    with pytest.raises(CriterionError, match="Known cannot be taken apart"):
        put_gradients_(network(), [Known()], own, squares=True)


def test_a_loss_that_one_input_has_not_is_not_laid_on_the_model():
    def labelled(model, batch):
        return F.cross_entropy(model(batch["x"]), batch["y"], ignore_index=2)

    put_gradients_(network(), [{"x": X, "y": Y}], labelled, squares=False)
    with pytest.raises(CriterionError, match="the loss of one is nan, though that of its batch is a number"):
        put_gradients_(network(), [{"x": X, "y": Y}], labelled, squares=True)
    for squares in (False, True):
        with pytest.raises(DivergedError, match="Check the model"):
            put_gradients_(network(), [{"x": X * torch.nan, "y": Y}], labelled, squares=squares)


@pytest.mark.parametrize("squares", [False, True])
def test_a_loss_that_depends_on_nothing_is_told(squares):
    with pytest.raises(ConfigError, match="the loss has no gradient"):
        put_gradients_(network(), [{"x": X, "y": Y}], lambda m, b: loss(m, b).detach(), squares=squares)

    def of_some(model, batch):
        value = loss(model, batch)
        return value if int(batch["y"][0]) == 0 else value.detach()

    twin = network()
    put_gradients_(twin, [{"x": X[1:], "y": Y[1:]}, {"x": X[:1], "y": Y[:1]}], of_some, squares=squares)
    assert bool(twin[0].weight.grad.any())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_squares_of_half_precision_are_no_zeros(dtype):
    model = network()
    with torch.no_grad():
        model[2].weight.mul_(0.01)
    groups = snnprune.trace(model, X[:2], input_neurons=False)

    def small(network, batch):
        return 1e-3 * F.cross_entropy(network(batch["x"]), batch["y"])

    exact = judge("hessian", model, groups, look=[{"x": X, "y": Y}], loss=small)
    half = model.to(dtype)
    found = judge("hessian", half, groups, look=[{"x": X.to(dtype), "y": Y}], loss=small)
    assert next(half.parameters()).dtype == dtype, "the user's network stays as it is"
    for name, values in found.items():
        assert values.gt(0).all()
        torch.testing.assert_close(values, exact[name], rtol=0.3, atol=0.1)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (lambda size: torch.full((size,), torch.nan), "no numbers"),
        (lambda size: [1.0] * (size - 1) + [float("nan")], "no numbers"),
        (lambda size: "best", "no scores"),
        (lambda size: [[1], [1, 2]], "no scores"),
        (lambda size: object(), "no scores"),
        (lambda size: torch.zeros(size, device="meta"), "no scores"),
        (lambda size: [1.0] * (size + 1), "the group has 12 neurons"),
    ],
)
def test_scores_that_are_none_are_refused_by_name(said, message):
    def mine(model, groups):
        return {group.id: said(group.size) for group in groups}

    model = network()
    with pytest.raises(ConfigError, match=message) as caught:
        judge(mine, model, snnprune.trace(model, X[:2], input_neurons=False))
    assert "scores=mine gives 0 " in str(caught.value)


def test_none_says_nothing_of_a_group_and_other_tensors_are_numbers():
    model = network()
    groups = snnprune.trace(model, X[:2])
    names = [group.id for group in groups if group.prunable]
    assert len(names) == 2

    def mine(model, groups):
        return {names[0]: None, names[1]: torch.arange(float(sizes[names[1]])).to_sparse()}

    sizes = {group.id: group.size for group in groups}
    found = judge(mine, model, groups)
    assert found[names[0]].isinf().all()
    assert found[names[1]].tolist() == list(range(sizes[names[1]]))


class Distance(tp.importance.MagnitudeImportance):
    """One of torch-pruning's kind whose scores are at most 0, with one that is none."""

    def __call__(self, group):
        found = -torch.arange(1.0, 1 + len(group[0].idxs))
        found[-2] = torch.nan
        return found


def test_what_is_no_number_in_an_importance_goes_first():
    model = network()
    found = judge(Distance(), model, snnprune.trace(model, X[:2], input_neurons=False))["0"]
    assert found.tolist() == [-1.0, -2, -3, -4, -5, -6, -7, -8, -9, -10, -12, -12]


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.t = nn.Conv2d(1, 4, 1), nn.ConvTranspose2d(4, 6, 2, groups=2)
        self.b, self.head = nn.Conv2d(6, 5, 1), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(F.relu(self.b(F.relu(self.t(F.relu(self.a(x)))))).mean((2, 3)))


@pytest.mark.parametrize("name", ["l1", "l2", "lamp", "fpgm", "taylor", "hessian"])
def test_transposed_convolutions_in_groups_are_judged(name):
    torch.manual_seed(0)
    model, x = Transposed().eval(), torch.randn(4, 1, 4, 4)
    groups = snnprune.trace(model, x)

    def own(network, batch):
        return F.cross_entropy(network(batch[0]), batch[1])

    found = judge(name, model, groups, look=[(x, torch.arange(4) % 3)], loss=own)
    assert found["a"].shape == (2,)
    assert found["a"].isfinite().all()
    assert found["a"].gt(0).all()


def test_a_criterion_that_gives_no_number_at_all_fails():
    class Nothing(tp.importance.Importance):
        def __call__(self, group):
            return torch.full((len(group[0].idxs),), torch.nan)

    net = network()
    with pytest.raises(CriterionError, match="gives no group of this model a number"):
        judge(Nothing(), net, snnprune.trace(net, X))


def test_an_importance_of_ones_own_says_that_it_needs_gradients():
    class Steep(tp.importance.Importance):
        needs = "gradients"

        def __call__(self, group):
            return group[0].dep.target.module.weight.grad.abs().sum(1)

    net = network()
    groups = snnprune.trace(net, X, input_neurons=False)
    found = judge(Steep(), net, groups, look=[{"x": X, "y": Y}], loss=loss)
    loss(net, {"x": X, "y": Y}).backward()
    torch.testing.assert_close(found["0"], net[0].weight.grad.abs().sum(1).double())


def test_what_a_function_switches_for_the_whole_program_is_switched_back():
    def rude(model, groups):
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        return {group.id: torch.rand(group.size) for group in groups}

    net = network()
    judge(rude, net, snnprune.trace(net, X))
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_of_equal_scores_all_groups_lose_alike():
    """A mask, or one number for half of the model, is no reason to empty the last groups."""
    torch.manual_seed(0)
    sizes = (6, 40, 20, 40)
    hidden = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    net = nn.Sequential(*hidden, nn.Linear(40, 3))

    def mask(model, groups):
        return {group.id: torch.arange(group.size) % 4 > 0 for group in groups}

    batches = [(X, Y)] * 2
    search = snnprune.SearchOptions(scores=mask)
    config = snnprune.PruneConfig(target={"params": 0.4}, epochs=1, search=search, round_to=1, input_neurons=False)
    result = snnprune.optimize(net, batches, batches, config)
    kept = {group["id"]: group["kept"] / group["size"] for group in result.report.groups}
    assert max(kept.values()) - min(kept.values()) < 0.06, kept
    assert 0.38 < result.report.compact.params / result.report.dense.params <= 0.4
