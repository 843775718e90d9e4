"""ONNX files as ONNX Runtime reads them; nothing but the file itself, and weights beside it, is read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .errors import ExportError, first_line


def open_session(
    source: bytes | Path, providers: Sequence[str] = ("CPUExecutionProvider",), *, threads: int = 0
) -> Any:
    """An ONNX Runtime session that never moves to another provider by itself.

    Weights that an ONNX file keeps in other files are read only from its own folder, and for bytes not at all.

    Args:
        source: a file or its content.
        providers: execution providers in order of preference; which one serves, the session's
            `get_providers()[0]` says.
        threads: within one operator, on the CPU; 0 leaves the choice to ONNX Runtime.

    Raises:
        ExportError: the file is no model that ONNX Runtime can load, or it reaches for other files.
    """
    import onnxruntime

    _refuse_foreign_data(source)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its messages quote the file as it is; what goes wrong is raised anyway
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            source if isinstance(source, bytes) else str(source),
            options,
            providers=list(providers),
            enable_fallback=0,
        )
        session.disable_fallback()
        for entry in (*session.get_inputs(), *session.get_outputs()):
            _ = entry.name, entry.shape  # names that are no UTF-8 fail here and not later
        _ = session.get_modelmeta().custom_metadata_map
    except Exception as error:
        name = "the exported model" if isinstance(source, bytes) else source
        raise ExportError(f"ONNX Runtime cannot load {name} ({first_line(error)}).") from error
    return session


def _refuse_foreign_data(source: bytes | Path) -> None:
    """Older versions of ONNX Runtime read what a file names, wherever it is."""
    import onnx

    name = "the exported model" if isinstance(source, bytes) else source
    try:
        proto = (
            onnx.load_model_from_string(source)
            if isinstance(source, bytes)
            else onnx.load_model(source, format="protobuf", load_external_data=False)
        )
    except Exception as error:
        raise ExportError(f"ONNX Runtime cannot load {name}: it is no ONNX file ({first_line(error)}).") from error
    for graph in [proto.graph, *proto.functions]:
        for tensor in _tensors(graph):
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                continue
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            if isinstance(source, bytes) or not _is_inside(source.parent, place):
                raise ExportError(
                    f"{name} keeps weights in {place[:200]!r}, no file in its own folder, so it is not loaded. "
                    "Save it as one file, or put the weights beside it."
                )


def _tensors(graph: Any) -> Iterator[Any]:
    """All tensors of an ONNX graph or function, those of inner graphs too."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _is_inside(folder: Path, place: str) -> bool:
    try:
        target = (folder / place).resolve()
        return target.is_file() and target.is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name with a zero byte, a loop of links
        return False


def onnx_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata that `export_onnx` stored, decoded: classes, normalisation, input shape, accuracy.

    Args:
        path: of the ONNX file.

    Raises:
        ExportError: it cannot be loaded, or reaches for other files.

    Example:
        >>> check = snnprune.export_onnx(model, "m.onnx", images, metadata={"note": [1, 2]})
        >>> snnprune.onnx_metadata("m.onnx")
        {'note': [1, 2]}
    """
    path = Path(path)
    found = {}
    for key, value in open_session(path).get_modelmeta().custom_metadata_map.items():
        with contextlib.suppress(ValueError, RecursionError):
            found[key] = json.loads(value)
    return found
