"""Single connections: their values, the rule that keeps them, and models that lose them exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune.connections import (
    ConnectionModel,
    ConnectionScorer,
    connections_for,
    measure_connections,
    switched_layers,
)
from snnprune.connections.rule import Neurons, keep_connections
from snnprune.errors import CollapsedLayerError, TargetError, UnsupportedModelError
from snnprune.learner import TaskLoss
from snnprune.pipeline.proof import prove_connections

HARD = TaskLoss(None, distill=0.0, temperature=1.0).hard


class Net(nn.Module):
    """A convolution, flattened units, a residual of fully connected layers, batch norm between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc1 = nn.Linear(16, 12)
        self.bn = nn.BatchNorm1d(12)
        self.fc2 = nn.Linear(12, 9)
        self.fc3 = nn.Linear(9, 12)
        self.out = nn.Linear(12, 5)

    def forward(self, x):
        x = F.relu(self.bn(self.fc1(F.adaptive_avg_pool2d(F.relu(self.conv(x)), 2).flatten(1))))
        return self.out(x + F.relu(self.fc3(F.relu(self.fc2(x)))))


@pytest.fixture(params=[0, 1, 2])
def net(request):
    torch.manual_seed(request.param)
    model = Net().eval()
    with torch.no_grad():
        model.bn.running_mean.normal_()
        model.bn.running_var.uniform_(0.5, 2)
        model.bn.weight.uniform_(0.5, 1.5)
        model.bn.bias.normal_()
    return model


X = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(5))


def attach(model, **options):
    names = switched_layers(model)
    groups = snnprune.trace(model, X)
    return ConnectionModel(model, groups, names, scorer=ConnectionScorer(model, names, **options))


def test_layers_with_weights_of_their_own_are_switched(net):
    assert switched_layers(net) == ["fc1", "fc2", "fc3", "out"]
    assert switched_layers(net, ["fc*"]) == ["out"]
    net.out.weight = nn.Parameter(net.fc2.weight.detach().clone())
    net.fc2.weight = net.out.weight  # shared: what one switches off the other would lose
    assert switched_layers(net) == ["fc1", "fc3"]
    with pytest.raises(UnsupportedModelError, match="no fully connected layer"):
        switched_layers(nn.Sequential(nn.Conv2d(1, 2, 3)))


def test_the_post_training_start_orders_by_magnitude_and_scales_little(net):
    with torch.no_grad():
        values = ConnectionScorer(net, ["fc1", "fc2"], scores="switcher")(net)
    for name, u in values.items():
        weight = net.get_submodule(name).weight
        assert torch.equal(u.flatten().argsort(), weight.abs().flatten().argsort())
        assert 0.9 < float(u.mean()) < 1.1
    assert torch.cat([u.flatten() for u in values.values()]).std() == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("start", ["post-training", "fresh"])
def test_values_follow_the_neurons_when_they_change_places(net, start):
    scorer = ConnectionScorer(net, ["fc1", "fc2"], scores="switcher", start=start)
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter.normal_(std=0.3)  # so that the switcher has a say
        before = scorer(net)
        order, columns = torch.randperm(12), torch.randperm(16)
        net.fc1.weight.copy_(net.fc1.weight[order][:, columns])
        after = scorer(net)
    assert float(before["fc1"].std()) > 0.01
    torch.testing.assert_close(after["fc1"], before["fc1"][order][:, columns], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after["fc2"], before["fc2"])


def test_a_fresh_start_switches_about_half_off(net):
    with torch.no_grad():
        values = ConnectionScorer(net, switched_layers(net), scores="switcher", start="fresh")(net)
    for u in values.values():
        assert float(u.mean()) == pytest.approx(0.1, abs=1e-4)
        assert float(u.std(correction=0)) == pytest.approx(2**0.5, abs=1e-4)
        assert 0.3 < float((u <= 0).float().mean()) < 0.7


def test_free_scores_start_where_the_switcher_does(net):
    names = switched_layers(net)
    with torch.no_grad():
        known = ConnectionScorer(net, names, scores="switcher+offset")(net)
        free = ConnectionScorer(net, names, scores="free")
        for name, value in free(net).items():
            torch.testing.assert_close(value, known[name])
    assert not free.switcher_parameters()


def test_the_switcher_reads_weights_with_a_gradient(net):
    scorer = ConnectionScorer(net, ["fc1"], scores="switcher", start="fresh")
    scorer(net)["fc1"].square().sum().backward()
    assert float(net.fc1.weight.grad.abs().sum()) > 0
    assert all(float(p.grad.abs().sum()) > 0 for p in scorer.switcher_parameters() if p.numel() > 1)


