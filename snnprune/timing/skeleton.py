"""ONNX graphs without their weights: what takes an engine its time is the shapes, and those are numbers.

A skeleton has every weight's shape and none of its values, so that a network of hundreds of megabytes is a few
kilobytes, may be written at other widths by changing numbers, and may travel inside a script. The values come from
one file of random numbers, which all weights share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LOCATION = {1: "weights.f32", 10: "weights.f16"}  # by ONNX's number of the element type
_BYTES = {1: 4, 10: 2}
_SMALL = 64  # whole numbers in a tensor that keeps them, such as the shape for a reshape
_INTEGERS = (6, 7)  # int32, int64
_BY_VALUE = ("Resize", "Upsample", "OneHot", "NonMaxSuppression")  # what these do depends on their numbers


def strip(proto: Any) -> Any:
    """A copy of a model without weights, names of files, and whatever else does not take time."""
    import onnx

    found = onnx.ModelProto()
    found.ir_version = proto.ir_version
    found.opset_import.extend(proto.opset_import)
    found.functions.extend(proto.functions)
    graph = found.graph
    graph.name = "g"
    for node in proto.graph.node:
        kept = graph.node.add()
        kept.CopyFrom(node)
        kept.doc_string, kept.name = "", ""
        del kept.metadata_props[:]
    for field in ("input", "output", "value_info"):
        for value in getattr(proto.graph, field):
            kept = getattr(graph, field).add()
            kept.CopyFrom(value)
            del kept.metadata_props[:]
            kept.doc_string = ""
    told = {name for node in proto.graph.node if node.op_type in _BY_VALUE for name in node.input[1:]}
    for weight in proto.graph.initializer:
        graph.initializer.append(_bare(weight, keep=weight.name in told))
    _fold(found)
    _spell_out(found)
    return found


def _fold(proto: Any) -> None:
    """Make weights of what is computed of weights alone.

    Engines do so when they load a graph. The exporter does where the result is small, so that the graphs of two
    cuts would not be alike.
    """
    known, weights = shapes(proto), {weight.name for weight in proto.graph.initializer}
    ends = {value.name for value in proto.graph.output}
    left = []
    for node in proto.graph.node:
        inputs = [name for name in node.input if name]
        kind, dims = known.get(node.output[0], (0, []))
        alone = bool(inputs) and weights.issuperset(inputs) and len(node.output) == 1
        if alone and kind in LOCATION and dims and min(dims) > 0 and node.output[0] not in ends:
            weights.add(node.output[0])
            bare = proto.graph.initializer.add(name=node.output[0], data_type=kind, dims=dims)
            bare.data_location = 1
        else:
            left.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(left)


def _spell_out(proto: Any) -> None:
    """Give every reshape a shape of its own, in full.

    The exporter leaves one dimension open where it can tell no better, which may be another one in another cut,
    and lets reshapes share what happens to be equal in this one.
    """
    import onnx

    known, weights = shapes(proto), {weight.name for weight in proto.graph.initializer}
    for node in proto.graph.node:
        dims = known.get(node.output[0], (0, [0]))[1]
        if node.op_type == "Reshape" and node.input[1] in weights and dims and min(dims) > 0:
            name = f"{node.output[0]} shape"
            proto.graph.initializer.append(onnx.helper.make_tensor(name, 7, [len(dims)], dims))
            node.input[1] = name
    used = {name for node in proto.graph.node for name in node.input} | {v.name for v in proto.graph.output}
    kept = [weight for weight in proto.graph.initializer if weight.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)


def _bare(weight: Any, *, keep: bool) -> Any:
    """A weight without its values, which must not depend on how many there are: a cut is to change numbers alone.

    Scalars keep theirs, as bounds of a clip or exponents.
    """
    import onnx

    count = int(np.prod(weight.dims))
    bare = onnx.TensorProto()
    bare.name, bare.data_type = weight.name, weight.data_type
    bare.dims.extend(weight.dims)
    if weight.data_type in LOCATION and len(weight.dims) and not keep:
        bare.data_location = onnx.TensorProto.EXTERNAL
    elif (
        weight.data_type in _INTEGERS and count > _SMALL and not keep
    ):  # an index: where to look takes no other time
        bare.raw_data = np.zeros(count, onnx.helper.tensor_dtype_to_np_dtype(weight.data_type)).tobytes()
    else:
        bare.CopyFrom(weight)
    return bare


def is_bare(weight: Any) -> bool:
    """Whether a weight's values come from the file of random numbers."""
    return weight.data_location == 1


