"""Weights in all their wrappings find their architecture, or what does not fit is listed."""

from __future__ import annotations

import pytest
import torch
from conftest import DIGITS, SMALL, same_state
from torch import Tensor

from registry.conftest import digits, refused
from snnprune.registry import build, load_model, match


def dressed(state: dict[str, Tensor], how: str) -> object:
    if how == "module.":
        return {f"module.{k}": v for k, v in state.items()}
    if how in ("state_dict", "model_state_dict", "model"):
        return {how: state, "epoch": 3, "optimizer": {"lr": 0.1}}
    if how == "state_dict of DataParallel":
        return {"state_dict": {f"module.{k}": v for k, v in state.items()}}
    if how == "before PyTorch 0.4.1":
        return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert how == "plain"
    return state


@pytest.mark.parametrize(
    "how",
    [
        "plain",
        "module.",
        "state_dict",
        "model_state_dict",
        "model",
        "state_dict of DataParallel",
        "before PyTorch 0.4.1",
    ],
)
def test_a_state_dict_is_found_in_what_people_save(tmp_path, small, how, monkeypatch):
    monkeypatch.setattr(match, "torchvision_names", lambda: (SMALL, "mobilenet_v3_large"))  # for speed
    torch.save(dressed(small.state_dict(), how), tmp_path / "w.pth")
    loaded = load_model(tmp_path / "w.pth")
    assert (loaded.arch, loaded.kwargs) == (SMALL, {"num_classes": 7})
    assert same_state(loaded.model, small)
    assert not loaded.model.training


def test_num_classes_is_read_off_the_weights_of_code_too(tmp_path):
    torch.save(build(DIGITS, 4).state_dict(), tmp_path / "w.pt")
    loaded = load_model(tmp_path / "w.pt", arch=DIGITS)
    assert loaded.kwargs == {"num_classes": 4}
    assert loaded.model.classifier.out_features == 4
    refused(
        tmp_path / "w.pt",
        "does not fit",
        "classifier.weight is (4, 56) in the file, (10, 56) in the model",
        arch=DIGITS,
        num_classes=10,
    )


def test_what_does_not_fit_the_named_architecture_is_listed(tmp_path):
    state = digits().state_dict()
    state["extra"] = state.pop("features.0.weight")
    torch.save(state, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "does not fit", "features.0.weight is missing", "extra is unknown", arch=DIGITS)
    torch.save(digits().state_dict(), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "does not fit resnet18", "more", arch="resnet18")


def test_a_whole_model_gives_its_weights_to_a_named_architecture(tmp_path, small):
    torch.save(small, tmp_path / "w.pt")
    loaded = load_model(tmp_path / "w.pt", arch=SMALL)
    assert (loaded.arch, loaded.kwargs) == (SMALL, {"num_classes": 7})
    assert same_state(loaded.model, small)