def test_sensitivities_are_those_of_single_inputs(net):
    net = net.double()
    x, y = X.double(), torch.randint(5, (6,), generator=torch.Generator().manual_seed(1))
    found = measure_connections(net, ["fc1", "out"], [(x[:4], y[:4]), (x[4:], y[4:])], HARD)
    for name, values in found.items():
        weight = net.get_submodule(name).weight
        wanted = torch.zeros_like(weight)
        for i in range(6):
            (gradient,) = torch.autograd.grad(F.cross_entropy(net(x[i : i + 1]), y[i : i + 1]), weight)
            wanted += (gradient * weight.detach()).square() / 6
        torch.testing.assert_close(values.double(), wanted, rtol=1e-4, atol=1e-12)
    assert all(p.grad is None for p in net.parameters())


def test_exactly_as_many_connections_stay_and_every_layer_keeps_some():
    generator = torch.Generator().manual_seed(0)
    values = {"a": torch.rand(10, 10, generator=generator), "b": torch.rand(5, 8, generator=generator) - 9}
    masks = keep_connections(values, 35, floor=0.5)
    assert sum(int(m.sum()) for m in masks.values()) == 35
    assert int(masks["b"].sum()) == 5, "half of what it would keep if all kept alike"
    kept = values["a"][masks["a"]]
    assert float(kept.min()) > float(values["a"][~masks["a"]].max())
    equal = {"a": torch.ones(10, 10)}
    assert int(keep_connections(equal, 7, floor=0.1)["a"].sum()) == 7, "ties"
    free = keep_connections({"a": torch.tensor([[1.0, -1.0], [0.0, 2.0]])}, None, floor=0.1)
    assert free["a"].tolist() == [[True, False], [False, True]]
    with pytest.raises(CollapsedLayerError, match="all 4 connections"):
        keep_connections({"a": -torch.ones(2, 2)}, None, floor=0.1)


def test_a_target_below_the_other_parameters_says_what_can_be_reached():
    assert connections_for(0.5, dense=1000, connections=900, layers=2) == 400
    with pytest.raises(TargetError, match=r"100 of 1000 parameters are none. Ask for params=0\.102"):
        connections_for(0.1, dense=1000, connections=900, layers=2)
    assert connections_for(0.102, dense=1000, connections=900, layers=2) == 2


def test_neurons_without_connections_die_and_take_theirs_along(net):
    names = switched_layers(net)
    neurons = Neurons(net, snnprune.trace(net, X), names)
    masks = {n: torch.ones_like(net.get_submodule(n).weight, dtype=torch.bool) for n in names}
    masks["fc2"][3] = False  # unit 3 of fc2 reads nothing: fc3 must not read the constant that it is
    masks["fc3"][:, 7] = False  # nothing reads unit 7 of fc2
    masks["fc1"][:, 4:8] = False  # nothing reads the four units of channel 1
    masks["fc1"][5] = False  # unit 5 of the residual sum still gets what fc3 says
    closed, alive = neurons.close(masks)
    dead = {name: (~there).nonzero().flatten().tolist() for name, there in alive.items() if not there.all()}
    assert dead == {"fc2": [3, 7], "conv": [1], "fc1:in": [4, 5, 6, 7]}
    assert not closed["fc3"][:, 3].any()
    assert not closed["fc2"][7].any()
    assert masks["fc2"][7].any(), "the caller's masks stay"
    masks["fc3"][:] = False
    with pytest.raises(CollapsedLayerError, match="fc2: none of its 9 neurons"):
        neurons.close(masks)


@pytest.mark.parametrize("share", [0.6, 0.25])
def test_scaled_folded_and_removed_models_agree(net, share):
    gated = attach(net)
    gated.set_budget({"params": share})
    with torch.no_grad():
        for offset in gated.scorer.offsets:
            offset.normal_(std=0.1)  # a structure that is not the one of the magnitudes
    found = prove_connections(gated, X)
    assert max(found.values()) < 1e-12
    small = gated.compact().eval()
    torch.testing.assert_close(small(X), gated(X), atol=1e-5, rtol=1e-5)
    nonzero = sum(int(p.count_nonzero()) for p in small.parameters())
    dense = sum(p.numel() for p in net.parameters())
    assert share - 0.1 < nonzero / dense <= share
    if share < 0.5:
        assert sum(p.numel() for p in small.parameters()) < dense, "dead neurons are gone"
    connected = {name: small.get_submodule(name).weight != 0 for name in gated.names}
    assert connected["fc2"].any(1).all(), "a unit without connections was left"
    assert connected["fc1"].any(0).all(), "an input that nobody reads was left"
    assert connected["fc3"].any(0).all(), "a unit that nobody reads was left"


