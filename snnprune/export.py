"""ONNX export, checked against the model on real inputs in ONNX Runtime."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import streams
from .errors import ConfigError, ExportError, first_line
from .exporter import reason, to_proto
from .files import check_name, json_of, write_atomically
from .inputs import Inputs, batch_size, call, first_rows, in_float32, map_tensors, tensors_in, to_dtype, unwrap
from .options import checked, path_of
from .parity import ExportCheck, check_onnx
from .plain import plain
from .shown import brief_repr


def export_onnx(
    model: nn.Module,
    path: str | Path,
    example_inputs: Inputs,
    *,
    metadata: Mapping[str, Any] | None = None,
    fp16: bool = False,
) -> ExportCheck:
    """Write a model as one ONNX file with a dynamic batch size, and prove it.

    The file is put in place only after ONNX Runtime has given the model's outputs on the example
    inputs at several batch sizes (`|a - b| <= 1e-3 |a| + 1e-5 max(1, max |a|)`).

    Args:
        model: a plain network; it is exported in eval mode and left as it was. DataParallel, AveragedModel and
            `torch.compile` wrappers are looked through.
        path: file to write.
        example_inputs: real inputs, a batch of at least 2; their number bounds the batches tried.
        metadata: stored in the file as JSON strings (classes, mean, std, ...).
        fp16: convert the weights to half precision; inputs and outputs stay float32. The check then allows
            0.5 % of the largest output.

    Returns:
        How far file and model are apart, at which batch sizes, and the file's opset.

    Raises:
        AttachError: the model has gates attached.
        ConfigError: `model` is no module, or another argument is not what it must be.
        ExportError: the model cannot be exported, has no dynamic batch, or ONNX Runtime computes something else.

    Example:
        >>> check = snnprune.export_onnx(small, "small.onnx", images[:8], metadata={"classes": ["a", "b"]})
        >>> check.batch_sizes
        (1, 2, 3, 8)
    """
    path, model = path_of("path", path), unwrap(plain(model, "export_onnx()"))
    check_name(path)
    fp16, stored = checked("fp16", fp16, bool), _stored(metadata)
    if batch_size(example_inputs) < 2:
        raise ExportError("export needs example inputs with a batch of at least 2.")
    with _plainly():
        # The reference lives on the CPU: a GPU's reduced precision must not decide about the file.
        clone = copy.deepcopy(model).eval().cpu().float().requires_grad_(False)
        inputs = to_dtype(map_tensors(lambda x: x.detach().cpu().clone(), example_inputs), torch.float32)
        _refuse_what_cannot_be_compared(clone, first_rows(inputs, 2))
        proto = to_proto(clone, inputs)
        if fp16:
            proto = _to_half(proto)
        _finish(proto, stored)
        data = proto.SerializeToString()
        check = check_onnx(clone, data, inputs, path=path, fp16=fp16)
    write_atomically(path, lambda p: p.write_bytes(data))
    return check


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    """Float32 without gradients, whatever the caller has set; the random numbers of others are left alone."""
    with (
        in_float32(),
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        streams.kept(),
    ):
        yield


def _refuse_what_cannot_be_compared(model: nn.Module, inputs: Inputs) -> None:
    """Outputs that are no tensors, and those that chance decides."""
    try:
        once, again = (tensors_in(call(model, inputs)) for _ in range(2))
    except Exception as error:
        raise ExportError(f"the model does not run on the example inputs ({reason(error)}).") from error
    if not once:
        raise ExportError("the model returns no tensor, so there is nothing to export.")
    for one, other in zip(once, again, strict=False):
        if one.shape != other.shape or not torch.allclose(
            one.double(), other.double(), 1e-3, 1e-5, equal_nan=True
        ):
            raise ExportError(
                "the model draws random numbers in eval mode: twice the same inputs give other outputs, so no "
                "file can be compared with it. Let it draw only where `self.training`."
            )


def half_precision(data: bytes) -> bytes:
    """A serialised float32 model with half-precision weights; inputs and outputs keep their type."""
    import onnx

    return _to_half(onnx.load_model_from_string(data)).SerializeToString()


def _to_half(proto: Any) -> Any:
    """Half-precision weights; inputs and outputs keep their type."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = OnnxModel(convert_float_to_float16(proto, keep_io_types=True))
    half.topological_sort()
    _forget_shapes_of_weights(half.model)
    return half.model


def _forget_shapes_of_weights(proto: Any) -> None:
    """Drop the shapes that the exporter notes of weights beside the weights themselves.

    They say nothing new, and go stale when a tool turns a weight around, as ONNX Runtime's quantiser does,
    which then refuses its own file.
    """
    weights = {weight.name for weight in proto.graph.initializer}
    others = [entry for entry in proto.graph.value_info if entry.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(others)


def _stored(metadata: object) -> dict[str, str]:
    """Metadata as the file holds them: names, and JSON."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping) or not all(isinstance(name, str) for name in metadata):
        raise ConfigError(f"metadata={brief_repr(metadata)} must be a dict with names as its keys.")
    return {name: json_of(f"metadata[{name[:100]!r}]", value, ConfigError) for name, value in metadata.items()}


def _finish(proto: Any, metadata: Mapping[str, str]) -> None:
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
    _forget_shapes_of_weights(proto)
    onnx.helper.set_model_props(proto, dict(metadata))
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ExportError(f"the exported model is not valid ONNX ({first_line(error)}).") from error
