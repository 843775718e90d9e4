"""Pickles that would take memory or time, or put values in place of code, are refused before they are loaded."""

from __future__ import annotations

import re
import struct
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch
from torch import nn

from registry.conftest import refused
from registry.programs import crafted, name, number, tensor, text
from snnprune import memory
from snnprune.errors import ModelFileError
from snnprune.registry import load_model
from snnprune.registry.files import read_model_file
from snnprune.registry.scan import scan
from snnprune.registry.whole import check_whole


def test_the_crafted_file_is_a_good_one(tmp_path):
    path = crafted(tmp_path / "w.pt", tensor(b"K\x04\x85", b"K\x01\x85"))
    assert read_model_file(path)["weight"].tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (name("torch.nn.modules.linear", "Linear") + number(2**20) + number(2**20) + b"\x86R", "calls torch.nn"),
        (name("torchvision.models.resnet", "ResNet") + b")R", "calls torchvision"),
        (name("torch.nn.modules.linear", "Linear") + number(3) + b"\x85\x81", "with arguments"),
        (name("torch.nn.modules.rnn", "LSTM") + b")\x81", "needs torch.nn.modules.rnn.LSTM"),
        (name("__builtin__", "bytearray") + number(2**40) + b"\x85R", "needs bytearray"),
        (name("torch", "Tensor") + number(2**40) + b"\x85R", "needs torch.Tensor"),
        (name("torch.storage", "UntypedStorage") + number(2**40) + b"\x85R", "calls torch.storage"),
        (name("_codecs", "encode") + text("x" * 9) + text("utf-32") + b"\x86R", "makes a bytes"),
        (b"}" + b")" + b"q\x00h\x00\x86" * 12 + b"K\x01s", "a key of a dict"),
        (name("__builtin__", "set") + b"](" + b")" + b"q\x00h\x00\x86" * 12 + b"e\x85R", "makes a set"),
        (name("collections", "OrderedDict") + b")R}" + text("items") + b"K\x01sb", "a dict has attributes"),
        (tensor(number(2**30) + b"\x85", b"K\x01\x85"), "larger than what is stored"),
        (tensor(number(2**30) + number(2**30) + b"\x86", b"K\x00K\x00\x86"), "larger than what is stored"),
        (tensor(b"K\x04\x85", b"K\x01\x85", 2**30), "which the file does not have"),
        (b"r" + struct.pack("<I", 2**32 - 1), "damaged"),
        (b"e", "damaged"),
    ],
)
def test_what_no_saved_model_needs_is_refused(tmp_path, program, message):
    refused(crafted(tmp_path / "w.pt", program), message)


def test_an_archive_that_unpacks_to_far_more_than_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "SMALL", 2**20)
    size = 2**22
    bomb = crafted(
        tmp_path / "w.pt",
        tensor(number(size) + b"\x85", b"K\x01\x85", size),
        bytes(4 * size),
        zipfile.ZIP_DEFLATED,
    )
    refused(bomb, "would unpack to", "without compression")
    crafted(tmp_path / "w.pt", tensor(number(size) + b"\x85", b"K\x01\x85", size), bytes(4 * size))
    assert read_model_file(tmp_path / "w.pt")["weight"].shape == (size,)


def test_a_model_that_does_not_fit_into_memory(tmp_path, monkeypatch):
    torch.save({"w": torch.ones(1000)}, tmp_path / "w.pt")
    monkeypatch.setattr(memory, "available_memory", lambda: 3000)
    refused(tmp_path / "w.pt", "of memory, but")


def test_two_parts_of_one_name(tmp_path):
    path = crafted(tmp_path / "w.pt", tensor(b"K\x04\x85", b"K\x01\x85"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/DATA.pkl", b"\x80\x02}.")
    refused(path, "the same name")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("b/data.pkl", b"\x80\x02}.")
    refused(path, "in one folder")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/b/data.pkl", b"\x80\x02}.")
    refused(path, "2 data.pkl")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_what_training_programs_save_passes(tmp_path, zipped):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    shared = torch.rand(6, 5)
    content = {
        "state_dict": OrderedDict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "scheduler": {"milestones": Counter([3, 3, 5]), "gamma": 0.1},
        "views": [shared.t(), shared[2:4, ::2], shared[0], torch.zeros(0, 3), torch.tensor(3)],
        "types": [torch.ones(2, dtype=t) for t in (torch.bfloat16, torch.bool, torch.complex64)],
        "parameter": nn.Parameter(torch.ones(2)),
        "plain": {"a": (1, -2.5, None, True), "b": b"bytes", "c": {1, 2}, (1, "x"): torch.Size([3]), "d": 2**70},
        "device": torch.device("cpu"),
        "dtype": torch.float16,
    }
    if zipped:
        content["types"].append(torch.ones(2, dtype=torch.uint16))
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with (tmp_path / "w.pt").open("rb") as file:
        assert scan(file, tmp_path) == []
    assert read_model_file(tmp_path / "w.pt").keys() == {"weight", "bias"}


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())


