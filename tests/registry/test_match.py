"""An architecture is found by the names and shapes of its weights."""

from __future__ import annotations

import pytest
import torch
from conftest import SMALL

from registry.conftest import digits
from snnprune.errors import ModelFileError
from snnprune.registry import build, load_model, match
from snnprune.registry.match import find_architecture, fit


def test_resnet18_is_found_with_another_number_of_classes():
    state = build("resnet18", 7).state_dict()
    assert find_architecture(state) == ("resnet18", {"num_classes": 7})


def test_the_number_of_classes_can_be_demanded(small):
    assert find_architecture(small.state_dict(), 7) == (SMALL, {"num_classes": 7})
    with pytest.raises(ModelFileError, match="fits no torchvision classifier"):
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
