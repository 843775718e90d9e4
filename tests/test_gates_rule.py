"""Gates: who is kept by budgets, by multiples and by scales set by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from conftest import make_network
from torch import nn

import snnprune
from snnprune.errors import CollapsedLayerError, ConfigError, TargetError
from snnprune.metrics import count_macs, count_params
from snnprune.proof import relative_difference
from snnprune.switching.rule import soft_and_hard
from snnprune.switching.segments import Segments, straight_through


def share(gated, metric):
    return gated.cost.share(metric, {n: (s > 0).numpy() for n, s in gated.scales.items()})


def test_budgets_are_met_from_below_within_a_hundredth(network):
    """One after another on one gated network: a budget leaves no trace in the next one."""
    name, model, x = network
    with snnprune.attach(model, x) as gated:
        scores = {n: u.detach().numpy() for n, u in gated.segments.split(gated.scorer(model)).items()}
        for metric, target in itertools.product(("macs", "params"), (0.7, 0.15, 0.4)):
            gated.set_budget({metric: target})
            if gated.cost.floor_share(metric, scores) > target:
                with pytest.raises(TargetError, match="floor"):
                    gated(x)
                continue
            kept = share(gated, metric)
            assert target - 0.01 <= kept <= target, (name, metric, target)
            # the cost model is not trusted: count the compact model itself
            compact = gated.compact()
            count = count_macs(compact, x) if metric == "macs" else count_params(compact)
            assert count / gated.cost.dense[metric] == pytest.approx(kept, abs=1e-9), (name, metric, target)


def test_progress_moves_the_budget_from_dense_to_the_target():
    _, model, x = make_network("lenet5_caffe")
    with snnprune.attach(model, x) as gated:
        shares = []
        for progress in (0.0, 0.25, 0.5, 1.0):
            gated.set_budget({"params": 0.2}, progress=progress)
            shares.append(share(gated, "params"))
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[2] == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize(
    "target", [{"macs": 1.5}, {"macs": 0}, {"foo": 0.5}, {"macs": 0.5, "params": 0.5}, {"macs": True}]
)
def test_bad_targets_are_refused(target):
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated, pytest.raises(TargetError):
        gated.set_budget(target)


@pytest.mark.parametrize("multiple", [4, 8])
def test_round_to_keeps_multiples(multiple):
    _, model, x = make_network("resnet18")
    with snnprune.attach(model, x, round_to=multiple) as gated:
        gated.set_budget({"macs": 0.5})
        assert all(c.kept % multiple == 0 for c in gated.counts() if not c.id.endswith(":in"))
        assert 0.4 < share(gated, "macs") <= 0.5


def test_groups_worth_nothing_stay_whole():
    """ResNet-20's last inputs are a hundred-thousandth of its MACs."""
    _, model, x = make_network("resnet20")
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"macs": 0.4})
        assert {c.id: c.kept for c in gated.counts()}["linear:in"] == 48


def test_rounding_counts_the_channels_of_convolution_groups():
    """Groups of 4 channels go in pairs when multiples of 8 are asked for."""
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3, groups=16), nn.ReLU(), nn.Conv2d(64, 5, 1)
    )
    x = torch.randn(2, 3, 8, 8)
    with snnprune.attach(model, x, round_to=8) as gated:
        gated.set_budget({"macs": 0.5})
        small = gated.compact()
    assert gated.groups[0].size == 16
    assert small[2].groups % 2 == 0
    assert small[2].out_channels == 4 * small[2].groups < 64


def test_cost_of_a_selection_is_hand_arithmetic():
    _, model, x = make_network("mlp")
    with snnprune.attach(model, x) as gated:
        kept = {
            "features.0:in": np.arange(784) < 400,
            "features.0": np.arange(300) < 100,
            "features.2": np.arange(100) < 30,
        }
        assert gated.cost.cost("macs", kept) == 400 * 100 + 100 * 30 + 30 * 10
        assert gated.cost.cost("params", kept) == 400 * 100 + 100 + 100 * 30 + 30 + 30 * 10 + 10


@pytest.mark.parametrize(
    ("scales", "error"),
    [
        ({"nope": torch.ones(3)}, ConfigError),
        ({"conv1": torch.ones(3)}, ConfigError),
        ({"conv1": -torch.ones(20)}, ConfigError),
        ({"conv1": torch.full((20,), float("nan"))}, ConfigError),
        ({"fc2": torch.ones(10)}, ConfigError),
        ({"conv1": torch.zeros(20)}, CollapsedLayerError),
    ],
)
def test_bad_scales_are_refused(scales, error):
    _, model, x = make_network("lenet5_caffe")
    with snnprune.attach(model, x, switcher=None) as gated, pytest.raises(error):
        gated.set_scales(scales)


