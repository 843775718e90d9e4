"""Damage to the fields of an ONNX graph."""

from __future__ import annotations

from random import Random

import onnx

from .raw import mutate_bytes


def mutate_onnx(random: Random, data: bytes) -> bytes:
    """Fields of the graph; sometimes the bytes."""
    if random.random() < 0.5:
        return mutate_bytes(random, data)
    proto = onnx.load_model_from_string(data)
    graph = proto.graph
    for _ in range(random.choice((1, 1, 2))):
        kind = random.randrange(9)
        tensor, node = random.choice(graph.initializer), random.choice(graph.node)
        if kind == 0:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            entry = tensor.external_data.add()
            entry.key, entry.value = (
                "location",
                random.choice(("../../etc/passwd", "/etc/passwd", "", "w.bin", ".")),
            )
        elif kind == 1 and tensor.dims:
            tensor.dims[0] = random.choice((0, -1, 1, 2**40, 2**62))
        elif kind == 2:
            node.op_type = random.choice(("Add", "Reshape", "Relu", "ConstantOfShape", "If", "X", ""))
        elif kind == 3 and node.input:
            node.input[0] = random.choice(("", "x", random.choice(graph.initializer).name))
        elif kind == 4:
            entry = proto.metadata_props.add()
            entry.key, entry.value = (
                "snnprune.normalization",
                random.choice(("[" * 10**5, "{}", "NaN", "x", "[1,2")),
            )
        elif kind == 5:
            shape = graph.input[0].type.tensor_type.shape
            random.choice(shape.dim).dim_value = random.choice((0, 1, 3, 2**40, -1))
        elif kind == 6:
            proto.opset_import[0].version = random.choice((0, 1, 7, 99, -1))
        elif kind == 7:
            graph.input.extend([graph.input[0]] if random.random() < 0.5 else [])
            del graph.output[random.randrange(2) :]
        else:
            graph.input[0].type.tensor_type.elem_type = random.choice((0, 1, 7, 8, 10, 99))
    return proto.SerializeToString()
