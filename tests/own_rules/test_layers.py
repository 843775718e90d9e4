"""Layers of the user's own with a rule: followed, cut exactly, priced, saved, exported."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snnprune
from own_rules.conftest import (
    Affine,
    Blur,
    ConvReLU,
    Deeper,
    LinearLike,
    Mixing,
    PointConv,
    Tint,
    TurnedLinear,
    X,
    exact,
    members,
    net,
)
from snnprune.errors import StructureError
from snnprune.metrics import count_macs, count_params
from snnprune.proof import random_scales
from snnprune.surgery import fold_, remove_


@pytest.mark.parametrize("seed", range(3))
def test_a_layer_per_channel(rules, seed):
    group = exact(net(Tint(16)), seed)["0"]
    assert (group.size, group.rules) == (16, ("Tint",))
    assert members(group) == {("0", "producer"), ("1", "between"), ("3", "between"), ("6", "consumer")}


def test_a_layer_per_channel_with_multiply_adds_and_another_size_of_images(rules):
    model = net(Blur(16)).double()
    group = exact(model, 0)["0"]  # costs as predicted included
    assert (group.size, group.rules) == (16, ("Blur",))
    with snnprune.attach(model, X, switcher=None, input_neurons=False) as gated:
        assert gated.cost.dense["macs"] == 25 * 27 * 16 + 9 * 9 * 16 + 64 * 4
        gated.set_scales({"0": (torch.arange(16) % 4 > 0).double()})
        assert count_macs(gated.compact(), X) == 25 * 27 * 12 + 9 * 9 * 12 + 48 * 4


def test_what_is_cut_of_a_layer_per_channel(rules):
    model = net(Tint(16)).double()
    groups = snnprune.trace(model, X, input_neurons=False)
    hue = model[3].hue.detach().copy_(torch.arange(16.0))
    scale = torch.ones(16).index_fill_(0, torch.tensor([1, 5]), 0.0)
    small = remove_(model, groups, {"0": scale})[3]
    stay = [c for c in range(16) if c not in (1, 5)]
    assert torch.equal(small.hue, hue[stay])
    assert (tuple(small.shade.shape), tuple(small.seen.shape), small.colours) == ((1, 14, 1), (14,), 14)
    assert tuple(small.warmth.shape) == (1,), "what the rule does not name stays"


@pytest.mark.parametrize("seed", range(3))
def test_a_convolution_with_a_kernel_of_its_own_order(rules, seed):
    groups = exact(nn.Sequential(PointConv(3, 16), PointConv(16, 12), nn.Conv2d(12, 4, 1)), seed)
    assert members(groups["0"]) == {("0", "producer"), ("1", "consumer")}
    assert members(groups["1"]) == {("1", "producer"), ("2", "consumer")}
    assert groups["1"].rules == ("PointConv",)


def test_costs_of_a_layer_of_ones_own_by_hand(rules):
    model = nn.Sequential(PointConv(3, 16), PointConv(16, 12), nn.Conv2d(12, 4, 1)).double()
    with snnprune.attach(model, X, switcher=None, input_neurons=False) as gated:
        assert gated.cost.dense == {"macs": 25 * (3 * 16 + 16 * 12 + 12 * 4), "params": 64 + 204 + 52}
        first, second = torch.ones(16), torch.ones(12)
        first[:6], second[:2] = 0.0, 0.0
        gated.set_scales({"0": first, "1": second})
        small = gated.compact()
    assert [(m.fan_in, m.fan_out) for m in small[:2]] == [(3, 10), (10, 10)]
    assert count_params(small) == 3 * 10 + 10 + 10 * 10 + 10 + 10 * 4 + 4
    assert count_macs(small, X) == 25 * (3 * 10 + 10 * 10 + 10 * 4)


@pytest.mark.parametrize("seed", range(3))
def test_a_linear_layer_with_two_turned_weights(rules, seed):
    x = torch.randn(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    groups = exact(nn.Sequential(nn.Linear(10, 16), nn.ReLU(), TurnedLinear(16, 12), nn.Linear(12, 4)), seed, x)
    assert {"0", "2"} <= {g.id for g in groups.values() if g.prunable}


def test_scales_are_folded_into_every_weight_that_reads(rules):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), TurnedLinear(2, 4), nn.Linear(4, 4)).double()
    before = copy.deepcopy(model[1])
    fold_(model, snnprune.trace(model, torch.randn(2, 3).double()), {"0": torch.tensor([2.0, 1.0])})
    assert torch.equal(model[1].w, before.w * torch.tensor([[2.0], [1.0]]))
    assert torch.equal(model[1].gate, before.gate * torch.tensor([[2.0, 1.0]]))
    assert torch.equal(model[1].b, before.b)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("parts", [1, 4])
def test_like_a_convolution(rules, seed, parts):
    groups = exact(net(ConvReLU(16, 16, parts), ConvReLU(3, 16)), seed)
    assert groups["0"].prunable
    assert groups["0"].size == (16 if parts == 1 else 4)
    assert ("3", "consumer" if parts == 1 else "between") in members(groups["0"])


def test_what_is_like_a_linear_layer_may_lack_its_attributes(rules):
    x = torch.randn(6, 10, dtype=torch.float64)
    groups = exact(nn.Sequential(LinearLike(10, 16), LinearLike(16, 12), nn.Linear(12, 4)), 0, x)
    assert groups["0"].prunable
    assert groups["1"].prunable


class Rounded(nn.Conv2d):
    """Weights of whole steps, of which the largest one sets the size: no scale can be folded into that."""

    def forward(self, x: Tensor) -> Tensor:
        step = self.weight.abs().max() / 7
        return self._conv_forward(x, (self.weight / step).round() * step, self.bias)


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_a_class_that_derives_from_pytorchs_may_have_another_rule(rules, metric):
    """One that mixes stays whole, and so do its costs."""
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), Rounded(8, 8, 3), nn.Conv2d(8, 4, 1))
    with snnprune.register_layer(Rounded, mixes="its largest weight sets the step"):
        groups = exact(model, 0)
        assert groups["2"].reason == "its largest weight sets the step (3)"
        assert [g.id for g in groups.values() if g.prunable] == ["0"]
        with snnprune.attach(model, X, switcher=None) as gated:
            assert 0 < gated.cost.prunable_share(metric) < 0.5


class Doubled(nn.Linear):
    """A linear layer with a second weight, and names of its own for both."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(fan_in, fan_out)
        self.more = nn.Parameter(torch.randn(fan_in, fan_out))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (x @ self.more)


