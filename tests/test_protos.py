"""Names, fixed batches and sizes of files; graphs without needless operations."""

from __future__ import annotations

import collections

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune.errors import ConfigError, ExportError
from snnprune.parity import check_onnx
from snnprune.protos import in_form, renamed
from snnprune.runtime import open_session


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c, self.n, self.d = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, stride=2)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, x):
        y = self.pool(torch.relu(self.d(torch.relu(self.n(self.c(x))))))
        return self.fc(y.flatten(1)), y.mean((1, 2, 3))


@pytest.fixture(scope="module")
def net() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = Net()
    model.n.running_mean.normal_()
    model.n.running_var.uniform_(0.5, 2)
    return model.eval(), torch.randn(5, 1, 10, 12)


@pytest.fixture(scope="module")
def free(net, tmp_path_factory) -> bytes:
    """A file with a free batch."""
    path = tmp_path_factory.mktemp("free") / "m.onnx"
    snnprune.export_onnx(net[0], path, net[1], metadata={"note": 1})
    return path.read_bytes()


def kinds(proto: onnx.ModelProto) -> collections.Counter:
    return collections.Counter(node.op_type for node in proto.graph.node)


def test_norms_are_folded_and_pooling_is_one_operation(free):
    found = kinds(onnx.load_model_from_string(free))
    assert found == {"Conv": 2, "Relu": 2, "ReduceMean": 2, "Reshape": 1, "Gemm": 1}


class Attention(nn.Module):
    """PyTorch's module, and calls of the function with every kind of mask."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(8, 2, batch_first=True)
        self.qkv = nn.Linear(8, 24)
        self.register_buffer("keep", torch.ones(6, 6).tril().bool())
        self.register_buffer("bias", torch.randn(6, 6))

    def forward(self, x):
        x = x + self.own(x, x, x, need_weights=False)[0]
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v)
        y = y + F.scaled_dot_product_attention(q, k, v, attn_mask=self.keep)
        y = y + F.scaled_dot_product_attention(q, k, v, self.bias, scale=0.3)
        y = y + F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y.transpose(1, 2).flatten(2)


def test_attention_asks_no_tensor_for_its_shape(tmp_path):
    """And gives what the model gives, which the export itself checks."""
    torch.manual_seed(0)
    model, before = Attention(), F.scaled_dot_product_attention
    assert snnprune.export_onnx(model, tmp_path / "a.onnx", torch.randn(4, 6, 8)).relative_error < 1e-5
    assert F.scaled_dot_product_attention is before
    assert type(model.own) is nn.MultiheadAttention
    found = kinds(onnx.load(tmp_path / "a.onnx"))
    assert found["Softmax"] == 5
    assert found["Slice"] + found["Shape"] <= 6, "those of the causal one, which is left to PyTorch"
    assert found["Unsqueeze"] + found["Squeeze"] == 0


def test_a_fixed_batch(net, free, tmp_path):
    model, x = net
    check = snnprune.export_onnx(model, tmp_path / "m.onnx", x, batch=8)  # more than there are examples
    assert check.batch_sizes == (8,)
    again = in_form(free, batch=8)
    assert check_onnx(model, again, x, path=tmp_path, batch=8).batch_sizes == (8,)
    for data in ((tmp_path / "m.onnx").read_bytes(), again):
        session = open_session(data)
        assert session.get_inputs()[0].shape == [8, 1, 10, 12]
        assert [o.shape for o in session.get_outputs()] == [[8, 3], [8]]
    assert kinds(onnx.load_model_from_string(again)) == kinds(onnx.load_model_from_string(free))
    with pytest.raises(ExportError, match="batch size is 8, not 4"):
        check_onnx(model, again, x, path=tmp_path, batch=4)
    with pytest.raises(ExportError, match=r"fixed at 8.*--fixed-batch 8"):
        check_onnx(model, again, x, path=tmp_path)


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x.view(3, 4))


def test_a_network_of_one_batch_size_is_exported_for_that_one(tmp_path):
    torch.manual_seed(0)
    with pytest.raises(ExportError):
        snnprune.export_onnx(Constant(), tmp_path / "m.onnx", torch.randn(3, 4))
    assert snnprune.export_onnx(Constant(), tmp_path / "m.onnx", torch.randn(3, 4), batch=3).batch_sizes == (3,)


def test_what_was_computed_from_the_batch_becomes_constant():
    """Shape, Gather and Concat in front of a Reshape: all gone."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "minus"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    weights = [helper.make_tensor("zero", 7, [1], [0]), helper.make_tensor("minus", 7, [1], [-1])]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", *s]) for n, s in (("x", [2, 3]), ("y", [6])))
    proto = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    found = onnx.load_model_from_string(in_form(proto.SerializeToString(), batch=2))
    assert kinds(found) == {"Reshape": 1}
    given = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    (out,) = open_session(found.SerializeToString()).run(None, {"x": given})
    assert np.array_equal(out, given.reshape(2, 6))


