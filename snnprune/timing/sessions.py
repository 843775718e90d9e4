"""ONNX files as ONNX Runtime serves them: a call with everything bound, on the provider that was asked for."""

from __future__ import annotations

import contextlib
import functools
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ExportError, first_line
from ..files import check_name, file_errors, missing
from ..memory import check_memory
from ..protos import in_form
from ..runtime import open_session
from .serving import Serving

CURE = (
    "Install it with its libraries (pip install 'onnxruntime-gpu[cuda,cudnn]'), uninstall a plain onnxruntime "
    "beside it, and check that nvidia-smi shows a driver of at least 580."
)
_CURE_TENSORRT = "It needs onnxruntime-gpu, a GPU, and TensorRT's libraries (pip install tensorrt)."
CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_PROVIDER = {"cpu": CPU, "cuda": CUDA, "cuda-graphs": CUDA, "tensorrt": TENSORRT}
# Settings that are tried in turn. Tensor Cores like convolutions with channels last; not every file runs so.
_LAST, _GRAPH = {"prefer_nhwc": "1"}, {"enable_cuda_graph": "1"}
_SETTINGS: dict[str, tuple[dict[str, str], ...]] = {
    "cpu": ({},),
    "cuda": (_LAST, {}),
    "cuda-graphs": ({**_GRAPH, **_LAST}, _GRAPH),
    "tensorrt": ({"trt_engine_cache_enable": "0"},),
}
_RECORDED = 3  # calls after which ONNX Runtime has recorded its graph
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
_MAX_INPUT = 2**26  # numbers in one input that a file may ask for: 3 x 4096 x 4096 fit


@dataclass(frozen=True, slots=True)
class Served:
    """A model that is ready to be called.

    Attributes:
        call: one call, with inputs and outputs where they are computed; it has ended when it returns.
        provider: of ONNX Runtime, that really serves; empty for PyTorch.
        precision: in which it runs: `fp16` also for a file of half precision where `fp32` was asked for.
    """

    call: Callable[[], object]
    provider: str
    precision: str


def serve_file(source: Path | bytes, serving: Serving, name: str = "") -> Served:
    """Make an ONNX file ready to be called, with random inputs; it has been called once.

    Args:
        source: a file, or its content.
        serving: how; its engine is one of ONNX Runtime's.
        name: for messages; by default that of the file.

    Raises:
        ExportError: the file cannot be loaded, or not be run at that batch size, or the provider does not serve.
    """
    serving = serving.resolved()
    name = name or (str(source) if isinstance(source, Path) else "the exported model")
    if isinstance(source, Path):
        check_name(source, ExportError)
        with file_errors(ExportError):
            if not source.is_file():
                raise ExportError(missing(source))
    half = _is_half(source)
    settings = _SETTINGS[serving.engine]
    if serving.precision == "fp16" and serving.engine == "tensorrt":  # which converts by itself
        settings = tuple({**given, "trt_fp16_enable": "1"} for given in settings)
    elif serving.precision == "fp16" and not half:
        source = _halved(source, name)
    failed: ExportError | None = None
    for given in settings:
        try:
            session = _session(source, serving, name, given)
            call = _call(name, session, serving.batch, graph="enable_cuda_graph" in given)
        except ExportError as error:
            failed = error
            continue
        return Served(call, session.get_providers()[0], "fp16" if half else serving.precision)
    assert failed is not None
    raise failed


def providers_of(serving: Serving) -> list[tuple[str, dict[str, str]]]:
    """Providers with their settings, in the order of preference, as the first try of `serve_file` has them."""
    serving = serving.resolved()
    wanted = _PROVIDER[serving.engine]
    settings = {wanted: dict(_SETTINGS[serving.engine][0])}
    return [
        (name, settings.get(name, {})) for name in dict.fromkeys((wanted, CPU if wanted == CPU else CUDA, CPU))
    ]


def cuda_serves() -> bool:
    """Whether ONNX Runtime really serves by CUDA here; tried, as it falls back to the CPU without a word."""
    return torch.cuda.is_available() and _tried()


@functools.cache
def _tried() -> bool:
    try:
        check_serves(Serving(engine="cuda"))
    except ExportError:
        return False
    return True


def check_serves(serving: Serving) -> None:
    """Try an engine on the smallest graph there is, before any work is done for it.

    Args:
        serving: whose engine is one of ONNX Runtime's.

    Raises:
        ExportError: it does not serve here.
    """
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "smallest", ends[:1], ends[1:])
    smallest = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    _session(smallest.SerializeToString(), serving, f"engine={serving.engine!r}", {})


