"""ONNX files that reach for other files, or ask for more than is there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from snnprune.bench import bench_onnx
from snnprune.errors import ExportError
from snnprune.pipeline.evaluating import evaluator
from snnprune.runtime import onnx_metadata, open_session

EXTERNAL = "no file in its own folder"


def tensor(location: str | None) -> TensorProto:
    """Four weights, in the file or in another one."""
    if location is None:
        return helper.make_tensor("w", TensorProto.FLOAT, [4], [0.0, 1.0, 2.0, 3.0])
    found = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    entry = found.external_data.add()
    entry.key, entry.value = "location", location
    return found


def model(
    location: str | None = None, *, where: str = "initializer", width: int = 4, inputs: int = 1
) -> onnx.ModelProto:
    names = [f"x{i}" for i in range(inputs)]
    x = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in names]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    last = helper.make_node("Add", [*names[:1], "w"] if inputs else ["w", "w"], ["y"])
    nodes, weights = [last], [tensor(location)]
    if width != 4:
        nodes, weights = [helper.make_node("Relu", ["x0"], ["y"])], []
    if where == "constant":
        nodes, weights = [helper.make_node("Constant", [], ["w"], value=tensor(location)), last], []
    if where == "branch":
        inner = helper.make_graph(
            [helper.make_node("Constant", [], ["z"], value=tensor(location))],
            "inner",
            [],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, [4])],
        )
        flag = helper.make_tensor("flag", TensorProto.BOOL, [], [True])
        branch = helper.make_node("If", ["flag"], ["w"], then_branch=inner, else_branch=inner)
        nodes, weights = [branch, last], [flag]
    graph = helper.make_graph(nodes, "g", x, [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def folder(tmp_path):
    """A folder of a model, with a file of weights outside and inside, and links to both."""
    inner = tmp_path / "models"
    inner.mkdir()
    secret = np.arange(4, dtype=np.float32).tobytes()
    (tmp_path / "secret.bin").write_bytes(secret)
    (inner / "own.bin").write_bytes(secret)
    (inner / "link.bin").symlink_to("../secret.bin")
    (inner / "loop.bin").symlink_to("loop.bin")
    return inner


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
@pytest.mark.parametrize(
    "location", ["../secret.bin", "ABSOLUTE", "link.bin", "loop.bin", "absent.bin", "", ".", "a\0b"]
)
def test_weights_are_read_only_from_the_file_s_own_folder(folder, where, location, monkeypatch):
    import onnxruntime

    def opened(*args, **kwargs):
        pytest.fail("ONNX Runtime was asked, and older versions of it read any file")

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    location = str(folder.parent / "secret.bin") if location == "ABSOLUTE" else location
    path = folder / "m.onnx"
    path.write_bytes(model(location, where=where).SerializeToString())
    for reader in (open_session, onnx_metadata, evaluator, lambda p: bench_onnx([p], provider="cpu")):
        with pytest.raises(ExportError, match=EXTERNAL) as caught:
            reader(path)
        assert str(path) in str(caught.value)
    with pytest.raises(ExportError, match=EXTERNAL):
        open_session(path.read_bytes())


def test_weights_beside_the_file_are_read(folder):
    path = folder / "m.onnx"
    path.write_bytes(model("own.bin", where="initializer").SerializeToString())
    _x = np.zeros((1, 4), np.float32)
    assert open_session(path).run(None, {"x0": _x})[0].tolist() == [[0.0, 1.0, 2.0, 3.0]]
    with pytest.raises(ExportError, match=EXTERNAL):
        open_session(path.read_bytes())  # bytes have no folder


@pytest.mark.parametrize("content", [b"", b"no model", b"ORTM" + bytes(100), bytes(range(256))])
def test_what_is_no_model_is_refused_without_a_word_on_the_terminal(tmp_path, content, capfd):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ExportError, match=r"m\.onnx"):
        open_session(tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


def test_names_that_are_no_text_are_refused_without_a_word_on_the_terminal(tmp_path, capfd):
    data = model().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(data.replace(b"x0", b"x\xff"))
    with pytest.raises(ExportError, match="utf-8"):
        open_session(tmp_path / "m.onnx")
    broken = model()
    helper.set_model_props(broken, {"key": "value"})
    (tmp_path / "m.onnx").write_bytes(broken.SerializeToString().replace(b"value", b"va\xffue"))
    with pytest.raises(ExportError, match="utf-8"):
        onnx_metadata(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(data.replace(b"Add", b"A\xffd"))
    with pytest.raises(ExportError, match="utf-8"):
        open_session(tmp_path / "m.onnx")
    broken.graph.node[0].op_type = "\x1b[2JNo"
    (tmp_path / "m.onnx").write_bytes(broken.SerializeToString())
    with pytest.raises(ExportError):
        open_session(tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


def test_metadata_nested_too_deep_is_passed_over(tmp_path):
    proto = model()
    helper.set_model_props(proto, {"deep": "[" * 100_000, "good": "[1]", "text": "x"})
    onnx.save(proto, tmp_path / "m.onnx")
    assert onnx_metadata(tmp_path / "m.onnx") == {"good": [1]}


def test_an_input_of_any_size_is_not_made(tmp_path):
    onnx.save(model(width=2**40), tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="no input can be made"):
        bench_onnx([tmp_path / "m.onnx"], batch_sizes=[1], provider="cpu")


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_with_another_number_of_inputs_is_not_evaluated(tmp_path, count):
    onnx.save(model(inputs=count), tmp_path / "m.onnx")
    with pytest.raises(ExportError, match=f"has {count} inputs"):
        evaluator(tmp_path / "m.onnx")
