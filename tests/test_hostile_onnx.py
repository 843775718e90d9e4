"""ONNX files that reach for other files, or ask for more than is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from snnprune.analysis.evaluating import evaluator
from snnprune.errors import ExportError
from snnprune.runtime import onnx_metadata, open_session
from snnprune.timing.bench import bench_onnx

EXTERNAL = "no file in its own folder"


Location = str | Sequence[tuple[str, str]] | None


def tensor(location: Location, kind: int = TensorProto.FLOAT, dims: Sequence[int] = (4,)) -> TensorProto:
    """Four weights, in the file or in another one, or where these entries say."""
    if location is None:
        return helper.make_tensor("w", TensorProto.FLOAT, [4], [0.0, 1.0, 2.0, 3.0])
    found = TensorProto(name="w", data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in [("location", location)] if isinstance(location, str) else location:
        entry = found.external_data.add()
        entry.key, entry.value = key, value
    return found


def model(
    location: Location = None, *, where: str = "initializer", width: int = 4, inputs: int = 1
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
    functions, sparse, opsets = [], [], [helper.make_opsetid("", 17)]
    if where == "function":
        constant = helper.make_node("Constant", [], ["z"], value=tensor(location))
        functions = [helper.make_function("own", "F", [], ["z"], [constant], opsets)]
        nodes, weights = [helper.make_node("F", [], ["w"], domain="own"), last], []
        opsets = [*opsets, helper.make_opsetid("own", 1)]
    if where == "sparse":
        places = helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3])
        sparse, weights = [onnx.SparseTensorProto(values=tensor(location), indices=places, dims=[4])], []
    graph = helper.make_graph(nodes, "g", x, [y], weights, sparse_initializer=sparse)
    found = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)
    if where == "training":
        found.graph.initializer[0].CopyFrom(tensor(None))
        found.training_info.add().initialization.initializer.append(tensor(location))
    return found


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


@pytest.fixture
def nothing_opened(monkeypatch):
    import onnxruntime

    def opened(*args, **kwargs):
        pytest.fail("ONNX Runtime was asked, and older versions of it read any file")

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)


WHERE = ["initializer", "constant", "branch", "function", "sparse", "training"]


@pytest.mark.usefixtures("nothing_opened")
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    "location", ["../secret.bin", "ABSOLUTE", "link.bin", "loop.bin", "absent.bin", "", ".", "a\0b"]
)
def test_weights_are_read_only_from_the_file_s_own_folder(folder, where, location):
    location = str(folder.parent / "secret.bin") if location == "ABSOLUTE" else location
    path = folder / "m.onnx"
    path.write_bytes(model(location, where=where).SerializeToString())
    for reader in (open_session, onnx_metadata, evaluator, lambda p: bench_onnx([p], engine="cpu")):
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


OWN, ADDRESS = ("location", "own.bin"), ("location", "*/_ORT_MEM_ADDR_/*")
ENTRIES = {
    "two files": [OWN, ("location", "../secret.bin")],
    "two files, turned": [("location", "../secret.bin"), OWN],
    "any file": [OWN, ("location", "/etc/passwd")],
    "one file twice": [OWN, OWN],
    "an address": [ADDRESS, ("offset", "4096"), ("length", "16")],
    "an address beside a file": [OWN, ADDRESS, ("offset", "4096"), ("length", "16")],
    "an address that is a file": [("location", "_ORT_MEM_ADDR_/own.bin")],
    "two offsets": [OWN, ("offset", "0"), ("offset", "4")],
    "an offset beyond the file": [OWN, ("offset", "100000")],
    "an offset that leaves too little": [OWN, ("offset", "4")],
    "an offset before the file": [OWN, ("offset", "-8")],
    "an offset in other digits": [OWN, ("offset", "\u0661")],
    "an offset of more than 64 bits": [OWN, ("offset", "18446744073709551616")],
    "an offset of words": [OWN, ("offset", "0x0")],
    "no offset": [OWN, ("offset", "")],
    "a length beyond the file": [OWN, ("length", "99999")],
    "a length of another tensor": [OWN, ("length", "8")],
    "an unknown key": [OWN, ("basepath", "/etc")],
    "a key of another case": [OWN, ("Location", "../secret.bin")],
    "no place": [("offset", "0"), ("length", "16")],
    "nothing": [],
}


@pytest.mark.usefixtures("nothing_opened")
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("entries", ENTRIES.values(), ids=ENTRIES)
def test_a_tensor_has_one_place_that_is_there(folder, entries, where):
    (folder / "_ORT_MEM_ADDR_").mkdir()
    (folder / "_ORT_MEM_ADDR_" / "own.bin").write_bytes(bytes(16))
    path = folder / "m.onnx"
    path.write_bytes(model(entries, where=where).SerializeToString())
    for source in (path, path.read_bytes()):
        with pytest.raises(ExportError, match="keeps weights in") as caught:
            open_session(source)
        assert len(str(caught.value)) < 1000


@pytest.mark.usefixtures("nothing_opened")
@pytest.mark.parametrize(
    ("kind", "dims"),
    [
        (TensorProto.FLOAT, [5]),
        (TensorProto.DOUBLE, [4]),
        (TensorProto.FLOAT, [-1]),
        (TensorProto.STRING, [1]),
        (99, [1]),
    ],
)
def test_the_bytes_of_a_tensor_must_be_there(folder, kind, dims):
    found = model("own.bin")
    found.graph.initializer[0].CopyFrom(tensor("own.bin", kind, dims))
    (folder / "m.onnx").write_bytes(found.SerializeToString())
    with pytest.raises(ExportError, match="keeps weights in"):
        open_session(folder / "m.onnx")


@pytest.mark.usefixtures("nothing_opened")
def test_a_tensor_that_is_in_the_file_is_nowhere_else(folder):
    found = model()
    entry = found.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "own.bin"
    (folder / "m.onnx").write_bytes(found.SerializeToString())
    with pytest.raises(ExportError, match="and in itself"):
        open_session(folder / "m.onnx")


@pytest.mark.usefixtures("nothing_opened")
def test_nodes_that_name_files_are_refused(folder):
    found = model()
    node = found.graph.node.add(op_type="EPContext", domain="com.microsoft")
    node.attribute.append(helper.make_attribute("ep_cache_context", "../secret.bin"))
    (folder / "m.onnx").write_bytes(found.SerializeToString())
    with pytest.raises(ExportError, match="a file that a node names"):
        open_session(folder / "m.onnx")


@pytest.mark.parametrize("entries", [[OWN], [OWN, ("offset", "0"), ("length", "16")], [OWN, ("checksum", "x")]])
@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_every_way_to_name_the_whole_file_is_read(folder, entries, where):
    (folder / "m.onnx").write_bytes(model(entries, where=where).SerializeToString())
    x = np.zeros((1, 4), np.float32)
    assert open_session(folder / "m.onnx").run(None, {"x0": x})[0].tolist() == [[0.0, 1.0, 2.0, 3.0]]


def test_a_file_is_taken_for_what_was_looked_at(monkeypatch):
    """ONNX Runtime has a format of its own, told by its first bytes, which an ONNX file may begin with as well."""
    import onnxruntime

    seen = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda source, options, **_: seen.append(options) or None)
    with pytest.raises(ExportError):
        open_session(model().SerializeToString())
    assert seen[0].get_session_config_entry("session.load_model_format") == "ONNX"


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
        bench_onnx([tmp_path / "m.onnx"], batch_sizes=[1], engine="cpu")


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_with_another_number_of_inputs_is_not_evaluated(tmp_path, count):
    onnx.save(model(inputs=count), tmp_path / "m.onnx")
    with pytest.raises(ExportError, match=f"has {count} inputs"):
        evaluator(tmp_path / "m.onnx")