def shadow(model: nn.Sequential) -> None:
    model[2].__dict__["forward"] = nn.Identity


def hook(model: nn.Sequential) -> None:
    model._forward_hooks[0] = nn.Identity  # type: ignore[assignment]


def within_itself(model: nn.Sequential) -> None:
    model._modules["3"] = model


def doubled(model: nn.Sequential) -> None:
    inner: nn.Module = nn.ReLU()
    for _ in range(40):
        inner = nn.Sequential(inner, inner)
    model._modules["3"] = inner


def deep(model: nn.Sequential) -> None:
    inner: nn.Module = nn.ReLU()
    for _ in range(100):
        inner = nn.Sequential(inner)
    model._modules["3"] = inner


def method_by_name(model: nn.Sequential) -> None:
    model._modules["forward"] = nn.ReLU()


def no_table(model: nn.Sequential) -> None:
    model[0].__dict__["_parameters"] = [1]


def number_for_weight(model: nn.Sequential) -> None:
    model[0]._parameters["weight"] = 3  # type: ignore[assignment]


def module_in_list(model: nn.Sequential) -> None:
    model.__dict__["more"] = [nn.ReLU()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shadow, "a ReLU has an attribute 'forward', as none has"),
        (hook, "has hooks"),
        (within_itself, "in one another"),
        (doubled, "repeats its parts"),
        (deep, "nested more than"),
        (method_by_name, "named forward"),
        (no_table, "0 (Conv2d) has no _parameters"),
        (number_for_weight, "has weight in _parameters, which is int"),
        (module_in_list, "has an attribute more"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "in a dict"])
def test_whole_models_with_values_in_place_of_code(tmp_path, change, message, wrapped):
    model = net().eval()
    change(model)
    torch.save({"model": model} if wrapped else model, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", message, "state_dict()")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shadow, "2 (ReLU) has an attribute 'forward', as none has"),
        (hook, "has hooks"),
        (within_itself, "in one another"),
        (doubled, "in one another"),
        (deep, "nested more than"),
    ],
)
def test_models_are_looked_at_once_more_when_they_are_made(tmp_path, change, message):
    model = net().eval()
    change(model)
    with pytest.raises(ModelFileError, match=re.escape(message)):
        check_whole(model, tmp_path)


def test_a_call_that_was_compiled_may_not_be_there(tmp_path):
    model = net().eval()
    model.__dict__["_compiled_call_impl"] = (
        nn.Identity
    )  # torch.save leaves it out; a file may hold it all the same
    with pytest.raises(ModelFileError, match="is compiled"):
        check_whole(model, tmp_path)


def test_whole_models_that_share_a_layer_are_fine(tmp_path):
    act = nn.ReLU()
    torch.save(nn.Sequential(nn.Conv2d(1, 2, 3), act, nn.Conv2d(2, 2, 3), act).eval(), tmp_path / "w.pt")
    assert isinstance(load_model(tmp_path / "w.pt").model, nn.Sequential)


def test_a_module_without_its_tables_is_refused(tmp_path):
    program = name("torch.nn.modules.linear", "Linear") + b")\x81}b"
    refused(crafted(tmp_path / "w.pt", program), "has no _parameters")


def test_scanning_names_every_foreign_class(tmp_path):
    program = b"(" + name("os", "system") + name("builtins", "eval") + text("x") + b"\x85R" + b"t"
    refused(crafted(tmp_path / "w.pt", program), "needs eval, os.system;")


def test_a_scalar_in_place_of_an_output_layer(tmp_path):
    state = {**nn.Linear(4, 3).state_dict(), "bias": torch.tensor(1.0)}
    torch.save(state, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "bias is () in the file", arch="registry.conftest:linear")
    torch.save({"weight": torch.zeros(0, 4), "bias": torch.zeros(0)}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "(0, 4) in the file", arch="registry.conftest:linear")


def test_values_of_eight_bits_are_checked_and_loaded(tmp_path):
    state = {k: v.to(torch.float8_e4m3fn) for k, v in nn.Linear(4, 3).state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    assert load_model(tmp_path / "w.pt", arch="registry.conftest:linear").model.weight.dtype == torch.float32
    state["bias"] = torch.full((3,), torch.nan).to(torch.float8_e4m3fn)
    torch.save(state, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "bias holds NaN", arch="registry.conftest:linear")