def test_connections_that_are_off_still_learn_and_may_come_back(net):
    gated = attach(net, scores="free")
    gated.set_budget({"params": 0.4})
    gated.set_phase("switcher")
    gated(X).square().sum().backward()
    scales = gated.connection_scales()
    off = scales["out"] == 0
    assert off.any()
    assert (gated.scorer.offsets[3].grad[off] != 0).any()
    assert all(p.grad is None for p in net.parameters())


def test_phases_and_gradients(net):
    gated = attach(net, scores="switcher", start="fresh")
    gated.set_phase("network", gradient="through")
    gated(X).square().sum().backward()
    through = net.fc1.weight.grad.clone()
    assert all(p.grad is None for p in gated.scorer_parameters())
    net.zero_grad(set_to_none=True)
    gated.set_phase("network", gradient="held")
    gated(X).square().sum().backward()
    assert not torch.allclose(through, net.fc1.weight.grad), "the scales' dependence on the weights counts"
    with pytest.raises(TargetError, match="use params="):
        gated.set_budget({"macs": 0.5})
    net.requires_grad_(False)
    assert gated.detach() is net
    assert all(p.requires_grad for p in net.parameters()), "as it was"


def test_a_layer_under_two_names_and_one_called_by_keyword():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 6)
            self.again = self.first
            self.last = nn.Linear(6, 3)

        def forward(self, x):
            return self.last(input=F.relu(self.again(x)))

    torch.manual_seed(0)
    model, x, y = Odd().eval(), torch.rand(5, 8), torch.tensor([0, 1, 2, 0, 1])
    names = switched_layers(model)
    assert names == ["first", "last"]
    found = measure_connections(model, names, [(x, y)], HARD)
    assert all(float(v.sum()) > 0 for v in found.values())
    gated = ConnectionModel(model, snnprune.trace(model, x), names, scorer=ConnectionScorer(model, names))
    gated.set_budget({"params": 0.6})
    for _ in range(2):
        gated(x).sum().backward()
    assert isinstance(model.first.weight, nn.Parameter)
    assert model.first is model.again
    assert max(prove_connections(gated, x).values()) < 1e-12


def test_scales_are_computed_once_for_the_same_weights(net, monkeypatch):
    gated = attach(net)
    gated.set_budget({"params": 0.5})
    calls = []
    original = ConnectionScorer.forward
    monkeypatch.setattr(ConnectionScorer, "forward", lambda self, m: calls.append(1) or original(self, m))
    with torch.no_grad():
        first = gated(X)
        assert torch.equal(gated(X), first)
        gated.counts()
        assert len(calls) == 1
        net.fc1.weight.mul_(-1)
        gated(X)
    assert len(calls) == 2
    gated(X)
    gated(X)
    assert len(calls) == 4, "a graph belongs to one backward pass"


@pytest.mark.parametrize("share", [0.3, 0.1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_dead_neurons_free_goes_to_others(share, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 10)).eval()
    with torch.no_grad():
        model[2].weight[:20] *= 1e-3  # these units die early and take their connections along
    x, names = torch.rand(4, 64), switched_layers(model)
    scorer = ConnectionScorer(model, names, scores="switcher")
    gated = ConnectionModel(model, snnprune.trace(model, x), names, scorer=scorer)
    gated.set_budget({"params": share})
    with torch.no_grad():
        raw = keep_connections(scorer(model), round(share * gated.dense) - 90, floor=0.1)
    closed = sum(int(m.sum()) for m in gated.neurons.close(raw)[0].values())
    kept = sum(c.kept for c in gated.counts())
    wanted = connections_for(share, dense=gated.dense, connections=gated.connections, layers=3)
    assert closed < 0.98 * wanted, "a case in which something is freed"
    assert max(closed, 0.9 * wanted) <= kept <= wanted


def test_a_weight_that_is_used_without_its_layer_is_judged_by_its_magnitude(net):
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.last = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.last(F.relu(F.linear(x, self.used.weight, self.used.bias)))

    torch.manual_seed(0)
    model = Inside().eval()
    found = measure_connections(model, ["used", "last"], [(torch.rand(4, 8), torch.tensor([0, 1, 2, 0]))], HARD)
    assert set(found) == {"last"}
    with torch.no_grad():
        informed = ConnectionScorer(model, ["used", "last"], scores="switcher", sensitivity=found)(model)
        plain = ConnectionScorer(model, ["used", "last"], scores="switcher")(model)
    assert torch.equal(informed["used"], plain["used"])
    assert not torch.equal(informed["last"], plain["last"])
