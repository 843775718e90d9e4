"""What serves a model: engine, batch size, precision and threads, without which no time means anything."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from ..errors import ConfigError
from ..moved import checks_names
from ..options import Count, Number, check_fields, described, option

Engine = Literal["auto", "cpu", "cuda", "cuda-graphs", "tensorrt", "torch", "torch-compiled", "torch-graphs"]
Precision = Literal["fp32", "fp16"]
Threads = Annotated[int, Number("a whole number from 1 to 65535", low=1, high=2**16 - 1, whole=True)]
_CPUINFO = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")
_ON_GPU = ("cuda", "cuda-graphs", "tensorrt", "torch-graphs")


@described
@checks_names
@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What serves a model, and is timed: `Serving(engine="cpu", batch=1)`.

    `cpu`, `cuda`, `cuda-graphs` and `tensorrt` are ONNX Runtime's; `torch`, `torch-compiled` and `torch-graphs`
    are PyTorch itself, on the GPU where there is one.

    Raises:
        ConfigError: a value makes no sense, or a name is no option; the message names it.

    Example:
        >>> snnprune.Serving(engine="cpu", batch=8).to_dict()
        {'engine': 'cpu', 'batch': 8, 'precision': 'fp32', 'threads': 1}
    """

    engine: Engine = option(
        "auto",
        "what runs the model. `auto` is ONNX Runtime, with CUDA where that really serves and else on the CPU. The "
        "two with `graphs` replay a recorded call as a whole, which takes the starting of kernels off the CPU.",
    )
    batch: Count = option(1, "inputs per call.")
    precision: Precision = option(
        "fp32", "numbers that are computed with. With `fp16` an ONNX file is converted unless it is so already."
    )
    threads: Threads = option(
        1,
        "threads of the CPU. One is what can be timed on a machine that does other things too; take the number "
        "with which the model will be served.",
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def to_dict(self) -> dict[str, Any]:
        """All options by name."""
        return asdict(self)

    @property
    def in_torch(self) -> bool:
        """Whether PyTorch itself runs the model, and not ONNX Runtime."""
        return self.engine.startswith("torch")

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes; of `auto`, which has to be resolved first, nobody knows.

        Raises:
            ConfigError: the engine is `auto`.
        """
        if self.engine == "auto":
            raise ConfigError("engine='auto' is not resolved yet: resolved() finds what serves.")
        return self.engine in _ON_GPU or (self.in_torch and torch.cuda.is_available())

    def resolved(self) -> Serving:
        """With the engine that really serves in place of `auto`; tried, as ONNX Runtime says so only then."""
        if self.engine != "auto":
            return self
        from .sessions import cuda_serves

        return replace(self, engine="cuda" if cuda_serves() else "cpu")

    def device(self) -> str:
        """Name of the CPU or GPU that computes."""
        serving = self.resolved()
        if serving.on_gpu and torch.cuda.is_available():
            return torch.cuda.get_device_name()
        return "GPU" if serving.on_gpu else cpu_name()

    def key(self) -> dict[str, Any]:
        """All that sets measurements apart: two times with different keys are not to be compared."""
        serving = self.resolved()
        found = {**serving.to_dict(), "device": serving.device(), "version": _version(serving)}
        if serving.on_gpu:
            found |= {"cuda": torch.version.cuda, "driver": _driver()}
        return found


def cores_here() -> int:
    """Cores of the CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Model of this machine's CPU."""
    try:
        for line in _CPUINFO.read_text().splitlines():
            name, colon, value = line.partition(":")
            if colon and name.strip() in ("model name", "Hardware", "Model") and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"


def _version(serving: Serving) -> str:
    if serving.in_torch:
        return f"torch {torch.__version__}"
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def _driver() -> str | None:
    """Version of NVIDIA's driver, where the system says it in a file."""
    try:
        found = re.search(r"\b\d{3,}\.\d+[.\d]*", _DRIVER.read_text())
    except OSError:
        return None
    return found[0] if found else None