def test_channels_and_their_units_multiply():
    """A flattened unit is kept when its own scale and its channel's are both positive."""
    _, model, x = make_network("lenet5_caffe")
    channel, units = torch.ones(50).double(), torch.ones(800).double()
    channel[10:] = 0
    units[: 5 * 16] = 0
    with snnprune.attach(model, x, switcher=None) as gated:
        gated.set_scales({"conv2": channel, "fc1:in": units})
        counts = {c.id: c.kept for c in gated.counts()}
        compact = gated.compact()
        assert relative_difference(gated(x), compact(x)) <= 1e-10
    assert counts["fc1:in"] == 5 * 16
    fc1 = compact.get_submodule("fc1")
    assert (fc1.in_features, fc1.source_features) == (80, 160)


def test_free_mode_without_any_neuron_left_names_the_layer():
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        with torch.no_grad():
            gated.segments.split(gated.scorer.offsets)["features.0"].sub_(10)
        with pytest.raises(CollapsedLayerError, match=r"features\.0"):
            gated(x)


VALUES = {"a": [2.0, 1.0, 0.5], "b": [4.0, -1.0, 0.001, 3.0]}
MASKS = {"a": [True, True, False], "b": [True, True, True, False]}


def scales_of(normalize: bool):
    values = {n: torch.tensor(v, dtype=torch.float64, requires_grad=True) for n, v in VALUES.items()}
    groups = Segments({n: len(v) for n, v in VALUES.items()}, "cpu")
    mask = groups.join({n: torch.tensor(m) for n, m in MASKS.items()})
    soft, hard = soft_and_hard(groups.join(values), mask, groups, normalize=normalize)
    return values, groups.split(straight_through(hard, soft))


def test_scales_are_values_over_the_mean_of_the_kept_and_never_vanish():
    """A kept neuron has at least a hundredth, whatever its value: at 0 removal would take it along."""
    scales = scales_of(normalize=True)[1]
    mean = (4 + 0.01 + 0.01) / 3
    assert scales["a"].tolist() == pytest.approx([2 / 1.5, 1 / 1.5, 0], rel=1e-15, abs=0)
    assert scales["b"].tolist() == pytest.approx([4 / mean, 0.01, 0.01, 0], rel=1e-15, abs=0)
    assert scales_of(normalize=False)[1]["b"].tolist() == pytest.approx([4, 0, 0.001, 0], abs=0)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_gradient_passes_straight_through_and_not_through_the_mean(normalize):
    """Also to neurons that are off; else a scale that grows would push all others of its layer down."""
    values, scales = scales_of(normalize)
    weights = {"a": torch.tensor([1.0, 10, 100]).double(), "b": torch.tensor([1.0, 2, 3, 4]).double()}
    sum((weights[n] * s).sum() for n, s in scales.items()).backward()
    means = {"a": 1.5, "b": (4 + 0.01 + 0.01) / 3} if normalize else {"a": 1.0, "b": 1.0}
    for name, value in values.items():
        assert value.grad.tolist() == pytest.approx((weights[name] / means[name]).tolist(), rel=1e-15)


@pytest.mark.parametrize("phase", ["switcher", "network", "both"])
def test_phases_leave_frozen_what_the_caller_froze(phase):
    _, model, x = make_network("digits_cnn")
    parameters = dict(model.named_parameters())
    frozen = {n for i, n in enumerate(parameters) if i % 2}
    for name in frozen:
        parameters[name].requires_grad_(False)
    with snnprune.attach(model, x) as gated:
        assert gated.network_parameters() == [p for n, p in parameters.items() if n not in frozen]
        for gradient in ("through", "held"):
            gated.set_phase(phase, gradient=gradient)
            assert {n for n, p in parameters.items() if p.requires_grad} == (
                set() if phase == "switcher" else parameters.keys() - frozen
            )
            assert all(p.requires_grad == (phase != "network") for p in gated.scorer_parameters())
        for made in (gated.fold(), gated.compact()):
            assert {n for n, p in made.named_parameters() if not p.requires_grad} == frozen
    assert {n for n, p in parameters.items() if not p.requires_grad} == frozen
