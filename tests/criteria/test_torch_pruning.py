"""torch-pruning's importances on our groups: its own values where it gets them right, closed forms elsewhere."""

from __future__ import annotations

import copy

import pytest
import torch
import torch_pruning as tp
import torchvision
from conftest import make_network
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune.criteria import judge
from snnprune.criteria.foreign import functions, importance_of
from snnprune.criteria.standins import stand_in
from snnprune.errors import ConfigError, CriterionError

NAMES = ["l1", "l2", "lamp", "fpgm", "taylor", "hessian", "bn-scale"]


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def network(name):
    torch.manual_seed(0)
    if name in torchvision.models.list_models():
        model, x = torchvision.models.get_model(name, weights=None).eval(), torch.randn(2, 3, 64, 64)
    else:
        _, model, x = make_network(name)
        model, x = model.float(), x.float()
    for module in model.modules():  # scales that say something
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.1, 2.0)
    return model, x


def with_gradients(model, batch):
    twin = copy.deepcopy(model)
    cross_entropy(twin, batch).backward()
    return twin


@pytest.mark.parametrize("name", ["vgg_cov2", "resnet18", "mobilenet_v1_025", "squeezenet1_1", "lenet5_caffe"])
def test_the_values_are_its_own_where_it_gets_the_groups_right(name):
    model, x = network(name)
    batch = x, torch.arange(len(x)) % 3
    groups = [g for g in snnprune.trace(model, x, input_neurons=False) if g.prunable]
    theirs = with_gradients(model, batch)
    graph = tp.DependencyGraph().build_dependency(theirs, x, verbose=False)
    seen = 0
    normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    for criterion in NAMES if normed else NAMES[:-1]:
        if criterion == "hessian":
            continue  # below, by hand: it wants gradients of single inputs
        found = judge(criterion, model, groups, look=[batch], loss=cross_entropy)
        for group in groups[:: max(1, len(groups) // 6)]:
            root = group.producers[0]
            if len(root.channels) != group.size:
                continue  # the branches of a concatenation are groups of their own there
            module = theirs.get_submodule(root.module)
            own = graph.get_pruning_group(
                module, graph.get_pruner_of_module(module).prune_out_channels, list(range(len(root.channels)))
            )
            value = importance_of(criterion)(own)
            if value is None:
                assert torch.isinf(found[group.id]).all()
                continue
            ours = found[group.id][list(root.neurons)]
            # LAMP divides by what is left of a sum when all that is smaller is taken off it
            near = 1e-3 if criterion == "lamp" else 2e-5
            torch.testing.assert_close(ours, value.double(), rtol=near, atol=0)
            seen += 1
    assert seen > 10


class Small(nn.Module):
    """Two convolutions, of which the second reads a depthwise one, a flattened map, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.deep, self.second = nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 3, 1)
        self.head = nn.Linear(3 * 16, 5)

    def forward(self, x):
        x = self.second(F.relu(self.deep(F.relu(self.norm(self.first(x))))))
        return self.head(F.relu(x).flatten(1))


@pytest.fixture
def small():
    torch.manual_seed(1)
    model = Small().eval()
    nn.init.uniform_(model.norm.weight, 0.5, 2)
    x = torch.randn(6, 2, 4, 4)
    return model, (x, torch.arange(6) % 5)


def relative(values):
    return values / values.mean()


def test_norms_by_hand(small):
    model, (x, _) = small
    found = judge("l1", model, snnprune.trace(model, x))
    channels = (
        model.first.weight.abs().sum((1, 2, 3))
        + model.norm.weight.abs()
        + model.second.weight.abs().sum((0, 2, 3))
    )
    torch.testing.assert_close(found["first"], relative(channels.detach()).double(), rtol=1e-5, atol=0)
    flat = model.head.weight.abs().sum(0)  # 16 columns of every channel
    second = model.second.weight.abs().sum((1, 2, 3)) + flat.view(3, 16).sum(1)
    torch.testing.assert_close(found["second"], relative(second.detach()).double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(found["head:in"], relative(flat.detach()).double(), rtol=1e-5, atol=0)


def test_lamp_by_hand(small):
    model, (x, _) = small
    found = judge("lamp", model, snnprune.trace(model, x))["second"]
    flat = model.head.weight.square().sum(0).view(3, 16).sum(1)
    mean = ((model.second.weight.square().sum((1, 2, 3)) + flat) / 2).detach()
    wanted = torch.stack([w / mean[mean >= w].sum() for w in mean])
    torch.testing.assert_close(found, wanted.double(), rtol=1e-5, atol=0)
    assert found.max() == 1


def test_taylor_and_hessian_by_hand(small):
    model, batch = small
    groups = snnprune.trace(model, batch[0])
    found = judge("taylor", model, groups, look=[batch], loss=cross_entropy)["head:in"]
    (gradient,) = torch.autograd.grad(cross_entropy(model, batch), model.head.weight)
    wanted = relative((model.head.weight * gradient).abs().sum(0).detach())
    torch.testing.assert_close(found, wanted.double(), rtol=1e-4, atol=1e-7)

    found = judge("hessian", model, groups, look=[batch], loss=cross_entropy)["head:in"]
    square = torch.zeros_like(model.head.weight)
    for i in range(6):
        one = batch[0][i : i + 1], batch[1][i : i + 1]
        square += torch.autograd.grad(cross_entropy(model, one), model.head.weight)[0].square() / 6
    wanted = relative((model.head.weight.square() * square).sum(0).detach())
    torch.testing.assert_close(found, wanted.double(), rtol=1e-4, atol=1e-7)
    assert all(p.grad is None for p in model.parameters()), "the model itself is left alone"


def test_a_batch_in_parts_gives_the_same_gradients(small):
    model, (x, y) = small
    groups = snnprune.trace(model, x)
    whole = judge("taylor", model, groups, look=[(x, y)], loss=cross_entropy)
    parts = judge("taylor", model, groups, look=[(x[:4], y[:4]), (x[4:], y[4:])], loss=cross_entropy)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-4, atol=1e-7)


def test_scales_of_batch_norm_judge_what_has_such(small):
    model, (x, _) = small
    found = judge("bn-scale", model, snnprune.trace(model, x))
    torch.testing.assert_close(found["first"], relative(model.norm.weight.detach()).double(), rtol=1e-6, atol=0)
    assert torch.isinf(found["second"]).all(), "of others nothing is said: they go last"
    bare = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(CriterionError, match="says nothing of any group"):
        judge("bn-scale", bare, snnprune.trace(bare, torch.randn(2, 4)))


def test_heads_of_attention_are_judged_by_their_projections():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 4, 16, dropout=0, batch_first=True).eval()
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 3))
    groups = snnprune.trace(model, torch.randn(2, 3, 8))
    heads = next(g for g in groups if g.heads and g.prunable)
    assert heads.size == 4
    found = judge("l1", model, groups)[heads.id]
    attention = layer.self_attn
    rows = attention.in_proj_weight.abs().sum(1).view(3, 4, 2).sum((0, 2))  # of q, k and v
    columns = attention.out_proj.weight.abs().sum(0).view(4, 2).sum(1)
    torch.testing.assert_close(found, relative((rows + columns).detach()).double(), rtol=1e-5, atol=0)
    assert judge("random", model, groups)[heads.id].shape == (4,)
    batch = torch.randn(2, 3, 8), torch.tensor([0, 2])
    taylor = judge("taylor", model, groups, look=[batch], loss=cross_entropy)[heads.id]
    gradients = torch.autograd.grad(
        cross_entropy(model, batch), [attention.in_proj_weight, attention.out_proj.weight]
    )
    rows = (attention.in_proj_weight * gradients[0]).abs().sum(1).view(3, 4, 2).sum((0, 2))
    columns = (attention.out_proj.weight * gradients[1]).abs().sum(0).view(4, 2).sum(1)
    torch.testing.assert_close(taylor, relative((rows + columns).detach()).double(), rtol=1e-4, atol=1e-7)


class Joined(nn.Module):
    """Two branches of unequal width, read as one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(1, 3, 1), nn.Conv2d(1, 5, 1), nn.Conv2d(8, 6, 3, groups=2)
        self.norm, self.head = nn.BatchNorm2d(6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.norm(self.out(torch.cat([self.a(x), self.b(x)], 1)))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("name", ["random", *NAMES])
@pytest.mark.parametrize("way", ["mean", "sum", "max", "prod", "first", "gate"])
def test_every_criterion_and_reduction_judges_every_kind_of_group(name, way):
    """Concatenations, grouped convolutions: one finite number per neuron, or nothing."""
    torch.manual_seed(0)
    model, x = Joined().eval(), torch.randn(4, 1, 4, 4)
    nn.init.uniform_(model.norm.weight, 0.5, 2)
    groups = snnprune.trace(model, x)
    importance = importance_of(name)
    if name != "random":
        importance.group_reduction = way
    batch = x, torch.arange(4) % 2
    found = judge(importance, model, groups, look=[batch], loss=cross_entropy)
    assert set(found) == {g.id for g in groups if g.prunable}
    for group in (g for g in groups if g.prunable):
        assert found[group.id].shape == (group.size,)
        assert not torch.isnan(found[group.id]).any()
    assert any(torch.isfinite(v).all() and len(v.unique()) > 1 for v in found.values())


def test_branches_of_a_concatenation_are_judged_by_their_own_layers():
    torch.manual_seed(0)
    model, x = Joined().eval(), torch.randn(2, 1, 4, 4)
    model.out = nn.Conv2d(8, 6, 3)
    groups = [g for g in snnprune.trace(model, x) if g.prunable]
    found = judge("l1", model, groups)
    columns = model.out.weight.abs().sum((0, 2, 3))
    own = torch.cat([model.a.weight.abs().sum((1, 2, 3)), model.b.weight.abs().sum((1, 2, 3))])
    joined = [g for g in groups if any(m.module == "out" for m in g.consumers)]
    assert sum(g.size for g in joined) == 8
    for group in joined:
        columns_of = next(m for m in group.consumers if m.module == "out")
        chosen = torch.tensor(columns_of.channels)
        wanted = relative((columns + own)[chosen].detach())
        torch.testing.assert_close(found[group.id][list(columns_of.neurons)], wanted.double(), rtol=1e-5, atol=0)


def test_random_is_drawn_from_the_seed_alone(small):
    model, (x, _) = small
    groups = snnprune.trace(model, x)
    one, other = (judge("random", model, groups, seed=s)["first"] for s in (0, 1))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(judge("random", model, groups, seed=0)["first"], one)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state()), "the caller's streams are left alone"


class Transposed(nn.Module):
    """A layer as transformers has it: its weight is (inputs, outputs)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return torch.addmm(self.bias, x, self.weight)


def test_layers_of_other_classes_and_selected_inputs_count_too():
    torch.manual_seed(0)
    chosen = torch.tensor([1, 2, 5])
    first = snnprune.IndexedLinear(3, 4, source_features=6, index=chosen)
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(4, 2)).eval()
    groups = snnprune.trace(model, torch.randn(2, 6))
    found = judge("l1", model, groups)
    torch.testing.assert_close(
        found["0:in"], relative(first.weight.abs().sum(0).detach()).double(), rtol=1e-5, atol=0
    )
    rows = first.weight.abs().sum(1) + model[2].weight.abs().sum(0)
    torch.testing.assert_close(found["0"], relative(rows.detach()).double(), rtol=1e-5, atol=0)

    kind = snnprune.register_layer(Transposed, outputs={"weight": 1, "bias": 0}, inputs={"weight": 0})
    try:
        own = nn.Sequential(Transposed(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
        groups = snnprune.trace(own, torch.randn(2, 4))
        made = stand_in(own, next(g for g in groups if g.id == "0"), functions())
        assert made[-1].dep.layer is own[2]
        rows = own[0].weight.abs().sum(0) + own[2].weight.abs().sum(0)
        found = judge("l1", own, groups)
        torch.testing.assert_close(found["0"], relative(rows.detach()).double(), rtol=1e-5, atol=0)
    finally:
        kind.remove()


def test_an_importance_of_ones_own_and_its_failures(small):
    model, (x, _) = small
    groups = snnprune.trace(model, x)

    class Bias(tp.importance.Importance):
        def __call__(self, group):
            return group[0].dep.layer.weight.detach().flatten(1).amax(1)

    class Wrong(tp.importance.Importance):
        def __call__(self, group):
            return torch.ones(2)

    class Failing(tp.importance.Importance):
        def __call__(self, group):
            raise KeyError("nothing")

    channels = [g for g in groups if g.kind == "channel"]
    found = judge(Bias(), model, channels)
    assert torch.equal(found["first"], model.first.weight.flatten(1).amax(1).detach().double())
    with pytest.raises(ConfigError, match="shape"):
        judge(Wrong(), model, channels)
    with pytest.raises(CriterionError, match="fails on the group"):
        judge(Failing(), model, channels)
    watching = tp.pruner.importance.OBDCImportance(num_classes=5)
    with pytest.raises(CriterionError, match="Take hessian"):
        judge(watching, model, channels)