def shapes(proto: Any) -> dict[str, tuple[int, list[int]]]:
    """Tensor -> its element type and dimensions, where the model states them."""
    graph = proto.graph
    found = {w.name: (w.data_type, list(w.dims)) for w in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        found[value.name] = (tensor.elem_type, [d.dim_value for d in tensor.shape.dim])
    return found


def numbers(proto: Any) -> list[int]:
    """Every whole number of a skeleton that a cut may change, in a fixed order."""
    found: list[int] = []
    _visit(proto, lambda value: found.append(value) or value)
    return found


def with_numbers(proto: Any, values: Sequence[int]) -> Any:
    """A copy with other numbers, in the order of `numbers`."""
    import onnx

    clone = onnx.ModelProto()
    clone.CopyFrom(proto)
    left = iter(values)
    _visit(clone, lambda _: next(left))
    return clone


def _visit(proto: Any, change: Any) -> None:
    """Call `change` on every number, and put what it returns in its place."""
    from onnx import numpy_helper

    graph = proto.graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == 2:  # INT
                attribute.i = change(attribute.i)
            elif attribute.type == 7:  # INTS
                attribute.ints[:] = [change(i) for i in attribute.ints]
    for weight in graph.initializer:
        whole = weight.data_type in _INTEGERS and int(np.prod(weight.dims)) <= _SMALL
        if whole and not is_bare(weight):
            old = numpy_helper.to_array(weight)
            new = np.array([change(int(v)) for v in old.ravel()], dtype=old.dtype).reshape(old.shape)
            weight.CopyFrom(numpy_helper.from_array(new, weight.name))
            continue
        before = int(np.prod(weight.dims))
        weight.dims[:] = [change(d) for d in weight.dims]
        count = int(np.prod(weight.dims))
        if not is_bare(weight) and count != before:
            bare = numpy_helper.to_array(_resized(weight, count))
            weight.CopyFrom(numpy_helper.from_array(bare.reshape(list(weight.dims)), weight.name))
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_value = change(dim.dim_value)


def _resized(weight: Any, count: int) -> Any:
    """A small tensor with more or fewer values, of which the first stands for all others."""
    import onnx
    from onnx import numpy_helper

    dtype = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type)
    first = np.frombuffer(weight.raw_data, dtype)[:1] if weight.raw_data else np.zeros(1, dtype)
    return numpy_helper.from_array(np.repeat(first if len(first) else np.zeros(1, dtype), count))


def content(proto: Any) -> bytes:
    """A skeleton as the bytes of a model whose weights lie in the files of `LOCATION` beside it.

    Weights of one graph begin at different places, so that equal shapes are not equal weights.
    """
    import onnx

    clone = onnx.ModelProto()
    clone.CopyFrom(proto)
    del clone.graph.value_info[:]
    for number, weight in enumerate(clone.graph.initializer):
        if is_bare(weight):
            size = _BYTES[weight.data_type] * int(np.prod(weight.dims))
            place = {"location": LOCATION[weight.data_type], "offset": 4096 * (number % 64), "length": size}
            del weight.external_data[:]
            for key, value in place.items():
                weight.external_data.add(key=key, value=str(value))
    return clone.SerializeToString(deterministic=True)


def weight_bytes(proto: Any) -> tuple[int, int]:
    """Bytes of all weights of a skeleton, and those that the file of random numbers must have."""
    sizes = [_BYTES[w.data_type] * int(np.prod(w.dims)) for w in proto.graph.initializer if is_bare(w)]
    return sum(sizes), max(sizes, default=0) + 4096 * 64


def digest(data: bytes) -> str:
    """The name under which a graph's time is kept."""
    return hashlib.sha256(data).hexdigest()[:32]


def renamed(names: Mapping[str, str], proto: Any) -> Any:
    """The same skeleton with other names of tensors, in place."""
    graph = proto.graph
    for node in graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    for entry in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        entry.name = names.get(entry.name, entry.name)
    return proto