@pytest.mark.parametrize("seed", range(3))
def test_a_linear_layer_with_more_weights_than_pytorchs(seed, tmp_path):
    x = torch.randn(6, 10, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), Doubled(16, 12), nn.Linear(12, 4))
    outputs = {"weight": 0, "more": 1, "bias": 0}
    with snnprune.register_layer(Doubled, inputs={"weight": 1, "more": 0}, outputs=outputs):
        groups = exact(model, seed, x)
        assert groups["0"].prunable
        assert groups["2"].prunable
        fresh = copy.deepcopy(model)
        small = remove_(model, list(groups.values()), {"0": (torch.arange(16) % 3 > 0).double()})
        snnprune.save(
            small, tmp_path / "run"
        )  # its attributes are not named by the rule, so they stay as they were
        assert torch.equal(snnprune.load(tmp_path / "run", model=fresh)(x), small(x))


class Holder(nn.Module):
    """A layer with a rule that has a layer inside, which is not looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_a_layer_inside_one_with_a_rule_is_not_said_to_be_idle(caplog):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Holder(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)).double()
    with snnprune.register_layer(Holder, mixes="it is closed"):
        groups = {g.id: g for g in snnprune.trace(model, X)}
    assert groups["0"].reason == "it is closed (1)"
    assert groups["2"].prunable
    assert "did not run" not in caplog.text


def test_a_layer_that_mixes_channels_keeps_them_and_says_why(rules):
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Mixing(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)).double()
    groups = {g.id: g for g in snnprune.trace(model, X)}
    assert groups["0"].reason == "it subtracts the mean of all channels (1)"
    assert groups["2"].prunable


def test_without_a_rule_nothing_of_the_layer_goes():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Affine(8, 8), nn.Conv2d(8, 4, 1)).double()
    groups = {g.id: g for g in snnprune.trace(model, X)}
    assert groups["0"].reason == "the weights of 1.kernel are used outside the call of a layer"
    assert groups["0"].rules == ()


def test_a_rule_holds_for_subclasses_and_ends_with_its_block():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Deeper(8, 8), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)).double()
    sizes = {"fan_in": "inputs", "fan_out": "outputs"}
    description = {"inputs": {"kernel": 0}, "outputs": {"kernel": 1, "shift": 0}, "sizes": sizes, "axis": 1}
    with snnprune.register_layer(PointConv, **description) as rule:
        assert repr(rule) == "<rule for PointConv>"
        groups = {g.id: g for g in snnprune.trace(model, X)}
        assert groups["0"].prunable
        assert groups["0"].rules == ("PointConv",)
        with snnprune.register_layer(Deeper, mixes="it is deep"):  # the rule of the nearest class counts
            assert {g.id: g.reason for g in snnprune.trace(model, X)}["0"] == "it is deep (1)"
        assert {g.id: g.reason for g in snnprune.trace(model, X)}["0"] is None
    rule.remove()
    assert repr(rule) == "<rule for PointConv, removed>"
    told = {g.id: g for g in snnprune.trace(model, X)}["0"]  # by what it computes
    assert (told.prunable, told.rules) == (True, ())


def network() -> nn.Module:
    return nn.Sequential(
        ConvReLU(3, 16), Tint(16), PointConv(16, 12), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 4)
    )


def small() -> nn.Module:
    torch.manual_seed(0)
    model = network().double().eval()
    with snnprune.attach(model, X, switcher=None, input_neurons=False) as gated:
        gated.set_scales(random_scales(gated.groups, torch.Generator().manual_seed(0)))
        return gated.compact()


def test_saved_and_loaded_and_exported(rules, tmp_path):
    model = small()
    assert model[0].out_channels == model[1].colours == model[2].fan_in == 11
    snnprune.save(model, tmp_path / "run")
    again = snnprune.load(tmp_path / "run", model=network().double())
    assert [m.colours for m in again if isinstance(m, Tint)] == [11]
    assert torch.equal(again(X), model(X))
    snnprune.export_onnx(model.float(), tmp_path / "model.onnx", example_inputs=X.float())


def test_a_file_without_its_rules_says_which_is_missing(rules, tmp_path, monkeypatch):
    snnprune.save(small(), tmp_path / "run")
    from snnprune.layers import table

    monkeypatch.delitem(table._KINDS, Tint)
    table._FOUND.clear()
    with pytest.raises(StructureError, match=r"no rule says where a Tint has its channels. Register the rule"):
        snnprune.load(tmp_path / "run", model=network().double())
    monkeypatch.undo()
    table._FOUND.clear()
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), Tint(4)).double()
    with monkeypatch.context() as patch:
        patch.delitem(table._KINDS, Tint)
        table._FOUND.clear()
        snnprune.save(plain, tmp_path / "plain")
    table._FOUND.clear()
    with pytest.raises(StructureError, match=r"when it was saved, there was no rule for Tint. Remove the rule"):
        snnprune.load(tmp_path / "plain", model=plain)


@pytest.mark.parametrize("config", [{"macs": 0.4}, {"params": 0.4}])
def test_end_to_end_on_digits(rules, config, tmp_path):
    torch.manual_seed(0)
    train, val, test = snnprune.load_data("digits", batch_size=64)
    model = nn.Sequential(
        ConvReLU(1, 16),
        Tint(16),
        nn.MaxPool2d(2),
        PointConv(16, 32),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    for part in (model[0].weight, model[3].kernel):
        nn.init.kaiming_normal_(part, mode="fan_out" if part.dim() == 2 else "fan_in")
    adam = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(6):
        for images, labels in train:
            adam.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            adam.step()
    result = snnprune.optimize(model, train, val, snnprune.PruneConfig(target=config, epochs=4))
    ((metric, share),) = config.items()
    dense, compact = (getattr(part, metric) for part in (result.report.dense, result.report.compact))
    assert 0.3 * dense < compact <= share * dense
    assert result.report.compact.accuracy > 0.85
    assert result.report.exactness["remove"] <= 1e-10
    result.save(tmp_path / "run")
    images = next(iter(test))[0]
    again = snnprune.load(tmp_path / "run", model=copy.deepcopy(model))
    assert torch.equal(again(images), result.model.eval()(images))
    assert (again[1].colours, again[3].fan_out) < (16, 32)