def test_images_of_any_size(net, tmp_path):
    model, x = net
    check = snnprune.export_onnx(model, tmp_path / "m.onnx", x, dynamic_size=True, input_names=["image"])
    assert check.image_sizes == ((20, 12), (10, 24), (15, 15), (5, 6), (11, 15))
    session = open_session(tmp_path / "m.onnx")
    assert session.get_inputs()[0].shape == ["batch", 1, "height", "width"]
    other = torch.randn(2, 1, 33, 17)
    ours, theirs = model(other)[0].detach().numpy(), session.run(None, {"image": other.numpy()})[0]
    assert np.allclose(ours, theirs, atol=1e-5)


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(36, 3)

    def forward(self, x):
        return self.fc(x.flatten(1))


class Secret(nn.Module):
    """Takes any size, and does with the size at hand what the file then does with all."""

    def forward(self, x):
        return x.flatten(1).sum(1, keepdim=True) / int(x.shape[2])


class Even(nn.Module):
    """Takes even sizes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x):
        return F.pixel_unshuffle(self.c(x), 2).mean((2, 3))


def test_sizes_that_cannot_be_free_are_refused_and_those_that_the_model_lacks_left_out(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(3, 1, 6, 6)
    with pytest.raises(ExportError, match=r"the model itself takes images of 6x6 alone \(mat1 and mat2"):
        snnprune.export_onnx(Flat(), tmp_path / "m.onnx", x, dynamic_size=True)
    with pytest.raises(ConfigError, match="no images"):
        snnprune.export_onnx(nn.Linear(4, 3), tmp_path / "m.onnx", torch.randn(3, 4), dynamic_size=True)
    assert not list(tmp_path.iterdir())
    x = torch.randn(3, 1, 8, 8)
    check = snnprune.export_onnx(Even(), tmp_path / "m.onnx", x, dynamic_size=True)
    assert check.image_sizes == ((16, 8), (8, 16), (12, 10), (4, 4))


def test_a_file_that_is_wrong_at_another_size_is_noticed(tmp_path):
    """As an exporter's constant would make it: by the check alone."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, "height", "width"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=0),
        helper.make_node("Div", ["s", "height"], ["y"]),
    ]
    weights = [helper.make_tensor("axes", 7, [3], [1, 2, 3]), helper.make_tensor("height", 1, [1], [6.0])]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )

    class Mean(nn.Module):
        def forward(self, x):
            return x.sum((1, 2, 3)) / x.shape[2]

    data, images = proto.SerializeToString(), torch.rand(3, 1, 6, 6)
    assert check_onnx(Mean(), data, images, path=tmp_path).max_abs_error < 1e-4
    assert check_onnx(Mean(), data, images, path=tmp_path, sizes=[(6, 12)]).image_sizes == ((6, 12),)
    with pytest.raises(ExportError, match="at batch size 2 and size 12x6 on CPU ONNX Runtime differs"):
        check_onnx(Mean(), data, images, path=tmp_path, sizes=[(6, 12), (12, 6)])


def names_of(data: bytes) -> tuple[list[str], list[str]]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]


def test_names_of_inputs_and_outputs(net, free, tmp_path):
    model, x = net
    inner = next(n.output[0] for n in onnx.load_model_from_string(free).graph.node if n.op_type == "Relu")
    for outputs in (["class scores", "bild"], [inner, "x"]):  # of a value inside, and of the input that was
        data = in_form(free, input_names=["image"], output_names=outputs)
        assert names_of(data) == (["image"], outputs)
        assert check_onnx(model, data, x, path=tmp_path).relative_error < 1e-5
    assert in_form(free, input_names=["image"]) != free
    assert {p.key for p in onnx.load_model_from_string(data).metadata_props} == {"note"}
    check = snnprune.export_onnx(model, tmp_path / "m.onnx", x, output_names=("a", "b"))
    assert names_of(check.path.read_bytes()) == (["x"], ["a", "b"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"input_names": ["a", "b"]}, r"input_names: the file has 1 of them \(x\), and 2 names were given"),
        ({"output_names": ["a"]}, "output_names: the file has 2 of them"),
        ({"output_names": ["a", "a"]}, "'a' stands twice"),
        ({"input_names": ["a"], "output_names": ["a", "b"]}, "'a' stands twice"),
        ({"input_names": ["fc.bias"]}, "'fc.bias' is the name of a weight"),
        ({"input_names": [""]}, r"input_names\[0\]='' must be a name"),
        ({"input_names": ["a\nb"]}, r"input_names\[0\]=.* must be a name"),
        ({"input_names": ["a" * 101]}, "must be a name"),
        ({"input_names": "image"}, "must be a sequence"),
        ({"input_names": [3]}, r"input_names\[0\]=3"),
    ],
)
def test_names_that_will_not_do(free, given, says):
    with pytest.raises(ConfigError, match=says):
        in_form(free, **given)


def test_an_output_that_is_an_input_gets_a_name_of_its_own():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y, x, y])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    data = renamed(proto, ["in"], ["a", "b", "c"]).SerializeToString()
    assert names_of(data) == (["in"], ["a", "b", "c"])
    given = np.array([[-1.0, 2.0]], np.float32)
    found = open_session(data).run(None, {"in": given})
    assert [f.tolist() for f in found] == [[[0, 2]], [[-1, 2]], [[0, 2]]]


@pytest.mark.parametrize(
    "given", [{"batch": 0}, {"batch": 1.5}, {"batch": True}, {"dynamic_size": 1}, {"fp16": "x"}]
)
def test_options_of_the_wrong_type(net, tmp_path, given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        snnprune.export_onnx(net[0], tmp_path / "m.onnx", net[1], **given)
