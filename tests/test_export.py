"""The ONNX file: dynamic batch, one Gather, nothing of this machine in it, and a check that can fail."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch
from conftest import ROOT, make_network
from torch import nn

from snnprune.errors import ExportError
from snnprune.export import check_onnx, export_onnx
from snnprune.proof import random_scales
from snnprune.proof.tracing import trace
from snnprune.runtime import onnx_metadata
from snnprune.surgery import fold_, remove_


@pytest.fixture(scope="module")
def compact() -> tuple[nn.Module, torch.Tensor]:
    _, model, x = make_network("lenet5_caffe", seed=1, batch=5)
    model, x = model.float(), x.float()
    groups = trace(model, x)
    scales = {n: s.float() for n, s in random_scales(groups, torch.Generator().manual_seed(1)).items()}
    return remove_(fold_(copy.deepcopy(model), groups, scales), groups, scales), x


def test_removed_inputs_are_one_gather_per_layer(compact, tmp_path):
    model, x = compact
    export_onnx(model, tmp_path / "m.onnx", x)
    proto = onnx.load(tmp_path / "m.onnx")
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("Gather") == 1
    assert kinds.count("Gemm") == 2
    assert "GatherND" not in kinds
    assert isinstance(proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param, str)
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_metadata_comes_back_and_no_path_leaks(compact, tmp_path):
    model, x = compact
    told = {"classes": ["ä", "b"], "mean": [0.5], "nothing": None}
    export_onnx(model, tmp_path / "m.onnx", x, metadata=told)
    assert onnx_metadata(tmp_path / "m.onnx") == told
    raw = (tmp_path / "m.onnx").read_bytes()
    for secret in (str(ROOT), "site-packages", "lenet.py"):
        assert secret.encode() not in raw


def test_half_precision_is_smaller_and_close(compact, tmp_path):
    model, x = compact
    full = export_onnx(model, tmp_path / "f.onnx", x)
    half = export_onnx(model, tmp_path / "h.onnx", x, fp16=True)
    assert (tmp_path / "h.onnx").stat().st_size < 0.6 * (tmp_path / "f.onnx").stat().st_size
    assert full.relative_error < 1e-5 < half.relative_error < 2e-2


def test_a_fixed_batch_size_is_refused(tmp_path):
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, x):
            return self.fc(x.view(2, 8))

    with pytest.raises(ExportError):
        export_onnx(Fixed(), tmp_path / "m.onnx", torch.randn(2, 8))
    assert not list(tmp_path.iterdir())


def test_the_check_notices_another_model(compact, tmp_path):
    model, x = compact
    export_onnx(model, tmp_path / "m.onnx", x)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.fc2.weight[0, 0] += 0.05
    with pytest.raises(ExportError, match="differs"):
        check_onnx(other, tmp_path / "m.onnx", x, path=tmp_path / "m.onnx")


def test_an_existing_file_survives_a_failed_export(compact, tmp_path, monkeypatch):
    import snnprune.export as module

    model, x = compact
    target = tmp_path / "m.onnx"
    target.write_bytes(b"precious")

    def wrong(*_args, **_kwargs):
        raise ExportError("no")

    monkeypatch.setattr(module, "check_onnx", wrong)
    with pytest.raises(ExportError):
        export_onnx(model, target, x)
    assert target.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_training_mode_and_weights_are_left_alone(compact, tmp_path):
    model, x = compact
    model = copy.deepcopy(model).train()
    state = copy.deepcopy(model.state_dict())
    export_onnx(model, tmp_path / "m.onnx", x)
    assert model.training
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())


def test_several_inputs_by_tuple_and_by_name(tmp_path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(6, 3)

        def forward(self, left, right):
            return self.a(left) + self.b(right)

    torch.manual_seed(0)
    model = Two()
    left, right = torch.randn(4, 4), torch.randn(4, 6)
    assert export_onnx(model, tmp_path / "t.onnx", (left, right)).relative_error < 1e-5
    assert export_onnx(model, tmp_path / "d.onnx", {"left": left, "right": right}).relative_error < 1e-5
    assert np.isfinite(export_onnx(model, tmp_path / "t.onnx", (left, right)).max_abs_error)
