"""Rules that are wrong, or no rules at all: refused, or the group is kept and says by whose rule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import snnprune
from own_rules.conftest import (
    Affine,
    Backwards,
    ConvReLU,
    Largest,
    PointConv,
    Tint,
    TwoInputs,
    X,
    net,
)
from snnprune.errors import ConfigError


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"channels": {"hue": 0, "shade": 1}}, "perhaps the rule for Tint is wrong"),  # forgets a buffer
        (
            {"channels": {"hue": 0, "shade": 1, "seen": 0}},
            "perhaps the rule for Tint is wrong",
        ),  # and the attribute
        ({"channels": {"hue": 0}, "axis": 2}, "the rule for Tint (3) says that dimension 2 of its input has 16"),
    ],
)
def test_a_layer_that_is_not_what_its_rule_says_is_kept_and_the_reason_names_the_rule(rule, why):
    with snnprune.register_layer(Tint, **rule), pytest.raises(snnprune.SnnPruneError) as error:
        snnprune.trace(net(Tint(16)), X.float(), input_neurons=False)
    assert why in str(error.value)


@pytest.mark.parametrize("seed", range(3))
def test_a_parameter_that_is_constant_hides_no_lie(seed):
    torch.manual_seed(seed)
    with snnprune.register_layer(Backwards, channels={"gamma": 0}, sizes=["width"]):
        model = nn.Sequential(nn.Conv2d(3, 8, 1), Backwards(8), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
        groups = {g.id: g for g in snnprune.trace(model.double(), X)}
    assert groups["0"].reason.endswith("; perhaps the rule for Backwards is wrong")


@pytest.mark.parametrize("seed", range(3))
def test_lies_of_every_kind_are_found(seed):
    torch.manual_seed(seed)
    with (
        snnprune.register_layer(Largest, channels={"scale": 0}),
        snnprune.register_layer(
            Affine,
            inputs={"kernel": 0},
            outputs={"kernel": 1, "shift": 0},
            sizes={"fan_in": "inputs", "fan_out": "outputs"},
            axis=1,
        ),
    ):
        largest = nn.Sequential(nn.Conv2d(3, 8, 1), Largest(8), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
        affine = nn.Sequential(nn.Conv2d(3, 8, 1), Affine(8, 8), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
        for model, rule in ((largest, "Largest"), (affine, "Affine")):
            groups = {g.id: g for g in snnprune.trace(model.double(), X)}
            assert "changes the output" in groups["0"].reason
            assert groups["0"].reason.endswith(f"; perhaps the rule for {rule} is wrong")
            assert groups["2"].prunable


def test_a_further_input_is_kept(rules):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
            self.tint = TwoInputs(8)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.tint(self.a(x), other=self.b(x)))

    groups = {g.id: g for g in snnprune.trace(Net().double(), X)}
    assert groups["a"].prunable
    assert groups["b"].reason == "tint takes it besides its input, and no rule says what becomes of it"


def test_recurrent_cells_are_cut_on_the_side_that_they_read():
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.h, self.cell = nn.Linear(3, 8), nn.Linear(3, 6), nn.GRUCell(8, 6)
            self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.cell(self.a(x), self.h(x))))

    groups = {g.id: g for g in snnprune.trace(Cell(), torch.rand(2, 3))}
    assert groups["a"].prunable
    assert not groups["h"].prunable
    assert groups["b"].prunable


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (Tint(3), {"channels": {"hue": 0}}, "Give its class, Tint"),
        (dict, {"channels": {"hue": 0}}, "must be a class that derives from torch.nn.Module"),
        (nn.Module, {"channels": {"hue": 0}}, "must be a class that derives from torch.nn.Module"),
        (Tint, {}, "give exactly one of like, channels, inputs with outputs, and mixes, not none"),
        (Tint, {"channels": {"hue": 0}, "mixes": "no"}, "not channels and mixes"),
        (Tint, {"outputs": {"hue": 0}}, "inputs=None must be a dict"),
        (Tint, {"inputs": {"hue": 0}}, "outputs=None must be a dict"),
        (Tint, {"channels": ["hue"]}, "channels=['hue'] must be a dict from names"),
        (Tint, {"channels": {}}, "channels={} must be a dict from names"),
        (Tint, {"channels": {"hue": -1}}, "counted from 0"),
        (Tint, {"channels": {"hue": True}}, "counted from 0"),
        (Tint, {"channels": {"hue": 0}, "axis": 1.0}, "axis=1.0 must be a whole number"),
        (Tint, {"channels": {"hue": 0}, "sizes": "colours"}, "sizes='colours' must be the names of attributes"),
        (Tint, {"channels": {"hue": 0}, "sizes": {"colours": "inputs"}}, "must be the names of attributes"),
        (Tint, {"mixes": " "}, "must be the reason, in words"),
        (PointConv, {"inputs": {"kernel": 0}, "outputs": {"kernel": 0}}, "so outputs must name another dimension"),
        (PointConv, {"inputs": {"kernel": 0}, "outputs": {"shift": 0}}, "so outputs must name another dimension"),
        (
            PointConv,
            {"inputs": {"kernel": 0}, "outputs": {"kernel": 1}, "sizes": ["fan_in"]},
            "must be a dict from attributes to inputs or outputs",
        ),
        (Tint, {"like": nn.ReLU}, "ReLU has no rule itself"),
        (Tint, {"like": "Conv2d"}, "like='Conv2d' must be a class"),
        (ConvReLU, {"like": nn.Conv2d, "sizes": {"in_channels": "inputs"}}, "sizes are those of the other class"),
        (nn.Conv2d, {"mixes": "it does"}, "Conv2d has a rule already"),
        (Tint, {"like": nn.GroupNorm}, "a rule knows nothing of a norm's groups"),
        (nn.BatchNorm2d, {"channels": {"weight": 0}}, "BatchNorm2d has a rule already"),
    ],
)
def test_nonsense_is_refused(cls, options, message):
    with pytest.raises(ConfigError) as error:
        snnprune.register_layer(cls, **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (Tint, {"channels": {"hues": 0}}, "names the tensor 'hues'; the layer has hue, shade, warmth, seen"),
        (Tint, {"channels": {"hue": 1}}, "names dimension 1 of 'hue', whose shape is (16,)"),
        (Tint, {"channels": {"hue": 0}, "sizes": ["width"]}, "names the attribute 'width', which is None"),
        (
            Tint,
            {"channels": {"hue": 0, "warmth": 0}},
            "its outputs are not of one number: 'hue' has 16, 'warmth' has 1",
        ),
        (Tint, {"like": nn.Conv2d}, "names the tensor 'weight'"),
    ],
)
def test_rules_are_compared_with_the_layers_that_they_are_for(cls, options, message):
    with snnprune.register_layer(cls, **options), pytest.raises(ConfigError) as error:
        snnprune.trace(net(Tint(16)), X.float())
    assert "the rule for Tint (3)" in str(error.value)
    assert message in str(error.value)


def test_a_class_has_one_rule(rules):
    with pytest.raises(ConfigError, match="Tint has a rule already"):
        snnprune.register_layer(Tint, mixes="it does")
