"""torchvision's networks with another classifier: recognised, built, saved and opened again."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import same_state
from torch import nn

from registry.conftest import refused
from snnprune.errors import ModelFileError
from snnprune.registry import build, load_model, match
from snnprune.registry.match import find_architecture, recognise


def drop(features: int, classes: int = 5) -> nn.Module:
    return nn.Sequential(nn.Dropout(0.3), nn.Linear(features, classes))


CHANGED = {
    "resnet18": ("fc", drop(512)),
    "shufflenet_v2_x0_5": ("fc", nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(1024, 3, bias=False))),
    "mobilenet_v2": ("classifier", nn.Linear(1280, 4)),
    "mobilenet_v3_small": ("classifier.3", drop(1024)),
    "efficientnet_b0": ("classifier.1", nn.Sequential(nn.Sequential(nn.Dropout(), nn.Linear(1280, 7)))),
    "densenet121": ("classifier", drop(1024)),
}


def changed(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = build(name)
    at, head = CHANGED[name]
    parent, _, last = at.rpartition(".")
    setattr(model.get_submodule(parent), last, head)
    return model.eval()


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_head_is_built(tmp_path, name):
    model = changed(name)
    torch.save({"model": model.state_dict()}, tmp_path / "w.pt")
    loaded = load_model(tmp_path / "w.pt")
    assert loaded.arch == name
    assert same_state(loaded.model, model)
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(loaded.model(x), model(x))
    again = build(name, **json.loads(json.dumps(loaded.kwargs)))
    assert again.state_dict().keys() == model.state_dict().keys()
    assert recognise(loaded.model) == (name, loaded.kwargs), "so a run of it opens by itself"


def test_its_number_of_classes_can_be_demanded(monkeypatch):
    monkeypatch.setattr(match, "torchvision_names", lambda: ("resnet18",))
    state = changed("resnet18").state_dict()
    assert find_architecture(state, 5) == (
        "resnet18",
        {"num_classes": 5, "head": {"at": "fc", "inside": "1", "bias": True}},
    )
    with pytest.raises(ModelFileError, match="those of resnet18 with 5 outputs, not 6"):
        find_architecture(state, 6)


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 5)),
        nn.Sequential(nn.BatchNorm1d(512), nn.Linear(512, 5)),
        nn.Sequential(nn.Linear(256, 5)),
    ],
    ids=["two layers", "with a norm", "other features"],
)
def test_of_what_is_not_told_by_weights_no_guess_is_made(tmp_path, head):
    model = build("resnet18")
    model.fc = head
    torch.save(model.state_dict(), tmp_path / "w.pt")
    said = refused(tmp_path / "w.pt", "fits no torchvision classifier", "--arch file.py:function")
    assert "the nearest is resnet18, but fc.weight is missing" in said


def test_the_nearest_is_named_with_its_differences(tmp_path):
    model = build("resnet18", 10)
    model.layer1[0].conv1 = nn.Conv2d(64, 64, 5, padding=2, bias=False)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    refused(
        tmp_path / "w.pt",
        "the nearest is resnet18, but layer1.0.conv1.weight is (64, 64, 5, 5) in the file, (64, 64, 3, 3) in the",
    )
    torch.save({"a.weight": torch.zeros(11_000_000)}, tmp_path / "w.pt")
    assert "the nearest" not in refused(tmp_path / "w.pt", "fits no torchvision classifier")


@pytest.mark.parametrize(
    "head",
    [
        {"at": "layer1", "inside": "1", "bias": True},
        {"at": "fc", "inside": "99999999", "bias": True},
        {"at": "fc", "inside": "0.0.0.0.0", "bias": True},
        {"at": "fc", "inside": "__class__", "bias": 1},
        {"at": "fc", "inside": ["1"], "bias": True},
        {"at": "fc"},
        "fc",
    ],
)
def test_heads_of_a_file_that_are_none(head):
    with pytest.raises(ModelFileError, match="classifier"):
        build("resnet18", 5, meta=True, head=head)
