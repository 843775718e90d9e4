"""Networks as users write them become ONNX files: any forward, any output, any memory, and a reason where not."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snnprune.errors import ExportError
from snnprune.export import export_onnx
from snnprune.exporter import named_tensors, reason
from snnprune.parity import _gap
from snnprune.protos import to_half


def run(path, *inputs: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: x.numpy() for i, x in zip(session.get_inputs(), inputs, strict=True)})


@dataclasses.dataclass
class Found:
    logits: Tensor
    count: int = 3


class Anything(nn.Module):
    """Positional arguments of any number; what it returns is nested and holds more than tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, *inputs, scale=1.0, **others):
        y = self.fc(inputs[0]) * scale + others.get("shift", 0)
        parts = [(y * 2, None), (1, {"sign": y > 0})]
        return {
            "y": y,
            "n": 3,
            "f": 0.5,
            "none": None,
            "s": "x",
            "flag": True,
            "found": Found(y + 1),
            "parts": parts,
        }


def test_numbers_among_the_outputs_and_any_number_of_arguments(tmp_path):
    torch.manual_seed(0)
    model, x, unused = Anything(), torch.randn(5, 4), torch.randn(5, 2)
    export_onnx(model, tmp_path / "m.onnx", (x, unused))
    y = model.fc(x).detach()
    expected = [y, y + 1, y * 2, y > 0]  # no tensor is lost, and nothing else has become one
    for ours, theirs in zip(expected, run(tmp_path / "m.onnx", x, unused), strict=True):
        assert np.allclose(ours, theirs, atol=1e-6)
    names = {w.name for w in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert {"fc.weight", "fc.bias"} <= names, "weights have their names in the model"


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([2.0, 3.0]))  # named as the input is

    def forward(self, x, table=None, *, scale, shift=None):
        return (x @ table) * scale * self.x if shift is None else shift


def test_arguments_by_name_in_any_order_constants_and_tables(tmp_path):
    """What has no entry per example stays whole; numbers and None become constants."""
    x, table = torch.randn(5, 4), torch.randn(4, 2)
    export_onnx(Named(), tmp_path / "m.onnx", {"scale": 2.0, "x": x, "table": table, "shift": None})
    inputs = {i.name: i.type.tensor_type.shape.dim for i in onnx.load(tmp_path / "m.onnx").graph.input}
    assert list(inputs) == ["x", "table"]
    assert [d.dim_value for d in inputs["table"]] == [4, 2]
    assert inputs["x"][0].dim_param == "batch"
    (found,) = run(tmp_path / "m.onnx", x[:3], table)
    assert np.allclose(found, (x[:3] @ table) * 2 * torch.tensor([2.0, 3.0]), atol=1e-5)


def test_inputs_are_named_as_the_arguments_are():
    a, b, c = torch.ones(2, 1), torch.ones(2, 2), torch.ones(2, 3)
    assert [n for n, _ in named_tensors(Named(), (a, b))] == ["x", "table"]
    assert [n for n, _ in named_tensors(Anything(), (a, b))] == ["inputs_0", "inputs_1"]
    found = named_tensors(Anything(), {"x": a, "pair": [b, 1, c]})
    assert [n for n, _ in found] == ["x", "pair_0", "pair_1"]
    assert [t.shape[1] for _, t in found] == [1, 2, 3]


class Remembers(nn.Module):
    """As detectors do: what belongs to the shape of the last input is kept for the next."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.shape, self.anchors = None, torch.empty(0)

    def forward(self, x):
        if self.shape != x.shape:
            self.shape = x.shape
            self.anchors = torch.arange(x.shape[0], dtype=x.dtype)[:, None].expand(x.shape) * 0.5
        return self.fc(x) + self.anchors


def test_what_a_network_remembers_of_its_last_input_is_not_in_the_file(tmp_path):
    torch.manual_seed(0)
    model, x = Remembers(), torch.randn(5, 4)
    model(x[:2])  # the size that is exported
    shape, anchors, values = model.shape, model.anchors, model.anchors.clone()
    assert export_onnx(model, tmp_path / "m.onnx", x).batch_sizes == (1, 2, 3, 5)
    assert (model.shape, model.anchors) == (shape, anchors), "the model at hand keeps its own memory"
    assert torch.equal(model.anchors, values)
    (found,) = run(tmp_path / "m.onnx", x[:4])
    assert np.allclose(found, model.fc(x[:4]).detach() + torch.arange(4.0)[:, None] * 0.5, atol=1e-6)


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.bias = nn.Linear(8, 24), nn.Parameter(torch.randn(1, 2, 6, 6))

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias.expand(len(x), -1, -1, -1))
        return y.transpose(1, 2).contiguous().view(x.shape)


def test_attention_with_a_learned_mask(tmp_path):
    """The fused kernel that torch picks for it gives another memory layout, over which the exporter trips."""
    torch.manual_seed(0)
    model, x = Attends(), torch.randn(4, 6, 8)
    assert export_onnx(model, tmp_path / "m.onnx", x).relative_error < 1e-5
    assert model.bias.requires_grad


@pytest.mark.parametrize("fp16", [False, True])
def test_zeros_around_negative_values_are_pooled(fp16, tmp_path):
    """ONNX Runtime would take them for the padding of the pooling, which is minus infinity."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1), nn.ZeroPad2d(1), nn.MaxPool2d(3, 1)
    )
    with torch.no_grad():
        model[0].bias -= 5
    x = torch.randn(2, 3, 8, 8)
    export_onnx(model.eval(), tmp_path / "m.onnx", x, fp16=fp16)
    (y,) = run(tmp_path / "m.onnx", x)
    want = model(x).detach()
    assert want.max() == 0
    assert want.min() < -3
    assert np.abs(y - want.numpy()).max() < (1e-2 if fp16 else 1e-5)
    proto = onnx.load(tmp_path / "m.onnx")
    read = {name for node in proto.graph.node for name in node.input}
    assert {weight.name for weight in proto.graph.initializer} <= read


