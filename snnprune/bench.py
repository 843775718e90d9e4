"""Latency of ONNX files in ONNX Runtime, side by side."""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch

from .errors import ConfigError, ExportError, first_line
from .files import check_name, file_errors
from .memory import check_memory
from .options import Count, CountOrZero, Number, Place, checked, each
from .runtime import open_session

Provider = Literal["auto", "cuda", "cpu"]
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_Threads = Annotated[int, Number("a whole number from 0 to 65535", low=0, high=2**16 - 1, whole=True)]
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
_MAX_INPUT = 2**26  # numbers in one input that a file may ask for: 3 x 4096 x 4096 fit
CURE = (
    "Install it with its libraries (pip install 'onnxruntime-gpu[cuda,cudnn]'), uninstall a plain onnxruntime "
    "beside it, and check that nvidia-smi shows a driver of at least 580."
)


@dataclass(frozen=True, slots=True)
class Latency:
    """Time of one file at one batch size.

    Attributes:
        path: the file.
        provider: execution provider that really served it.
        batch: inputs per call.
        median_ms: milliseconds per call.
        p10_ms: a tenth of the calls were faster.
        p90_ms: a tenth of the calls were slower.
        calls: that were timed.
        launch_bound: on a GPU, a call with many more inputs takes hardly longer, so what is timed is the
            start of kernels, and a smaller model will not be faster; None where that was not tried.
    """

    path: str
    provider: str
    batch: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    calls: int
    launch_bound: bool | None = None


def bench_onnx(
    paths: Sequence[str | Path],
    *,
    batch_sizes: Sequence[int] = (1, 32),
    provider: Provider = "auto",
    calls: int = 50,
    warm_up: int = 10,
    threads: int = 0,
) -> list[Latency]:
    """Time ONNX files in turn, call by call, so that a slow moment of the machine meets all of them.

    Inputs and outputs stay on the device between calls (IO binding), so that copies are not timed.

    Args:
        paths: ONNX files; inputs are random.
        batch_sizes: inputs per call.
        provider: `cuda` fails where ONNX Runtime would fall back to the CPU, which it does silently; `auto`
            takes what there is, and the result names it.
        calls: timed per file and batch size.
        warm_up: calls before those.
        threads: of the CPU provider; 0 leaves the choice to ONNX Runtime.

    Raises:
        ConfigError: a number makes no sense.
        ExportError: a file cannot be loaded or run at that batch size, or CUDA was asked for and does not serve.

    Example:
        >>> check = snnprune.export_onnx(model, "m.onnx", images)
        >>> (latency,) = snnprune.bench_onnx(["m.onnx"], batch_sizes=[1], provider="cpu", calls=3)
        >>> latency.median_ms > 0
        True
    """
    files, batch_sizes = each("paths", paths, Place), each("batch_sizes", batch_sizes, Count)
    calls, warm_up = checked("calls", calls, Count), checked("warm_up", warm_up, CountOrZero)
    threads, provider = checked("threads", threads, _Threads), checked("provider", provider, Provider)
    if not files or not batch_sizes:
        raise ConfigError("bench needs at least one file and one batch size.")
    sessions = [(str(path), _session(path, provider, threads)) for path in files]
    found: list[Latency] = []
    for batch in batch_sizes:
        runs = [(name, session, _call(name, session, batch)) for name, session in sessions]
        for _ in range(warm_up):
            for _, _, call in runs:
                call()
        times: list[list[float]] = [[] for _ in runs]
        for _ in range(calls):
            for (_, _, call), own in zip(runs, times, strict=True):
                began = time.perf_counter()
                call()
                own.append(1000 * (time.perf_counter() - began))
        for (name, session, _), own in zip(runs, times, strict=True):
            p10, median, p90 = (float(v) for v in np.percentile(own, [10, 50, 90]))
            found.append(Latency(name, session.get_providers()[0], batch, median, p10, p90, calls))
    return [_judged(one, found) for one in found]


def _judged(one: Latency, every: Sequence[Latency]) -> Latency:
    larger = [o for o in every if o.path == one.path and o.batch >= 4 * one.batch]
    if one.provider != _CUDA or not larger:
        return one
    bound = one.median_ms >= 0.8 * larger[0].median_ms
    return Latency(
        one.path, one.provider, one.batch, one.median_ms, one.p10_ms, one.p90_ms, one.calls, launch_bound=bound
    )


def _session(path: Path, provider: Provider, threads: int) -> Any:
    import onnxruntime

    check_name(path, ExportError)
    with file_errors(ExportError):
        if not path.is_file():
            raise ExportError(f"there is no file {path}.")
    if provider == "cpu" or (provider == "auto" and not torch.cuda.is_available()):
        return open_session(path, threads=threads)
    onnxruntime.set_default_logger_severity(4)  # what goes wrong is seen below, and said in our words
    try:
        if _CUDA in onnxruntime.get_available_providers() and hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls()  # CUDA's libraries from where pip put them
        wanted = [p for p in (_CUDA, _CPU) if p in onnxruntime.get_available_providers()]
        session = open_session(path, wanted, threads=threads)
    finally:
        onnxruntime.set_default_logger_severity(2)
    if provider == "cuda" and session.get_providers()[0] != _CUDA:
        raise ExportError(f"{path}: ONNX Runtime does not get the CUDA provider here. {CURE}")
    return session


def _call(name: str, session: Any, batch: int) -> Callable[[], None]:
    """One call with everything bound."""
    import onnxruntime

    device = "cuda" if session.get_providers()[0] == _CUDA else "cpu"
    binding = session.io_binding()
    generator = np.random.default_rng(0)
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
        binding.bind_ortvalue_input(entry.name, onnxruntime.OrtValue.ortvalue_from_numpy(values, device, 0))

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    try:
        for entry in session.get_outputs():
            binding.bind_output(entry.name, device)
        call()
    except Exception as error:
        raise ExportError(
            f"{name}: ONNX Runtime cannot run it at batch size {batch} ({first_line(error)})."
        ) from error
    return call
