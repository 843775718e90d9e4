"""Graphs without weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from snnprune.timing.skeleton import content, numbers, shapes, strip, weight_bytes, with_numbers


def network(width: int, values: float = 0.0) -> onnx.ModelProto:
    """A convolution, a resize, a clip, a table that is looked up and a reshape with an open dimension."""
    rng = np.random.default_rng(width)
    weights = {
        "conv": rng.standard_normal((width, 2, 3, 3)).astype(np.float32) + values,
        "bias": rng.standard_normal(width).astype(np.float32) + values,
        "scales": np.array([1, 1, 2, 2], np.float32),
        "high": np.array(6, np.float32),
        "table": np.arange(100, dtype=np.int64),
        "to": np.array([1, -1, 8 * 8], np.int64),
    }
    nodes = [
        helper.make_node(
            "Conv", ["x", "conv", "bias"], ["c"], pads=[1, 1, 1, 1], name="secret", doc_string="secret"
        ),
        helper.make_node("Resize", ["c", "", "scales"], ["r"]),
        helper.make_node("Clip", ["r", "", "high"], ["l"]),
        helper.make_node("Reshape", ["l", "to"], ["y"]),
        helper.make_node("Identity", ["table"], ["t"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "secret",
        [value("x", 1, [1, 2, 4, 4])],
        [value("y", 1, [1, width, 64]), value("t", 7, [100])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
        value_info=[
            value("c", 1, [1, width, 4, 4]),
            value("r", 1, [1, width, 8, 8]),
            value("l", 1, [1, width, 8, 8]),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made.metadata_props.add(key="secret", value="secret")
    onnx.checker.check_model(made)
    return made


def test_only_numbers_tell_widths_apart():
    """Also narrow ones: what is left of a weight does not depend on how many values it has."""
    one, other = strip(network(2)), strip(network(96))
    assert len(numbers(one)) == len(numbers(other))
    assert content(with_numbers(one, numbers(other))) == content(other)
    assert with_numbers(one, numbers(one)) == one


def test_values_and_words_do_not_tell():
    assert content(strip(network(3))) == content(strip(network(3, values=1.0)))
    assert b"secret" not in content(strip(network(3)))


def test_what_decides_the_work_is_kept():
    weights = {w.name: w for w in strip(network(8)).graph.initializer}
    assert numpy_helper.to_array(weights["scales"]).tolist() == [1, 1, 2, 2]
    assert numpy_helper.to_array(weights["high"]) == 6
    assert not numpy_helper.to_array(weights["table"]).any()
    assert list(weights["table"].dims) == [100]
    assert numpy_helper.to_array(weights["y shape"]).tolist() == [1, 8, 64], "and no dimension is left open"
    assert "to" not in weights


def test_shapes_and_bytes():
    skeleton = strip(network(8))
    known = shapes(skeleton)
    assert known["conv"] == (TensorProto.FLOAT, [8, 2, 3, 3])
    assert known["r"] == (1, [1, 8, 8, 8])
    assert weight_bytes(skeleton) == (4 * (8 * 18 + 8), 4 * 8 * 18 + 4096 * 64)
    assert weight_bytes(strip(helper.make_model(helper.make_graph([], "g", [], [])))) == (0, 4096 * 64)


@pytest.mark.parametrize("width", [1, 5, 70])
def test_an_engine_runs_it(tmp_path, width):
    from snnprune.timing.portable import open_graph, write_weights

    skeleton = with_numbers(strip(network(4)), numbers(strip(network(width))))
    write_weights(tmp_path, weight_bytes(skeleton)[1])
    open_graph(content(skeleton), tmp_path, [("CPUExecutionProvider", {})], 1)


def test_what_is_computed_of_weights_alone_is_a_weight():
    """The exporter folds small constants itself, so that two cuts would have other operations."""
    value = helper.make_tensor_value_info
    table = numpy_helper.from_array(np.ones((9, 4), np.float32), "table")
    nodes = [
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("Relu", ["turned"], ["bias"]),
        helper.make_node("Add", ["x", "bias"], ["y"]),
    ]
    between = [value(name, 1, [4, 9]) for name in ("turned", "bias")]
    ends = [value(name, 1, [4, 9]) for name in ("x", "y")]
    long = helper.make_graph(nodes, "g", ends[:1], ends[1:], [table], value_info=between)
    folded = numpy_helper.from_array(np.ones((4, 9), np.float32), "bias")
    short = helper.make_graph(nodes[2:], "g", ends[:1], ends[1:], [folded])
    one, other = (content(strip(helper.make_model(graph))) for graph in (long, short))
    assert one == other