def _is_half(source: Path | bytes) -> bool:
    """Whether there are weights of half precision; of what cannot be read ONNX Runtime will say so."""
    import onnx

    try:
        proto = (
            onnx.load_model_from_string(source)
            if isinstance(source, bytes)
            else onnx.load_model(source, format="protobuf", load_external_data=False)
        )
    except Exception:
        return False
    return any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in proto.graph.initializer)


def _halved(source: Path | bytes, name: str) -> bytes:
    open_session(source)  # refuses what is no model, or reaches for other files
    try:
        return in_form(source if isinstance(source, bytes) else source.read_bytes(), fp16=True)
    except Exception as error:
        raise ExportError(
            f"{name} cannot be converted to half precision ({first_line(error)}). Time it in fp32, or give a file "
            "that is of half precision already."
        ) from error


def _session(source: Path | bytes, serving: Serving, name: str, settings: Mapping[str, str]) -> Any:
    """A session whose first provider is the one that was asked for."""
    import onnxruntime

    wanted = _PROVIDER[serving.engine]
    if wanted == CPU:
        return open_session(source, threads=serving.threads)
    there = onnxruntime.get_available_providers()
    what, cure = ("TensorRT", _CURE_TENSORRT) if wanted == TENSORRT else ("CUDA", CURE)
    refusal = ExportError(f"{name}: ONNX Runtime does not get the {what} provider here. {cure}")
    onnxruntime.set_default_logger_severity(4)  # what goes wrong is seen below, and said in our words
    try:
        if CUDA in there and hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls()  # CUDA's libraries from where pip put them
        chain = [provider for provider in dict.fromkeys((wanted, CUDA, CPU)) if provider in there]
        session = open_session(source, chain, threads=serving.threads, settings={wanted: settings})
    except ExportError as error:
        if wanted == TENSORRT and "TensorRT" in str(error):  # it says so, where CUDA falls back in silence
            raise refusal from error
        raise
    finally:
        onnxruntime.set_default_logger_severity(2)
    if session.get_providers()[0] != wanted:
        raise refusal
    return session


def _call(name: str, session: Any, batch: int, *, graph: bool = False) -> Callable[[], None]:
    """One call with everything bound, made once.

    Args:
        name: for messages.
        session: of ONNX Runtime.
        batch: inputs per call.
        graph: it records a CUDA graph, which writes to the same places every time.
    """
    device = "cpu" if session.get_providers()[0] == CPU else "cuda"
    binding = session.io_binding()
    for entry, values in _inputs(name, session, batch, device):
        binding.bind_ortvalue_input(entry, values)

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    try:
        names = [entry.name for entry in session.get_outputs()]
        for output in names:
            binding.bind_output(output, device)
        call()
        if graph:
            for output, values in zip(names, binding.get_outputs(), strict=True):
                binding.bind_ortvalue_output(output, values)
            for _ in range(_RECORDED):
                call()
    except Exception as error:
        raise ExportError(
            f"{name}: ONNX Runtime cannot run it at batch size {batch} ({first_line(error)})."
        ) from error
    return call


def _inputs(name: str, session: Any, batch: int, device: str) -> list[tuple[str, Any]]:
    """Random values for each input of a session, on the device that computes."""
    import onnxruntime

    found, generator = [], np.random.default_rng(0)
    for entry in session.get_inputs():
        if entry.shape is None or entry.type not in _TYPES:
            raise ExportError(f"{name}: no input can be made for {entry.name}: {entry.type}, shape {entry.shape}.")
        shape = [batch if i == 0 and not isinstance(n, int) else n for i, n in enumerate(entry.shape)]
        if not all(isinstance(n, int) and n > 0 for n in shape) or math.prod(shape) > _MAX_INPUT * batch:
            raise ExportError(f"{name}: no input can be made for {entry.name}: {entry.type}, shape {entry.shape}.")
        if shape and shape[0] != batch:
            raise ExportError(f"{name}: its batch size is fixed at {shape[0]}; {batch} was asked for.")
        check_memory(
            f"{name} at batch size {batch}", 16 * math.prod(shape), ExportError, "Choose a smaller batch size."
        )  # drawn as 8 bytes a number, then of the input's type, and once more where the provider keeps it
        values = np.asarray(generator.standard_normal(shape)).astype(_TYPES[entry.type])
        found.append((entry.name, onnxruntime.OrtValue.ortvalue_from_numpy(values, device, 0)))
    return found
