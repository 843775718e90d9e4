"""What is done to an ONNX graph after it was made: half precision, fixed batch, names, metadata."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from .errors import ConfigError, ExportError, first_line
from .options import Text, each
from .shown import brief_repr, cut

_Name = Annotated[str, Text("a name of 1 to 100 characters that can be shown", longest=100)]


def in_form(
    data: bytes,
    *,
    fp16: bool = False,
    batch: int | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> bytes:
    """A file with a free batch in another form; its metadata stay.

    Args:
        data: content of the file.
        fp16: half-precision weights.
        batch: inputs per call; None for any number.
        input_names: of its inputs.
        output_names: of its outputs.

    Raises:
        ConfigError: names that do not go with it.
        ExportError: what comes out is no valid model.
    """
    import onnx

    proto = onnx.load_model_from_string(data)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    proto = with_fixed_batch(proto, batch) if batch is not None else proto
    proto = renamed(to_half(proto) if fp16 else proto, input_names, output_names)
    finish(proto, metadata)
    return proto.SerializeToString()


def to_half(proto: Any) -> Any:
    """Half-precision weights; inputs and outputs keep their type."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = OnnxModel(convert_float_to_float16(proto, keep_io_types=True))
    half.topological_sort()
    forget_shapes_of_weights(half.model)
    return half.model


def forget_shapes_of_weights(proto: Any) -> None:
    """Drop the shapes that the exporter notes of weights beside the weights themselves.

    They say nothing new, and go stale when a tool turns a weight around, as ONNX Runtime's quantiser does,
    which then refuses its own file.
    """
    weights = {weight.name for weight in proto.graph.initializer}
    others = [entry for entry in proto.graph.value_info if entry.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(others)


def with_fixed_batch(proto: Any, batch: int) -> Any:
    """The same model for one batch size alone; what was computed from the batch size becomes constant."""
    import onnx
    from onnxscript import optimizer

    free = {i.type.tensor_type.shape.dim[0].dim_param for i in proto.graph.input if i.type.tensor_type.shape.dim}
    for entry in (*proto.graph.input, *proto.graph.output):
        for dim in entry.type.tensor_type.shape.dim:
            if dim.dim_param in free - {""}:
                dim.dim_value = batch
    del proto.graph.value_info[:]
    folded = optimizer.optimize(onnx.shape_inference.infer_shapes(proto, data_prop=True))
    return onnx.shape_inference.infer_shapes(folded)


def renamed(proto: Any, inputs: Sequence[str] | None, outputs: Sequence[str] | None) -> Any:
    """The same model with other names for its inputs and outputs; values inside that have such a name give way.

    Raises:
        ConfigError: not as many names as inputs or outputs, one that stands twice, or that a weight has.
    """
    import onnx

    graph = proto.graph
    own = [entry.name for entry in graph.input]
    new_in = _names("input_names", inputs, own)
    new_out = _names("output_names", outputs, [entry.name for entry in graph.output])
    if inputs is None and outputs is None:
        return proto
    weights, every = {weight.name for weight in graph.initializer}, [*new_in, *new_out]
    for name in every:
        if every.count(name) > 1:
            raise ConfigError(f"{brief_repr(name)} stands twice among the names of inputs and outputs.")
        if name in weights:
            raise ConfigError(f"{brief_repr(name)} is the name of a weight in the file. Choose another.")
    taken = {*own, *weights}
    for entry in graph.output:
        if entry.name in taken:  # an input or a weight as it is, or one value twice: each needs a name of its own
            free = _unused(f"{entry.name}_out", proto)
            graph.node.append(onnx.helper.make_node("Identity", [entry.name], [free]))
            entry.name = free
        taken.add(entry.name)
    new = dict(zip([*own, *(entry.name for entry in graph.output)], every, strict=True))
    inside = value_names(proto) - new.keys()
    new |= {name: _unused(f"{name}_inner", proto, every) for name in every if name in inside}
    rename_values(proto, new)
    return proto


def _names(what: str, given: Sequence[str] | None, own: list[str]) -> list[str]:
    if given is None:
        return own
    found = each(what, given, _Name)
    if len(found) != len(own):
        shown = ", ".join(cut(name, 50) for name in own[:8])
        raise ConfigError(f"{what}: the file has {len(own)} of them ({shown}), and {len(found)} names were given.")
    return found


def _unused(name: str, proto: Any, others: Sequence[str] = ()) -> str:
    taken = value_names(proto) | set(others)
    numbered = (f"{name}_{i}" for i in itertools.count())
    return next(n for n in itertools.chain([name], numbered) if n not in taken)


def value_names(proto: Any) -> set[str]:
    """Every name of a value: inputs, outputs, weights, and what lies between."""
    found = set()
    for graph in _graphs(proto):
        found |= {n for node in graph.node for n in (*node.input, *node.output)}
        found |= {i.name for i in (*graph.input, *graph.output, *graph.initializer)}
    return found - {""}


def rename_values(proto: Any, new: Mapping[str, str]) -> None:
    """Give values other names, in the graph and in those within its nodes."""
    for graph in _graphs(proto):
        for node in graph.node:
            node.input[:] = [new.get(n, n) for n in node.input]
            node.output[:] = [new.get(n, n) for n in node.output]
        for entry in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
            entry.name = new.get(entry.name, entry.name)


def _graphs(proto: Any) -> list[Any]:
    found = [proto.graph]
    for graph in found:
        found += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return found


def hold_zeros(proto: Any) -> None:
    """Keep ONNX Runtime from merging a `Pad` by zeros into the max pooling behind it.

    Version 1.31 does so, and the pooling then pads by minus infinity: wrong where all other values are negative.
    Only zeros are merged, so the least number of the type stands for them.
    """
    import numpy as np
    from onnx import numpy_helper

    graph = proto.graph
    pooled = {node.input[0] for node in graph.node if node.op_type == "MaxPool"}
    weights = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        value = weights.get(node.input[2]) if node.op_type == "Pad" and len(node.input) > 2 else None
        if value is None or node.output[0] not in pooled:
            continue
        zero = numpy_helper.to_array(value)
        if zero.dtype.kind == "f" and not zero.any():
            least = np.full_like(zero, np.finfo(zero.dtype).tiny)
            node.input[2] = _unused(f"{value.name}_least", proto)
            graph.initializer.append(numpy_helper.from_array(least, node.input[2]))
            if not any(value.name in other.input for other in graph.node) and value in graph.initializer:
                graph.initializer.remove(value)  # ONNX Runtime warns of what nothing reads


def finish(proto: Any, metadata: Mapping[str, str]) -> None:
    """Strip what names files of this machine, add our metadata, and run the checker."""
    import onnx

    for graph in [proto.graph, *proto.functions]:
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        for field in ("value_info", "input", "output", "initializer"):
            for entry in getattr(graph, field, ()):
                if hasattr(entry, "metadata_props") and not isinstance(entry, str):
                    del entry.metadata_props[:]
        if hasattr(graph, "metadata_props"):
            del graph.metadata_props[:]
    forget_shapes_of_weights(proto)
    onnx.helper.set_model_props(proto, dict(metadata))
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ExportError(f"the exported model is not valid ONNX ({first_line(error)}).") from error
