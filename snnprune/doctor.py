"""What this machine has of what a run needs, tried rather than looked up, with the cure where it fails."""

from __future__ import annotations

import io
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from .errors import SnnPruneError, first_line
from .export import export_onnx
from .runs.report import versions
from .timing.bench import bench_onnx
from .timing.sessions import CURE

State = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried.

    Attributes:
        what: the thing.
        state: `wrong` keeps commands from working; with a `warning` they work, but slower or with less.
        found: what there is.
        cure: what to do; empty where nothing is to be done.
    """

    what: str
    state: State
    found: str
    cure: str = ""


def examine() -> list[Finding]:
    """Try everything that the commands need; nothing is changed."""
    found = [Finding("versions", "ok", ", ".join(f"{k} {v}" for k, v in versions().items()))]
    found.append(Finding("machine", "ok", f"{platform.platform()}, {os.cpu_count()} CPU cores, {_memory()}"))
    for what, look in (("torchvision", _torchvision), ("GPU in PyTorch", _gpu), ("half precision", _half)):
        found.append(_tried(what, look))
    found += _onnx()
    for what, look in (("several processes", _processes), ("working folder", _folder)):
        found.append(_tried(what, look))
    return found


def _tried(what: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except Exception as error:  # whatever a broken installation throws is the finding
        return Finding(what, "wrong", f"{type(error).__name__}: {first_line(error)}", "Reinstall the package.")


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB memory"
    except (AttributeError, ValueError, OSError):  # not on Windows
        return "memory unknown"


def _torchvision() -> Finding:
    try:
        import torchvision

        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
        kept = torchvision.ops.nms(boxes, torch.tensor([1.0, 0.5]), 0.5)
    except Exception as error:
        cure = (
            "torch and torchvision are of different builds. Reinstall both together from one place: "
            "pip install --force-reinstall torch torchvision."
        )
        return Finding("torchvision", "wrong", first_line(error), cure)
    return Finding("torchvision", "ok" if kept.tolist() == [0] else "wrong", "its compiled operators work")


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        build = torch.version.cuda
        if build is None:
            return Finding(
                "GPU in PyTorch", "warning", "this build of PyTorch is for the CPU alone", "Runs are slower."
            )
        cure = "Where there is a GPU, nvidia-smi has to list it, with a driver for this CUDA version."
        return Finding("GPU in PyTorch", "warning", f"none found (built for CUDA {build})", cure)
    x = torch.randn(64, 64, device="cuda")
    good = bool(torch.isfinite(x @ x).all())
    free, total = torch.cuda.mem_get_info()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    what = f"{names}; CUDA {torch.version.cuda}; {free / 2**30:.1f} of {total / 2**30:.1f} GiB free on the first"
    return Finding("GPU in PyTorch", "ok" if good else "wrong", what)


def _half() -> Finding:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return Finding("half precision", "warning", "this GPU has no bfloat16", "Leave out --precision bfloat16.")
    with torch.autocast(device, torch.bfloat16):
        out = nn.Linear(8, 8, device=device)(torch.ones(1, 8, device=device))
    return Finding("half precision", "ok" if out.dtype == torch.bfloat16 else "wrong", f"bfloat16 on {device}")


def _onnx() -> Iterator[Finding]:
    """Export a small network, and see who serves it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        try:
            with redirect_stdout(io.StringIO()):
                check = export_onnx(model, path, torch.randn(2, 1, 8, 8))
        except Exception as error:
            cure = "Reinstall them: pip install --force-reinstall onnx onnxscript 'onnxruntime-gpu[cuda,cudnn]'."
            yield Finding("ONNX export", "wrong", first_line(error), cure)
            return
        yield Finding("ONNX export", "ok", f"opset {check.opset}, ONNX Runtime within {check.max_abs_error:.0e}")
        if not torch.cuda.is_available():
            yield Finding("ONNX Runtime", "ok", "serves on the CPU")
            return
        try:
            (served, *_) = bench_onnx([path], batch_sizes=[1], engine="cuda", calls=2, warm_up=1)
        except SnnPruneError as error:
            yield Finding(
                "ONNX Runtime", "warning", f"runs on the CPU, not on the GPU ({first_line(error)})", CURE
            )
            return
        yield Finding("ONNX Runtime", "ok", f"really serves by {served.provider}")


def _processes() -> Finding:
    import torch.distributed as dist

    backends = [name for name in ("gloo", "nccl") if dist.is_available() and dist.is_backend_available(name)]
    if not backends:
        return Finding("several processes", "warning", "no backend", "torchrun cannot be used with this build.")
    return Finding("several processes", "ok", f"backends {', '.join(backends)}")


def _folder() -> Finding:
    with tempfile.NamedTemporaryFile(dir=".") as file:
        file.write(b"x")
    free = shutil.disk_usage(".").free / 2**30
    state: State = "ok" if free > 1 else "warning"
    return Finding(
        "working folder", state, f"can be written to, {free:.1f} GiB free", "" if free > 1 else "Make room."
    )


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing is wrong."""
    return all(finding.state != "wrong" for finding in findings)


def plain(findings: list[Finding]) -> list[dict[str, Any]]:
    """For JSON."""
    return [{"what": f.what, "state": f.state, "found": f.found, "cure": f.cure} for f in findings]
