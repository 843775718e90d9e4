"""ONNX files as ONNX Runtime reads them; nothing but the file itself, and weights beside it, is read."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ExportError, first_line

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_KEYS = {"location", "offset", "length", "checksum"}
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_MEMORY = "_ORT_MEM_ADDR_"  # with it ONNX Runtime means an address in its own memory
_BITS = {
    **dict.fromkeys(("UINT2", "INT2"), 2),
    **dict.fromkeys(("UINT4", "INT4", "FLOAT4E2M1"), 4),
    **dict.fromkeys(
        ("BOOL", "INT8", "UINT8", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"), 8
    ),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16),
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 32),
    **dict.fromkeys(("DOUBLE", "INT64", "UINT64", "COMPLEX64"), 64),
    "COMPLEX128": 128,
}


def open_session(
    source: bytes | Path,
    providers: Sequence[str] = (_CPU,),
    *,
    threads: int = 0,
    settings: Mapping[str, Mapping[str, str]] | None = None,
    literal: bool = False,
) -> Any:
    """An ONNX Runtime session that never moves to another provider by itself.

    Weights that an ONNX file keeps in other files are read only from its own folder, and for bytes not at all.
    Each tensor must name one file, in which all its bytes are.

    Args:
        source: a file or its content.
        providers: execution providers in order of preference; which one serves, the session's
            `get_providers()[0]` says.
        threads: within one operator, on the CPU; 0 leaves the choice to ONNX Runtime.
        settings: of providers, by their names.
        literal: quantised layers as they are defined, and not by the provider's kernels, some of which overflow.

    Raises:
        ExportError: the file is no model that ONNX Runtime can load, or it reaches for other files.
    """
    import onnxruntime

    _refuse_foreign_data(source)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.load_model_format", "ONNX")  # and not what the first bytes claim
    options.log_severity_level = 4  # its messages quote the file as it is; what goes wrong is raised anyway
    options.intra_op_num_threads = threads
    if literal:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads > 1:  # else its threads take the cores from whoever comes next, for some time after a call
        options.add_session_config_entry("session.force_spinning_stop", "1")
    given = settings or {}
    try:
        session = onnxruntime.InferenceSession(
            source if isinstance(source, bytes) else str(source),
            options,
            providers=[(name, dict(given.get(name, {}))) for name in providers],
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


def device_session(source: bytes | Path) -> Any | None:
    """A session on the GPU; None where ONNX Runtime gets none here.

    Args:
        source: a file or its content.

    Raises:
        ExportError: as of `open_session`.
    """
    import onnxruntime

    if _CUDA not in onnxruntime.get_available_providers():
        return None
    onnxruntime.set_default_logger_severity(4)  # that there is no GPU is what is asked, and no error
    try:
        if hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls()  # CUDA's libraries from where pip put them
        session = open_session(source, (_CUDA, _CPU))
    finally:
        onnxruntime.set_default_logger_severity(2)
    return session if session.get_providers()[0] == _CUDA else None


class _Refused(Exception):
    """Why weights outside the file are not read."""


def _refuse_foreign_data(source: bytes | Path) -> None:
    """Leave nothing to ONNX Runtime, whose versions differ in what they read: any file, or any place in memory."""
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
    folder = None if isinstance(source, bytes) else source.parent
    for message in _messages(proto):
        kind = message.DESCRIPTOR.name
        try:
            if kind == "TensorProto":
                _check_tensor(message, folder, onnx.TensorProto)
            elif kind == "NodeProto" and message.op_type == "EPContext":
                raise _Refused("compiled code in a file that a node names")
        except _Refused as why:
            raise ExportError(
                f"{name} keeps weights in {why}, so it is not loaded. Save it as one file, or put the weights "
                "beside it."
            ) from None


def _messages(proto: Any) -> Iterator[Any]:
    """A message and all those in it, wherever they are; nothing else of them is looked at."""
    inner: dict[str, list[str]] = {}
    todo = [proto]
    while todo:
        message = todo.pop()
        yield message
        form = message.DESCRIPTOR
        if form.full_name not in inner:
            inner[form.full_name] = [field.name for field in form.fields if field.message_type is not None]
        for name in inner[form.full_name]:
            found = getattr(message, name)
            if not hasattr(found, "DESCRIPTOR"):  # several
                todo += found
            elif message.HasField(name):
                todo.append(found)


def _check_tensor(tensor: Any, folder: Path | None, kinds: Any) -> None:
    entries = [(entry.key, entry.value) for entry in tensor.external_data]
    if tensor.data_location != kinds.EXTERNAL:
        if entries:
            raise _Refused(f"{_shown(entries)} and in itself")
        return
    values = dict(entries)
    place = values.get("location", "")
    if folder is None or _MEMORY in place or not _is_inside(folder, place):
        raise _Refused(f"{place[:200]!r}, no file in its own folder")
    if len(values) != len(entries) or not values.keys() <= _KEYS:
        raise _Refused(f"{_shown(entries)}, which is no one place")
    numbers = {key: values[key] for key in ("offset", "length") if key in values}
    if not all(_NUMBER.fullmatch(value) for value in numbers.values()):
        raise _Refused(f"{_shown(entries)}, which is no place")
    size = _size(tensor, kinds)
    begin, length = int(numbers.get("offset", 0)), int(numbers.get("length", size))
    if length != size or begin + length > (folder / place).stat().st_size:
        raise _Refused(f"{place[:200]!r} that it does not hold: {size} bytes from {begin} on")


def _size(tensor: Any, kinds: Any) -> int:
    """The bytes of a tensor by its shape and type."""
    bits = _BITS.get({number: name for name, number in kinds.DataType.items()}.get(tensor.data_type, ""))
    if bits is None:
        raise _Refused("a file, of a type that is only read from the model itself")
    if any(n < 0 for n in tensor.dims):
        raise _Refused("a file, of no shape")
    return -(-math.prod(tensor.dims) * bits // 8)


def _shown(entries: list[tuple[str, str]]) -> str:
    return ", ".join(f"{key[:20]} {value[:100]!r}" for key, value in entries[:4])


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
