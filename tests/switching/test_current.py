"""Scales are computed once: what a pass has used is what surgery, reports and checkpoints see."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_network
from torch import nn

import snnprune
from snnprune.errors import ConfigError, TargetError
from snnprune.proof import relative_difference
from snnprune.switching.connections import ConnectionModel, ConnectionScorer, switched_layers
from snnprune.switching.current import Current, Scales

NETWORKS = ["digits_cnn", "resnet20", "mobilenet_v1_025", "lenet5_caffe", "mlp"]


def unsteady(scorer: nn.Module, eps: float = 1e-6) -> list[int]:
    """A scorer that answers with other last bits at every call, as on a GPU; returns the list of its calls."""
    calls: list[int] = []
    original, generator = scorer.forward, torch.Generator().manual_seed(0)

    def forward(*args):
        values = original(*args)
        calls.append(1)
        return values * (1 + eps * torch.randn(values.shape, generator=generator, dtype=values.dtype))

    scorer.forward = forward  # type: ignore[method-assign]
    return calls


@pytest.mark.parametrize("target", [{"macs": 0.5}, None])
@pytest.mark.parametrize("name", NETWORKS)
def test_gated_is_compact_with_a_scorer_whose_last_bits_change(name, target):
    _, model, x = make_network(name)
    with snnprune.attach(model, x) as gated:
        calls = unsteady(gated.scorer)
        gated.set_budget(target)
        for grad in (False, True):  # with gradients the scorer runs once more, and says something else
            with torch.set_grad_enabled(grad):
                output = gated(x)
            scales = gated.scales
            assert relative_difference(output, gated.compact()(x)) <= 1e-10
            assert relative_difference(output, gated.fold()(x)) <= 1e-10
            assert all(torch.equal(scales[n], s) for n, s in gated.scales.items())
        assert len(calls) == 2
        assert {c.id: c.kept for c in gated.counts()} == {c.id: c.kept for c in gated.counts()}


def test_the_stand_in_would_be_noticed():
    """Scales that are computed anew differ by far more than what is allowed: the test above has teeth."""
    _, model, x = make_network("resnet20")
    with snnprune.attach(model, x) as gated:
        unsteady(gated.scorer)
        gated.set_budget({"macs": 0.5})
        output = gated(x)
        gated.forget()
        assert relative_difference(output, gated.compact()(x)) > 1e-9


@pytest.mark.parametrize("phase", ["both", "switcher", "network"])
def test_every_pass_over_the_same_weights_has_the_same_scales_and_gradients_of_its_own(phase):
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.5})
        gated.set_phase(phase)
        unsteady(gated.scorer)
        under, chosen, outputs = gated.choice.under, [], []
        gated.choice.under = lambda *given: chosen.append(1) or under(*given)
        for _ in range(3):
            outputs.append(gated(x))
            outputs[-1].square().mean().backward()
        assert chosen == [1], "who stays is decided once"
        assert all(torch.equal(outputs[0], other) for other in outputs[1:])


def test_nothing_is_computed_where_nothing_has_changed():
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        calls = unsteady(gated.scorer)
        gated.set_budget({"params": 0.5})
        first = gated.scales
        with torch.no_grad():
            gated(x)
        gated.set_budget({"params": 0.5})
        gated.set_phase("both")
        gated.counts()
        assert len(calls) == 1
        gated.set_budget({"params": 0.4})
        assert not all(torch.equal(first[n], s) for n, s in gated.scales.items())
        assert len(calls) == 2


def test_a_parameter_changed_in_place_makes_scales_stale():
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        calls = unsteady(gated.scorer)
        for tensor in (next(model.parameters()), gated.scorer.offsets):
            before = gated.scales
            with torch.no_grad():
                tensor.add_(torch.linspace(0, 0.1, tensor.numel()).view_as(tensor))
            assert not all(torch.equal(before[n], s) for n, s in gated.scales.items())
        assert len(calls) == 3


@pytest.mark.parametrize("ask", ["scales", "counts", "compact", "fold"])
def test_who_asks_between_two_passes_does_not_part_them_from_the_scales(ask):
    """Without gradients a pass may use what the one before has made, but only of the scales that hold now."""
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated, torch.no_grad():
        gated.set_budget({"params": 0.5})
        gated(x)
        for parameter in model.parameters():
            parameter.mul_(torch.linspace(0.5, 2, parameter.numel()).view_as(parameter))
        found = getattr(gated, ask)
        if callable(found):
            found()
        assert relative_difference(gated(x), gated.compact()(x)) <= 1e-10


@pytest.mark.parametrize("kind", ["neurons", "connections"])
def test_a_checkpoint_holds_the_scales_of_its_weights(kind):
    _, model, x = make_network("mlp")
    x = x.flatten(1) if kind == "connections" else x

    def attach(net):
        if kind == "neurons":
            return snnprune.attach(net, x)
        names = switched_layers(net)
        return ConnectionModel(net, snnprune.trace(net, x), names, scorer=ConnectionScorer(net, names))

    twin = copy.deepcopy(model)
    gated, other = attach(model), attach(twin)
    unsteady(gated.scorer)
    unsteady(other.scorer, 1e-3)
    gated.set_budget({"params": 0.5})
    output = gated(x)
    state = copy.deepcopy(gated.state_dict())
    other.load_state_dict(state)
    assert torch.equal(output, other(x))
    assert relative_difference(output, other.compact()(x)) <= 1e-10
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    assert gated.state_dict()["scales"] is None, "of weights that have moved on they are computed anew"
    gated.detach()
    other.detach()


def test_held_scales_stay_while_weights_move_and_are_what_is_folded():
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        calls = unsteady(gated.scorer)
        gated.set_budget({"params": 0.5})
        gated(x)
        gated.hold()
        scales = gated.scales
        for _ in range(3):
            gated(x).square().mean().backward()
            with torch.no_grad():
                for parameter in gated.network_parameters():
                    parameter.sub_(0.01 * parameter.grad)
        assert len(calls) == 1
        assert all(torch.equal(scales[n], s) for n, s in gated.scales.items())
        assert relative_difference(gated(x), gated.compact()(x)) <= 1e-10
        gated.set_phase("both")
        gated(x)
        assert len(calls) == 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (None, ConfigError),
        ({"scorer": ...}, ConfigError),
        ({"budget": 5}, ConfigError),
        ({"budget": {"metric": "macs"}}, ConfigError),
        ({"budget": {"metric": "macs", "share": 7.0}}, TargetError),
        ({"scales": {"values": torch.ones(2), "mask": torch.ones(2) > 0}}, ConfigError),
        ({"scales": {"values": torch.ones(384)}}, ConfigError),
        ({"scales": [1]}, ConfigError),
    ],
    ids=repr,
)
def test_what_is_no_state_is_refused_and_nothing_of_it_loaded(change, error):
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.5})
        gated(x)
        state = {**copy.deepcopy(gated.state_dict()), **(change or {})}
        for name, tensor in state["model"].items():
            state["model"][name] = tensor + 1
        state = None if change is None else {n: v for n, v in state.items() if v is not ...}
        before = copy.deepcopy(dict(model.state_dict()))
        with pytest.raises(error):
            gated.load_state_dict(state)
        assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def counting(version):
    """Scales whose values say how often they were computed."""
    made = []

    def compute(known):
        made.append(known)
        soft = torch.full((2,), float(len(made)), requires_grad=True) * 1
        return soft, known or Scales(soft.detach(), torch.ones(2, dtype=torch.bool))

    return Current(compute, lambda: version[0]), made


def test_the_rule_of_current_scales_by_hand():
    version = [0]
    current, made = counting(version)
    assert current.known is None
    assert current.scales().values.tolist() == [1, 1]
    assert current.scales().values.tolist() == [1, 1]
    found = current.differentiable()
    assert found.tolist() == [1, 1], "the values that hold already, not the second answer"
    assert found.requires_grad
    assert made == [None, current.known]
    version[0] = 1
    assert current.known is None
    assert current.last is not None
    assert current.differentiable().tolist() == [3, 3]
    with torch.no_grad():
        assert not current.differentiable().requires_grad
    current.fix(Scales(torch.tensor([5.0, 0.0]), torch.tensor([True, False])))
    version[0] = 2
    assert current.differentiable().tolist() == [5, 0]
    assert not current.differentiable().requires_grad
    current.forget()
    assert current.scales().values.tolist() == [4, 4]
    current.put_back(Scales(torch.tensor([7.0, 7.0]), torch.ones(2, dtype=torch.bool)))
    assert current.scales().values.tolist() == [7, 7]
    version[0] = 3
    assert current.scales().values.tolist() == [5, 5]
