"""An architecture is found by the names and shapes of its weights."""

from __future__ import annotations

import pytest
import torch
from conftest import SMALL
from torch import nn

from registry.conftest import digits
from snnprune.errors import ModelFileError
from snnprune.registry import build, load_model, match
from snnprune.registry.match import find_architecture, fit, recognise


def test_resnet18_is_found_with_another_number_of_classes():
    state = build("resnet18", 7).state_dict()
    assert find_architecture(state) == ("resnet18", {"num_classes": 7})


def test_the_number_of_classes_can_be_demanded(small):
    assert find_architecture(small.state_dict(), 7) == (SMALL, {"num_classes": 7})
    with pytest.raises(ModelFileError, match=rf"those of {SMALL} with 7 outputs, not 8 \(--num-classes\)\. Leave"):
        find_architecture(small.state_dict(), 8)


@pytest.mark.parametrize("name", ["squeezenet1_1", "shufflenet_v2_x0_5", SMALL])
def test_an_architecture_is_told_from_its_relatives(name):
    assert find_architecture(build(name, 10, meta=True).state_dict()) == (name, {"num_classes": 10})


def test_a_model_with_the_published_classes_needs_no_argument():
    assert find_architecture(build("squeezenet1_1", meta=True).state_dict()) == ("squeezenet1_1", {})


def test_auxiliary_heads_are_found():
    without = build("googlenet", 5, meta=True, aux_logits=False).state_dict()
    assert fit("googlenet", without) == ({"aux_logits": False, "num_classes": 5}, [])


def test_several_architectures_ask_for_a_choice(monkeypatch, small):
    monkeypatch.setattr(match, "torchvision_names", lambda: (SMALL, "resnet18", SMALL))
    with pytest.raises(ModelFileError, match=rf"several architectures \({SMALL}, {SMALL}\).*--arch"):
        find_architecture(small.state_dict())


def test_a_foreign_state_dict_fits_nothing(tmp_path):
    torch.save(digits().state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelFileError, match=r"fits no torchvision classifier.*--arch"):
        load_model(tmp_path / "w.pt")


def test_a_state_dict_of_another_width_is_no_match(small):
    state = dict(small.state_dict())
    name = next(k for k, v in state.items() if v.dim() == 4)
    state[name] = torch.cat([state[name], state[name]])
    with pytest.raises(ModelFileError, match="fits no torchvision classifier"):
        find_architecture(state)


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_a_whole_model_of_torchvision_is_recognised(arch):
    assert recognise(build(arch, 7)) == (arch, {"num_classes": 7})


def test_a_classifier_that_was_put_in_place_is_a_number_of_classes():
    model = build("shufflenet_v2_x0_5")
    model.fc = nn.Linear(1024, 3)
    assert recognise(model) == ("shufflenet_v2_x0_5", {"num_classes": 3})


@pytest.mark.parametrize("transform", [True, False])
def test_what_published_weights_do_to_the_input_is_recognised(transform):
    model = build("googlenet", meta=True, transform_input=transform, aux_logits=False)
    assert recognise(model) == ("googlenet", {"aux_logits": False, "transform_input": transform})


def _strided(model):
    model.conv1[0].stride = (1, 1)


def _other_rate(model):
    model.fc = nn.Sequential(nn.Dropout(0.5), model.fc)


def _other_activation(model):
    model.conv1[2] = nn.LeakyReLU(0.1)


def _hooked(model):
    model.conv1.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize("change", [_strided, _other_rate, _other_activation, _hooked])
def test_a_model_that_was_changed_is_not_taken_for_torchvisions(change):
    model = build("shufflenet_v2_x0_5", 7)
    change(model)
    assert recognise(model) is None


def test_networks_of_others_are_not_even_compared(monkeypatch):
    monkeypatch.setattr(match, "torchvision_names", lambda: pytest.fail("nothing is to be built"))
    assert recognise(nn.Sequential(nn.Linear(3, 2))) is None
