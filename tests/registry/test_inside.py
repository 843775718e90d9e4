"""Weights wherever a training script has put them, and what stands beside them."""

from __future__ import annotations

import argparse
import copy
import logging
from collections import OrderedDict
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from conftest import DIGITS, same_state
from torch import nn

from registry.conftest import digits, refused
from snnprune.registry import load_model


def other(seed: int = 9) -> nn.Module:
    """The same network with other weights."""
    torch.manual_seed(seed)
    model = digits()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


def optimizer_of(model: nn.Module) -> dict:
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


BESIDE = {
    "epoch": 3,
    "best_acc": np.float64(0.91),
    "count": np.int64(4),
    "single": np.float32(0.5),
    "args": argparse.Namespace(lr=0.1, data="photos", sizes=[1, 2], nested={"a": None}),
    "rng_state": torch.get_rng_state(),
    "where": PurePosixPath("runs/1"),
    "lr_scheduler": {"last_epoch": 3, "_last_lr": [0.1]},
    "scaler": {"scale": 2.0},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "put",
    [
        *(
            lambda state, key=key: {key: state}
            for key in (
                "model",
                "net",
                "weights",
                "network",
                "state_dict",
                "ema",
                "model_ema",
                "generator",
                "params",
            )
        ),
        lambda state: {"models": {"student": state}},
        lambda state: {"model_ema": {"module": state, "decay": 0.99, "updates": 7}},
        lambda state: {"net": {f"module.{k}": v for k, v in state.items()}},
        lambda state: {
            "state_dict": {f"model.{k}": v for k, v in state.items()},
            "pytorch-lightning_version": "2",
        },
        lambda state: {"net": {**state, "n_averaged": torch.tensor(3)}},
        lambda state: {"model": {**state, "total_ops": torch.zeros(1), "features.0.total_params": torch.zeros(1)}},
    ],
)
def test_the_only_state_dict_is_found_wherever_it_lies(tmp_path, put, zipped):
    model = other()
    content = {**BESIDE, "optimizer": optimizer_of(copy.deepcopy(model)), **put(model.state_dict())}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    loaded = load_model(tmp_path / "w.pt", arch=DIGITS)
    assert same_state(loaded.model, model)


def test_what_stands_beside_weights_runs_none_of_its_own_code(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(argparse.Namespace, "__setattr__", lambda *a: called.append(a))
    monkeypatch.setattr(argparse.Namespace, "__init__", lambda *a, **k: called.append(a))
    args = argparse.Namespace.__new__(argparse.Namespace)
    args.__dict__["lr"] = 1
    torch.save({"model": digits().state_dict(), "args": args, "acc": np.float64(1)}, tmp_path / "w.pt")
    load_model(tmp_path / "w.pt", arch=DIGITS)
    assert not called


class Other:
    """A class of a training script."""


def test_any_other_class_is_refused_as_before(tmp_path):
    for value in (Other(), argparse.ArgumentParser, np.arange(3), {"a": [Other()]}):
        torch.save({"model": digits().state_dict(), "args": value}, tmp_path / "w.pt")
        refused(tmp_path / "w.pt", "loading it can run code", arch=DIGITS)
    inside = argparse.Namespace(x=Other())
    torch.save({"model": digits().state_dict(), "args": inside}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "Other", arch=DIGITS)


@pytest.mark.parametrize(
    "entries",
    [
        ("model", "ema"),
        ("model", "model_ema"),
        ("params", "params_ema"),
        ("net", "swa"),
        ("state_dict", "ema_state_dict"),
    ],
)
def test_an_averaged_copy_is_taken_only_when_asked_for(tmp_path, entries, caplog):
    one, averaged = other(), other(seed=4)
    torch.save({entries[1]: averaged.state_dict(), entries[0]: one.state_dict()}, tmp_path / "w.pt")
    with caplog.at_level(logging.INFO, "snnprune.registry"):
        assert same_state(load_model(tmp_path / "w.pt", arch=DIGITS).model, one)
    assert f"of the entry {entries[0]}; not used: {entries[1]} (--entry)" in caplog.text
    assert same_state(load_model(tmp_path / "w.pt", arch=DIGITS, entry=entries[1]).model, averaged)
    refused(tmp_path / "w.pt", "holds no weights under 'best'", entries[0], entries[1], arch=DIGITS, entry="best")


def test_a_word_that_only_looks_like_an_average_is_none(tmp_path):
    torch.save({"schema": other().state_dict(), "ema": other(3).state_dict()}, tmp_path / "w.pt")
    assert same_state(load_model(tmp_path / "w.pt", arch=DIGITS).model, other())


def test_several_networks_ask_for_a_choice(tmp_path):
    student, teacher = other(1), other(2)
    torch.save({"student": student.state_dict(), "teacher": teacher.state_dict()}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "several sets of weights: student, teacher", "--entry", arch=DIGITS)
    assert same_state(load_model(tmp_path / "w.pt", arch=DIGITS, entry="teacher").model, teacher)


@pytest.mark.parametrize("name", ["model", "net", "trainer.model", "backbone"])
def test_the_network_is_found_in_what_holds_it(tmp_path, name, caplog):
    """As in the state dict of a LightningModule, with a loss that has weights and a metric that counts."""
    model = other()
    state = OrderedDict((f"{name}.{key}", value) for key, value in model.state_dict().items())
    state["criterion.weight"], state["val_acc.total"] = torch.ones(10), torch.tensor(3)
    torch.save({"state_dict": state, "epoch": 1, "hyper_parameters": {"lr": 0.1}}, tmp_path / "w.pt")
    with caplog.at_level(logging.INFO, "snnprune.registry"):
        assert same_state(load_model(tmp_path / "w.pt", arch=DIGITS).model, model)
    assert f"the model is {name}; 2 other entries are not used" in caplog.text


def test_a_network_and_its_average_in_one_state_dict(tmp_path):
    model, averaged = other(), other(5)
    state = {f"ema_model.{key}": value for key, value in averaged.state_dict().items()}
    state |= {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    assert same_state(load_model(tmp_path / "w.pt", arch=DIGITS).model, model)
    assert same_state(load_model(tmp_path / "w.pt", arch=DIGITS, entry="ema_model").model, averaged)
