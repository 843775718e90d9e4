"""Networks in wrappers: what is saved and exported is the network within."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import snnprune
from snnprune.files import STRUCTURE

X = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
WRAPPERS = [nn.DataParallel, AveragedModel, torch.compile, lambda m: AveragedModel(nn.DataParallel(m))]


def net(width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)
    )


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_what_a_wrapper_saves_loads_into_the_plain_network_and_into_a_wrapped_one(tmp_path, wrap):
    small = net(8).eval()
    snnprune.save(wrap(small), tmp_path)
    content = json.loads((tmp_path / STRUCTURE).read_text())
    assert set(content["layers"]) == {"0", "4"}
    assert content["class"] == "torch.nn.modules.container.Sequential"
    again = snnprune.load(tmp_path, model=net())
    assert set(again.state_dict()) == set(small.state_dict())
    assert torch.equal(again(X), small(X))
    wrapped = wrap(net())
    assert snnprune.load(tmp_path, model=wrapped) is wrapped
    assert torch.equal(
        wrapped.state_dict()[next(k for k in wrapped.state_dict() if k.endswith("0.weight"))], small[0].weight
    )


def test_a_wrapper_of_ones_own_keeps_its_names(tmp_path):
    class Own(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.module = net(width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.module(x)

    small = Own(8).eval()
    snnprune.save(small, tmp_path)
    assert torch.equal(snnprune.load(tmp_path, model=Own(16))(X), small(X))


def test_files_that_hold_a_wrappers_names_load_into_the_wrapper(tmp_path):
    small = net(8).eval()
    snnprune.save(nn.Sequential(), tmp_path)  # stands for what older versions wrote of nn.DataParallel(small)
    (tmp_path / "kept.json").unlink()
    from snnprune.runs.saving import WEIGHTS, digest, write_tensors
    from snnprune.runs.shrinking import layer_sizes

    write_tensors(tmp_path / WEIGHTS, nn.DataParallel(small).state_dict())
    content = json.loads((tmp_path / STRUCTURE).read_text())
    content |= {"layers": layer_sizes(nn.DataParallel(small)), "weights_sha256": digest(tmp_path / WEIGHTS)}
    (tmp_path / STRUCTURE).write_text(json.dumps(content))
    again = snnprune.load(tmp_path, model=nn.DataParallel(net()))
    assert torch.equal(again.module(X), small(X))


def test_an_averaged_model_is_pruned_saved_and_loaded_as_the_network_within(tmp_path):
    data = [(X, torch.arange(32) % 4)] * 3
    config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=1)
    result = snnprune.optimize(AveragedModel(net()), data, data, config)
    assert type(result.model) is nn.Sequential
    folder = result.save(tmp_path / "run")
    assert torch.equal(snnprune.load(folder, model=net())(X), result.model(X))
    assert (folder / "model.onnx").is_file()


def test_a_wrapper_exports_the_network_within(tmp_path):
    check = snnprune.export_onnx(AveragedModel(net()), tmp_path / "m.onnx", X[:4])
    assert check.relative_error < 1e-4


def test_another_network_says_what_to_give(tmp_path):
    snnprune.save(net(8), tmp_path)
    with pytest.raises(snnprune.errors.StructureError, match=r"layer '4' is only in one .* Give the architecture"):
        snnprune.load(tmp_path, model=nn.Sequential(nn.Conv2d(1, 16, 3)))
