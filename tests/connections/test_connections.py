"""Single connections: the rule that keeps them, and models that lose them exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import snnprune
from connections.conftest import HARD, Net, X
from snnprune.errors import CollapsedLayerError, ExactnessError, TargetError, UnsupportedModelError
from snnprune.switching.connections import (
    ConnectionModel,
    ConnectionScorer,
    connections_for,
    measure_connections,
    switched_layers,
)
from snnprune.switching.connections.proving import prove_connections
from snnprune.switching.connections.rule import Neurons, keep_connections


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


def test_in_the_free_mode_stays_what_is_above_zero():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    gated = ConnectionModel(model, [], ["0"], scorer=ConnectionScorer(model, ["0"]))
    assert gated._kept_alone(torch.tensor([1.0, -1.0, 0.0, 2.0])).tolist() == [True, False, False, True]
    with pytest.raises(CollapsedLayerError, match="all 4 connections"):
        gated._kept_alone(-torch.ones(4))


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
        gated.scorer.offsets.normal_(std=0.1)  # a structure that is not the one of the magnitudes
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
    assert (gated._by_layer(gated.scorer.offsets.grad)["out"][off] != 0).any()
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
        raw = keep_connections(gated._by_layer(scorer(model)), round(share * gated.dense) - 90, floor=0.1)
    closed = sum(int(m.sum()) for m in gated.neurons.close(raw)[0].values())
    kept = sum(c.kept for c in gated.counts())
    wanted = connections_for(share, dense=gated.dense, connections=gated.connections, layers=3)
    assert closed < 0.98 * wanted, "a case in which something is freed"
    assert max(closed, 0.9 * wanted) <= kept <= wanted


def test_the_network_has_its_own_weights_again_whatever_happens(net):
    own = list(net.parameters())
    gated = attach(net)
    gated.set_budget({"params": 0.3})

    def interrupted():
        with gated.running() as inside:
            assert inside is net
            assert inside.fc1.weight is not own[2]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(a is b for a, b in zip(own, net.parameters(), strict=True))


def test_calls_inside_do_not_scale_twice(net):
    gated = attach(net)
    gated.set_budget({"params": 0.3})
    outside = gated(X)
    with gated.running() as inside:
        assert torch.equal(inside(X), outside)
        assert torch.equal(gated(X), outside)
        before = {name: scale.clone() for name, scale in gated.connection_scales().items()}
    for name, scale in gated.connection_scales().items():
        assert torch.equal(scale, before[name])


@pytest.mark.parametrize("order", [1, -1])
def test_floors_that_ask_for_more_than_there_is_leave_every_layer_one(order):
    """One connection each is a floor too: with the shares of large layers they would be more than may stay."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"large": (10, 10), **{f"small{i}": (1, 3) for i in range(15)}}
    values = {n: torch.rand(s, generator=generator) - float("small" in n) for n, s in list(sizes.items())[::order]}
    masks = keep_connections(values, 20, floor=1.0)
    assert sum(int(m.sum()) for m in masks.values()) == 20
    assert all(bool(m.any()) for m in masks.values())


def test_connections_that_are_not_there_are_never_kept():
    gone = torch.full((2, 3), -torch.inf)
    some = torch.where(torch.arange(20).view(4, 5) < 10, 1.0, -torch.inf)
    for count in (3, 10, 15):  # 15 are more than there are, and so is the floor's share of them
        masks = keep_connections({"gone": gone, "some": some}, count, floor=0.9)
        assert not masks["gone"].any()
        assert int(masks["some"].sum()) == min(count, 10)
        assert not bool((masks["some"] & (some == -torch.inf)).any())


@pytest.mark.parametrize(("step", "broken"), [("fold", "fold_connections_"), ("remove", "remove_")])
def test_the_proof_notices_a_step_that_changes_the_ninth_digit(step, broken, monkeypatch):
    from snnprune.switching.connections import proving as proof

    torch.manual_seed(0)
    gated = attach(Net().eval())
    gated.set_budget({"params": 0.5})
    assert max(prove_connections(gated, X).values()) < 1e-12
    right = getattr(proof, broken)

    def wrong(model, *rest):
        right(model, *rest)
        with torch.no_grad():
            model.out.bias.mul_(1 + 1e-8)
        return model

    monkeypatch.setattr(proof, broken, wrong)
    with pytest.raises(ExactnessError, match=f"the {step} step"):
        prove_connections(gated, X)


def test_scales_are_the_same_under_autocast(net):
    gated = attach(net)
    gated.set_budget({"params": 0.5})
    with torch.no_grad():
        for parameter in gated.scorer.parameters():  # at its start the switcher says nothing
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
        values = gated._by_layer(gated.scorer(net))
        with torch.autocast("cpu", torch.bfloat16):
            found = gated.connection_scales()
    for name, u in values.items():
        kept = found[name] > 0
        wanted = torch.where(kept, (u / u[kept].clamp_min(0.01).mean()).clamp_min(0.01), 0.0)
        torch.testing.assert_close(found[name], wanted, rtol=1e-6, atol=0)