def test_onnx_runtime_quantises_the_file(tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(4, 6)
    export_onnx(model, tmp_path / "m.onnx", x)
    for proto in (onnx.load(tmp_path / "m.onnx"), to_half(onnx.load(tmp_path / "m.onnx"))):
        assert not {v.name for v in proto.graph.value_info} & {w.name for w in proto.graph.initializer}
        onnx.shape_inference.infer_shapes(proto, strict_mode=True, check_type=True, data_prop=True)
    logging.disable(logging.WARNING)  # it recommends a preprocessing
    try:
        quantize_dynamic(tmp_path / "m.onnx", tmp_path / "q.onnx")
    finally:
        logging.disable(logging.NOTSET)
    (found,) = run(tmp_path / "q.onnx", x)
    assert np.abs(found - model(x).detach().numpy()).max() < 0.1


class Draws(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


def test_networks_that_draw_are_refused_in_one_line_and_draw_nothing_of_others(tmp_path):
    state = torch.get_rng_state()
    with pytest.raises(ExportError, match="draws random numbers in eval mode") as caught:
        export_onnx(Draws(), tmp_path / "m.onnx", torch.randn(2, 3, generator=torch.Generator()))
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), state)


class Silent(nn.Module):
    def forward(self, x):
        return {"n": len(x)}


class Branches(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class Pairs(nn.Module):
    def forward(self, x):
        return x.view(2, 3)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Silent(), "returns no tensor"),
        (Branches(), r"asks for the values of tensors.*in test_exporter\.py:\d+: if x\.sum\(\) > 0:\)"),
        (Pairs(), r"constant batch size \(RuntimeError.*in test_exporter\.py:\d+: return x\.view\(2, 3\)\)"),
        (nn.Linear(4, 3), r"does not run on the example inputs \(RuntimeError: mat1 and mat2"),
    ],
)
def test_the_reason_is_quoted_and_the_place_in_the_users_code(model, says, tmp_path):
    with pytest.raises(ExportError, match=says) as caught:
        export_onnx(model, tmp_path / "m.onnx", torch.ones(2, 3))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800
    assert not list(tmp_path.iterdir())


def test_the_root_of_an_error_is_quoted_and_bounded():
    def failing(text: str) -> Exception:
        root = ValueError(text)
        error = RuntimeError("\x1b[96mThis is step 1/3\x1b[0m of a long story")
        error.__cause__ = root
        return error

    assert (
        reason(failing("Found these conflicts:\n- size 2 is not free.\nmore")) == "ValueError: size 2 is not free"
    )
    assert reason(failing("")) == "ValueError"
    assert len(reason(failing("x" * 5000))) < 400
    told = 'bad view\n\nOriginal traceback:\nFile "/home/me/net.py", line 7, in forward\n    return x.view(2)\n'
    assert reason(failing(told)) == "ValueError: bad view, in net.py:7: return x.view(2)"


class Counts(nn.Module):
    """Makes a tensor of the default type inside."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x + torch.tensor([0.1, 0.2, 0.3]))


def test_the_file_is_float32_whatever_the_caller_has_set(tmp_path):
    torch.manual_seed(0)
    dtype = torch.float64
    model, x = Counts().to(dtype), torch.randn(3, 3)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            check = export_onnx(model, tmp_path / "m.onnx", x.to(dtype))
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(before)
    assert model.fc.weight.dtype == dtype
    assert check.relative_error < 1e-5
    (found,) = run(tmp_path / "m.onnx", x)
    assert found.dtype == np.float32
    expected = model.float()(x).detach()
    assert np.allclose(found, expected, atol=1e-5)


def test_differences_of_infinities_and_of_nothing(tmp_path):
    inf = np.array([1.0, -np.inf, 3.0])
    assert _gap(inf, inf.copy(), "here", tmp_path, None) == (0.0, 0.0), "masked outputs are outputs too"
    assert _gap(np.empty(0), np.empty(0), "here", tmp_path, None) == (0.0, 0.0)
    gap, share = _gap(inf, np.array([1.0, -np.inf, 3.001]), "here", tmp_path, None)
    assert (gap, share) == pytest.approx((0.001, 0.001), rel=1e-3)  # 1 and 3 have a standard deviation of 1
    for wrong in ([1.0, np.inf, 3.0], [1.0, -np.inf, np.nan], [1.0, 2.0, 3.0], [1.0, -np.inf, 3.1]):
        with pytest.raises(ExportError):
            _gap(inf, np.array(wrong), "here", tmp_path, None)
