"""Model files of both kinds, and files that hold no model or a damaged one."""

from __future__ import annotations

import pytest
import torch
from conftest import DIGITS, same_state
from safetensors.torch import save_file
from torch import nn

from registry.conftest import digits, refused
from snnprune.registry import load_model


def test_both_kinds_of_files_give_the_same_model(tmp_path):
    model = digits()
    torch.save(model.state_dict(), tmp_path / "new.pt")
    torch.save(model.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    for name in ("new.pt", "old.pt", "w.safetensors"):
        assert same_state(load_model(tmp_path / name, arch=DIGITS).model, model), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    state = digits().state_dict()
    state["hidden.0.bias"][3] = value
    torch.save(state, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "hidden.0.bias holds NaN or infinite values", arch=DIGITS)
    whole = nn.Sequential(nn.Linear(3, 2))
    whole[0].weight.data[0, 0] = value
    torch.save(whole, tmp_path / "whole.pt")
    refused(tmp_path / "whole.pt", "0.weight holds NaN or infinite values")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list"),
        ({}, "holds dict"),
        ({"epoch": 3}, "'epoch': int"),
        ({1: torch.ones(2)}, "1: Tensor"),
        (torch.ones(3), "holds Tensor"),
    ],
    ids=["list", "empty", "number", "key", "tensor"],
)
def test_files_that_hold_no_model(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", message)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_damaged_files_are_refused(tmp_path, name):
    path = tmp_path / name
    refused(path, "there is no file")
    path.write_bytes(b"")
    refused(path, "is empty")
    good = tmp_path / f"good-{name}"
    if name == "w.pt":
        torch.save(digits().state_dict(), good)
    else:
        save_file(digits().state_dict(), good)
    data = good.read_bytes()
    for damaged in (data[: len(data) // 2], data[:10], bytes(range(256)) * 40, b"some text, not a model"):
        path.write_bytes(damaged)
        text = refused(path, arch=DIGITS)
        assert "damaged" in text or "no readable safetensors" in text
        assert "\n" not in text
    path.unlink()
    path.mkdir()
    refused(path, "is a folder")
