"""Damage to the fields of an ONNX graph."""

from __future__ import annotations

from random import Random

import onnx

from .raw import mutate_bytes

_PLACES = (
    "../../etc/passwd",
    "/etc/passwd",
    "",
    "w.bin",
    ".",
    "*/_ORT_MEM_ADDR_/*",
    "model.onnx",
    "a\\..\\b",
    "x" * 5000,
)
_NUMBERS = (
    "0",
    "1",
    "-1",
    "16",
    "4096",
    str(2**40),
    str(2**63),
    str(2**64),
    "",
    "0x10",
    "1e3",
    "\u0663",
    " 4",
    "9" * 5000,
)


def _put_outside(random: Random, tensor: onnx.TensorProto) -> None:
    """Say that the values of a tensor are elsewhere, in any form."""
    tensor.data_location = random.choice((onnx.TensorProto.EXTERNAL,) * 4 + (onnx.TensorProto.DEFAULT,))
    if random.random() < 0.5:
        tensor.ClearField("raw_data")
    if random.random() < 0.1:
        tensor.data_type = random.choice((0, 1, 8, 15, 22, 99))
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        key = random.choice(("location", "location", "offset", "length", "checksum", "basepath", ""))
        tensor.external_data.add(
            key=key, value=random.choice(_NUMBERS if key in ("offset", "length") else _PLACES)
        )
    if random.random() < 0.5:
        tensor.external_data.add(key="location", value=random.choice(_PLACES))


def mutate_onnx(random: Random, data: bytes) -> bytes:
    """Fields of the graph; sometimes the bytes."""
    if random.random() < 0.5:
        return mutate_bytes(random, data)
    proto = onnx.load_model_from_string(data)
    graph = proto.graph
    for _ in range(random.choice((1, 1, 2))):
        kind = random.randrange(10)
        tensor, node = random.choice(graph.initializer), random.choice(graph.node)
        if kind == 0:
            _put_outside(random, tensor)
        elif kind == 9:
            inner = onnx.TensorProto(name="inner", data_type=tensor.data_type, dims=tensor.dims)
            _put_outside(random, inner)
            where = random.choice((node.attribute.add(name="value").t, proto.training_info.add().algorithm))
            where.CopyFrom(inner) if isinstance(where, onnx.TensorProto) else where.initializer.append(inner)
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
