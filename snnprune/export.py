"""ONNX export, checked against the model on real inputs in ONNX Runtime."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import ExportError, first_line
from .files import write_atomically
from .inputs import Inputs, batch_size, call, map_tensors, tensors_in, to_dtype, unwrap
from .plain import plain
from .runtime import open_session

logger = logging.getLogger(__name__)

_SINGLE_FILE_LIMIT = int(1.8 * 2**30)
RTOL, ATOL = 1e-3, 1e-5


@dataclass(frozen=True, slots=True)
class ExportCheck:
    """How far the file and the model are apart.

    Attributes:
        path: the file.
        max_abs_error: largest difference of any output.
        relative_error: the same over the standard deviation of the model's output.
        batch_sizes: those that were tried.
        opset: ONNX operator set of the file.
        provider: execution provider that served the check.
    """

    path: Path
    max_abs_error: float
    relative_error: float
    batch_sizes: tuple[int, ...]
    opset: int
    provider: str


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
        ConfigError: `model` is no module.
        ExportError: the model cannot be exported, has no dynamic batch, or ONNX Runtime computes something else.

    Example:
        >>> check = snnprune.export_onnx(small, "small.onnx", images[:8], metadata={"classes": ["a", "b"]})
        >>> check.batch_sizes
        (1, 2, 3, 8)
    """
    path, model = Path(path), unwrap(plain(model, "export_onnx()"))
    if batch_size(example_inputs) < 2:
        raise ExportError("export needs example inputs with a batch of at least 2.")
    # The reference lives on the CPU: a GPU's reduced precision must not decide about the file.
    clone = copy.deepcopy(model).eval().cpu().float()
    inputs = to_dtype(map_tensors(lambda x: x.detach().cpu(), example_inputs), torch.float32)
    proto = _to_proto(clone, inputs)
    if fp16:
        proto = _to_half(proto)
    _finish(proto, metadata or {})
    data = proto.SerializeToString()
    check = check_onnx(clone, data, inputs, path=path, fp16=fp16)
    write_atomically(path, lambda p: p.write_bytes(data))
    return check


def check_onnx(
    model: nn.Module, data: bytes | Path, inputs: Inputs, *, path: Path, fp16: bool = False
) -> ExportCheck:
    """Compare a file with a model at batch sizes 1, 2, 3 and the whole of the inputs.

    Raises:
        ExportError: the outputs differ, or the reference says nothing.
    """
    import onnx

    session = open_session(data)
    if not session.get_inputs() or not session.get_inputs()[0].shape:
        raise ExportError(f"{path}: the file has no input with a batch size.")
    batch = session.get_inputs()[0].shape[0]
    if not isinstance(batch, str):
        raise ExportError(
            f"{path}: the exported batch size is fixed at {batch}; the model's code uses a constant batch size."
        )
    sizes = sorted({n for n in (1, 2, 3, batch_size(inputs)) if n <= batch_size(inputs)})
    worst = relative = 0.0
    names = [i.name for i in session.get_inputs()]
    for size in sizes:
        part = map_tensors(lambda x, n=size: x[:n], inputs)
        with torch.no_grad():
            reference = [t.numpy() for t in tensors_in(call(model, part))]
        feeds = dict(zip(names, [t.numpy() for t in tensors_in(part)], strict=True))
        outputs = session.run(None, feeds)
        if len(outputs) != len(reference):
            raise ExportError(f"{path}: {len(outputs)} outputs in the file, {len(reference)} in the model.")
        for ours, theirs in zip(reference, outputs, strict=True):
            gap = _gap(ours, theirs, size, path, fp16)
            spread = float(np.std(ours)) or 1.0
            worst, relative = max(worst, gap), max(relative, gap / spread)
    raw = data if isinstance(data, bytes) else data.read_bytes()
    opset = max(o.version for o in onnx.load_model_from_string(raw).opset_import if o.domain in ("", "ai.onnx"))
    return ExportCheck(path, worst, relative, tuple(sizes), opset, session.get_providers()[0])


def _gap(ours: np.ndarray, theirs: np.ndarray, size: int, path: Path, fp16: bool) -> float:
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        raise ExportError(
            f"{path}: at batch size {size} ONNX Runtime gives {theirs.shape} or NaN, not {ours.shape}."
        )
    largest = float(np.abs(ours).max()) if ours.size else 0.0
    allowed = 5e-3 * largest if fp16 else RTOL * np.abs(ours) + ATOL * max(1.0, largest)
    difference = np.abs(ours - theirs)
    if (difference > allowed).any():
        raise ExportError(
            f"{path}: at batch size {size} ONNX Runtime differs from the model by {difference.max():.3g} "
            f"(largest output {largest:.3g}). The file is not written."
        )
    return float(difference.max()) if ours.size else 0.0


def _to_proto(model: nn.Module, inputs: Inputs) -> Any:
    """Export with a dynamic first dimension of every input."""
    if sum(p.numel() * p.element_size() for p in model.parameters()) > _SINGLE_FILE_LIMIT:
        raise ExportError("the model is larger than 1.8 GiB, which one ONNX file cannot hold.")
    small = map_tensors(lambda x: x[:2].contiguous(), inputs)
    args: tuple[Any, ...] = (small,) if isinstance(small, Tensor) else small if isinstance(small, tuple) else ()
    kwargs = small if isinstance(small, dict) else {}

    def dynamic(value: Any) -> Any:
        return {0: "batch"} if isinstance(value, Tensor) and value.dim() else None

    shapes: Any = tuple(map(dynamic, args)) if args else {k: dynamic(v) for k, v in kwargs.items()}
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model, args, kwargs=kwargs, dynamo=True, dynamic_shapes=shapes, verbose=False
            )
    except Exception as error:
        cause: BaseException = error  # the exporter wraps what went wrong in an account of its steps
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ExportError(
            f"the model cannot be exported to ONNX ({type(cause).__name__}: {first_line(cause)}). "
            "`result.save(folder, onnx=False)` writes the PyTorch model alone."
        ) from error
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's prints and log lines off the terminal."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)


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
    return half.model


def _finish(proto: Any, metadata: Mapping[str, Any]) -> None:
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
    onnx.helper.set_model_props(proto, {k: json.dumps(v) for k, v in metadata.items()})
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ExportError(f"the exported model is not valid ONNX ({first_line(error)}).") from error
