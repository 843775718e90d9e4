"""Pickles: code in them never runs, and only torchvision's classes need no trust."""

from __future__ import annotations

import pickle

import pytest
import torch
from conftest import DIGITS, SMALL, Explosive, same_state
from torch import Tensor, nn
from torchvision import models

from registry.conftest import refused
from snnprune.errors import ModelFileError
from snnprune.registry import build, load_model
from snnprune.registry.files import read_model_file


class UserNet(nn.Module):
    """A class that no list of allowed ones can hold."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).amax((2, 3)))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", [False, True], ids=["bare", "in a state dict"])
def test_code_in_a_pickle_never_runs_and_is_named(tmp_path, zipped, wrap):
    marker = tmp_path / "ran"
    path = tmp_path / "w.pt"
    content = Explosive(marker)
    torch.save(
        {"state_dict": {"weight": content}} if wrap else content, path, _use_new_zipfile_serialization=zipped
    )
    refused(path, "exec", "--trust-pickle")
    refused(path, "exec", "--trust-pickle", arch=DIGITS)
    assert not marker.exists()
    with pytest.raises(ModelFileError):  # nothing useful is in it, but now it has run
        read_model_file(path, trust_pickle=True)
    assert marker.exists()


def test_a_plain_pickle_does_not_run_either(tmp_path):
    marker = tmp_path / "ran"
    for protocol in (2, 5):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(Explosive(marker), protocol=protocol))
        refused(tmp_path / "w.pkl")
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_whole_model_of_a_class_of_ones_own_must_be_trusted(tmp_path, zipped):
    path = tmp_path / "w.pt"
    model = UserNet().eval()
    torch.save(model, path, _use_new_zipfile_serialization=zipped)
    refused(path, f"{UserNet.__module__}.UserNet", "--trust-pickle", "state_dict()")
    loaded = load_model(path, trust_pickle=True)
    assert isinstance(loaded.model, UserNet)
    assert loaded.arch is None
    assert same_state(loaded.model, model)


@pytest.mark.parametrize(
    "name", [SMALL, "squeezenet1_1", "resnet18", "efficientnet_b0", "shufflenet_v2_x0_5", "mnasnet0_5"]
)
def test_whole_torchvision_models_are_allowed(tmp_path, name):
    torch.manual_seed(0)
    model = build(name, 10).eval()
    torch.save(model, tmp_path / "w.pt")
    loaded = load_model(tmp_path / "w.pt")
    assert type(loaded.model) is type(model)
    assert loaded.arch is None
    assert same_state(loaded.model, model)


def test_no_class_that_runs_code_while_loading_is_allowed():
    from snnprune.registry.allowed import allowed_classes

    found = allowed_classes()
    assert nn.Conv2d in found
    assert models.ResNet in found
    assert all(issubclass(c, nn.Module) or c is models.vision_transformer.ConvStemConfig for c in found)
    assert not any(issubclass(c, (torch.fx.GraphModule, torch.jit.ScriptModule)) for c in found)
