"""Models inside wrappers, of older PyTorch, and files whose layers cannot be changed."""

from __future__ import annotations

import pickle

import pytest
import torch
from conftest import DIGITS, same_state
from torch import nn
from torch.optim.swa_utils import AveragedModel

from registry.conftest import digits, refused
from snnprune.registry import load_model


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("inside", [False, True], ids=["bare", "in a checkpoint"])
@pytest.mark.parametrize("wrap", [nn.DataParallel, AveragedModel, torch.compile])
def test_whole_models_come_out_of_their_wrappers(tmp_path, wrap, inside, zipped):
    model = digits()
    content = wrap(model)
    torch.save(
        {"model": content, "epoch": 3} if inside else content,
        tmp_path / "w.pt",
        _use_new_zipfile_serialization=zipped,
    )
    loaded = load_model(tmp_path / "w.pt", trust_pickle=True)
    assert type(loaded.model) is type(model)
    assert same_state(loaded.model, model)
    assert not loaded.model.training
    assert same_state(load_model(tmp_path / "w.pt", trust_pickle=True, arch=DIGITS).model, model)


@pytest.mark.parametrize(
    "wrap",
    [
        AveragedModel,
        lambda m: AveragedModel(nn.DataParallel(m)),
        lambda m: nn.DataParallel(torch.compile(m)),
        lambda m: nn.DataParallel(AveragedModel(torch.compile(m))),
        torch.compile,
    ],
)
def test_state_dicts_of_wrappers_fit_the_network_within(tmp_path, wrap):
    model = digits()
    torch.save(wrap(model).state_dict(), tmp_path / "w.pt")
    assert same_state(load_model(tmp_path / "w.pt", arch=DIGITS).model, model)


def test_parts_that_were_compiled_alone_keep_their_names(tmp_path):
    model, part = digits(), digits()
    part.features[0] = torch.compile(part.features[0])
    assert "features.0._orig_mod.weight" in part.state_dict()
    torch.save(part.state_dict(), tmp_path / "w.pt")
    assert same_state(load_model(tmp_path / "w.pt", arch=DIGITS).model, model)


def test_a_model_within_a_checkpoint_is_a_whole_model(tmp_path):
    torch.save({"model": nn.Sequential(nn.Linear(3, 2)), "epoch": 3}, tmp_path / "w.pt")
    assert isinstance(load_model(tmp_path / "w.pt").model, nn.Sequential)


def test_whole_models_of_half_precision_compute_in_float32(tmp_path):
    torch.save(nn.Sequential(nn.Linear(3, 2)).half(), tmp_path / "w.pt")
    assert load_model(tmp_path / "w.pt").model(torch.ones(1, 3)).dtype == torch.float32


def test_pickles_of_pickle_itself_load_when_trusted(tmp_path):
    for make in (digits, lambda: digits().state_dict()):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(make()))
        loaded = load_model(tmp_path / "w.pkl", arch=DIGITS, trust_pickle=True)
        assert same_state(loaded.model, digits())
        refused(tmp_path / "w.pkl", "--trust-pickle", arch=DIGITS)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("layer", "missing", "example"),
    [
        (nn.GELU(), "approximate", torch.randn(2, 3)),
        (nn.Upsample(scale_factor=2), "recompute_scale_factor", torch.randn(1, 2, 3, 3)),
    ],
)
def test_layers_of_an_older_pytorch_get_the_options_that_they_lack(tmp_path, layer, missing, example, zipped):
    expected = layer(example)
    model = nn.Sequential(layer)
    kept = model[0].__dict__.pop(missing)
    torch.save(model, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    layer.__dict__[missing] = kept
    assert torch.equal(load_model(tmp_path / "w.pt", trust_pickle=True).model(example), expected)


def test_whole_models_in_the_old_format_name_the_cure(tmp_path):
    torch.save(nn.Sequential(nn.Linear(3, 2)), tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "w.pt", "old PyTorch", "state_dict()", "--trust-pickle")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("trust", [True, False])
def test_programs_say_what_to_give_instead(tmp_path, trust):
    model, x = nn.Sequential(nn.Linear(3, 2)).eval(), torch.ones(2, 3)
    torch.jit.script(model).save(tmp_path / "scripted.pt")
    torch.jit.trace(model, x).save(tmp_path / "traced.pth")
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "program.pt2")
    (tmp_path / "graph.onnx").write_bytes(b"\x08\x0a")
    for name, kind in (
        ("scripted.pt", "TorchScript"),
        ("traced.pth", "TorchScript"),
        ("program.pt2", "torch.export.save"),
        ("graph.onnx", "ONNX"),
    ):
        refused(tmp_path / name, kind, "cannot be pruned", "state_dict", "--arch", trust_pickle=trust)


@pytest.mark.parametrize("trust", [True, False])
def test_what_is_no_model_says_what_one_is(tmp_path, trust):
    (tmp_path / "w.pt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    refused(tmp_path / "w.pt", "torch.save(model.state_dict(), file)", trust_pickle=trust)
    torch.save({"net": {"w": 3}, "epoch": 1}, tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "'net': dict", "as the entry 'state_dict'", trust_pickle=trust)
