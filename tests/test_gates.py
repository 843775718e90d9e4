"""Gates: phases, budgets, scales by hand, and what they leave behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_network
from torch import nn
from torch.utils.checkpoint import checkpoint

import snnprune
from snnprune.errors import AttachError, CollapsedLayerError, ConfigError, ExportError, TargetError
from snnprune.export import export_onnx
from snnprune.surgery import relative_difference


def share(gated, metric):
    return gated.cost.share(metric, {n: (s > 0).numpy() for n, s in gated.scales.items()})


@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("target", [0.7, 0.4, 0.15])
def test_budget_is_met_from_below_within_a_hundredth(network, metric, target):
    name, model, x = network
    with snnprune.attach(model, x) as gated:
        scores = {n: u.detach().numpy() for n, u in gated.scorer(model).items()}
        least = gated.cost.floor_share(metric, scores)
        if least > target:
            gated.set_budget({metric: target})
            with pytest.raises(TargetError, match="floor"):
                gated(x)
            return
        gated.set_budget({metric: target})
        kept = share(gated, metric)
        assert target - 0.01 <= kept <= target, name
        compact = gated.compact()
    # the cost model is not trusted: count the compact model itself
    count = (
        snnprune.metrics.count_macs(compact, x)
        if metric == "macs"
        else sum(p.numel() for p in compact.parameters())
    )
    assert count / gated.cost.dense[metric] == pytest.approx(kept, abs=1e-9)


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


def test_phases_freeze_the_other_side():
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.5})
        gated.set_phase("switcher")
        gated(x).square().mean().backward()
        assert all(p.grad is None for p in model.parameters())
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in gated.scorer_parameters())
        for p in gated.scorer_parameters():
            p.grad = None
        gated.set_phase("network")
        gated(x).square().mean().backward()
        assert all(p.grad is None for p in gated.scorer_parameters())
        assert all(p.grad is not None for p in model.parameters())
        with pytest.raises(ConfigError):
            gated.set_phase("both-of-them")


def test_network_gradient_through_the_switcher_differs_from_held_scales():
    _, model, x = make_network("digits_cnn")
    found = {}
    for gradient in ("through", "held"):
        with snnprune.attach(model, x, switcher="switcher") as gated:
            gated.set_phase("network", gradient=gradient)
            gated(x).square().mean().backward()
            found[gradient] = model.hidden[0].weight.grad.clone()
            model.zero_grad()
    assert not torch.allclose(found["through"], found["held"])
    assert torch.nn.functional.cosine_similarity(found["through"].flatten(), found["held"].flatten(), 0) > 0.5


def test_scales_follow_every_optimiser_step():
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        gated.set_phase("switcher")
        before = gated.scales
        optimizer = torch.optim.SGD(gated.scorer_parameters(), lr=0.1)
        gated(x).square().mean().backward()
        optimizer.step()
        after = gated.scales
    assert any(not torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_scorer_runs_once_for_many_batches(off, monkeypatch):
    _, model, x = make_network("digits_cnn")
    with snnprune.attach(model, x) as gated:
        calls = []
        original = gated.scorer.forward
        monkeypatch.setattr(gated.scorer, "forward", lambda m: calls.append(1) or original(m))
        with off():
            outputs = [gated(x) for _ in range(3)]
        assert len(calls) == 1
        assert not any(o.requires_grad for o in outputs)
        assert not any(s.requires_grad for s in gated._scales.values())
        assert gated(x).requires_grad
        assert len(calls) == 2


def test_attaching_twice_and_using_after_detach_raise():
    _, model, x = make_network("digits_cnn")
    gated = snnprune.attach(model, x)
    with pytest.raises(AttachError):
        snnprune.attach(model, x)
    with pytest.raises(ConfigError, match="detach"):
        snnprune.optimize(model, [(x, torch.zeros(4).long())])
    gated.detach()
    gated.detach()
    with pytest.raises(AttachError):
        gated(x)
    snnprune.attach(model, x).detach()


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
            gated.scorer.offsets[0].sub_(10)
        with pytest.raises(CollapsedLayerError, match=r"features\.0"):
            gated(x)


def test_export_refuses_a_gated_model(tmp_path):
    _, model, x = make_network("digits_cnn")
    model, x = model.float(), x.float()
    with snnprune.attach(model, x), pytest.raises(ExportError, match="hooks"):
        export_onnx(model, tmp_path / "m.onnx", x)
    assert not list(tmp_path.iterdir())


def test_a_module_called_twice_is_either_exact_or_refused():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.again, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.again(torch.relu(self.again(torch.relu(self.first(x))))))

    torch.manual_seed(0)
    model, x = Twice().double(), torch.randn(4, 6, dtype=torch.float64)
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.7})
        assert relative_difference(gated(x), gated.compact()(x)) <= 1e-10


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


@pytest.mark.parametrize("name", ["lenet5_caffe", "resnet20", "mobilenet_v1_025", "digits_cnn", "mlp"])
def test_scaled_weights_and_scaled_inputs_are_one_function(name):
    """Called through the gates, cheap layers scale their weights; called by itself, the model scales inputs."""
    _, model, _ = make_network(name)
    x = torch.randn(70, *make_network(name)[2].shape[1:], dtype=torch.float64)
    own = []
    with snnprune.attach(model, x[:2]) as gated:
        gated.set_budget({"params": 0.5})
        found = []
        for call in (gated, model):
            handles = [
                m.register_forward_hook(lambda m, _x, _y: own.append(m.weight.is_leaf), prepend=True)
                for m in model.modules()
                if isinstance(m, (nn.Conv2d, nn.Linear))
            ]
            model.train()
            output = call(x)
            for handle in handles:
                handle.remove()
            every = [*model.parameters(), *gated.scorer_parameters()]
            grads = torch.autograd.grad(output.square().mean(), every, allow_unused=True)
            found.append([output, *[torch.zeros(()) if g is None else g for g in grads]])
        for one, other in zip(*found, strict=True):
            assert relative_difference(one, other) <= 1e-9
        assert all(p.is_leaf for p in model.parameters())
    if name != "mlp":
        half = len(own) // 2
        assert not all(own[:half]), "no layer scaled its weight: the test shows nothing"
        assert all(own[half:])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_weights_are_the_users_own_again_whatever_ends_a_call(error):
    _, model, _ = make_network("lenet5_caffe")
    x = torch.randn(64, 1, 28, 28, dtype=torch.float64)
    own = dict(model.named_parameters())

    def fail(*_args):
        assert not model.conv2.weight.is_leaf
        raise error

    with snnprune.attach(model, x[:2]) as gated:
        handle = model.conv2.register_forward_hook(fail, prepend=True)
        with pytest.raises(error):
            gated(x)
        handle.remove()
        now = dict(model.named_parameters())
        assert all(now[n] is p for n, p in own.items())
        assert list(now) == list(own)


@pytest.mark.parametrize("name", ["lenet5_caffe", "digits_cnn"])
def test_the_switcher_stays_in_full_precision_under_autocast(name):
    _, model, x = make_network(name)
    model, x = model.float(), x.float()
    with snnprune.attach(model, x) as gated:
        gated.set_budget({"params": 0.5})
        plain = gated.scales
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = gated(x)
        output.float().square().mean().backward()
        assert all(torch.equal(plain[n], s) for n, s in gated.scales.items())
        assert all(s.dtype == torch.float32 for s in gated._scales.values())
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_checkpointing_repeats_a_forward_with_the_same_side_scaled():
    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)

        def forward(self, x):
            x = torch.relu(self.first(x))
            x = checkpoint(lambda t: torch.relu(self.second(t)), x, use_reentrant=False)
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    model, x = Saving().double(), torch.randn(32, 1, 12, 12, dtype=torch.float64)
    found = []
    with snnprune.attach(model, x[:2], switcher="switcher") as gated:
        for call in (gated, model):
            call(x).square().mean().backward()
            found.append([p.grad.clone() for p in [*model.parameters(), *gated.scorer_parameters()]])
            for p in [*model.parameters(), *gated.scorer_parameters()]:
                p.grad = None
    assert relative_difference(*found) <= 1e-10
