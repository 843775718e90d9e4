"""An ONNX file against the model that it was made from, on real inputs in ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .errors import ExportError
from .inputs import Inputs, batch_size, call, first_rows, tensors_in
from .runtime import open_session

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


def check_onnx(
    model: nn.Module, data: bytes | Path, inputs: Inputs, *, path: Path, fp16: bool = False
) -> ExportCheck:
    """Compare a file with a model at batch sizes 1, 2, 3 and the whole of the inputs.

    Raises:
        ExportError: the outputs differ, or the reference says nothing.
    """
    import onnx

    session = open_session(data)
    names = [i.name for i in session.get_inputs()]
    if not names or not session.get_inputs()[0].shape:
        raise ExportError(f"{path}: the file has no input with a batch size.")
    batch = session.get_inputs()[0].shape[0]
    if not isinstance(batch, str):
        raise ExportError(
            f"{path}: the exported batch size is fixed at {batch}; the model's code uses a constant batch size."
        )
    sizes = sorted({n for n in (1, 2, 3, batch_size(inputs)) if n <= batch_size(inputs)})
    worst = relative = 0.0
    for size in sizes:
        part = first_rows(inputs, size)
        with torch.no_grad():
            reference = [t.double().numpy() for t in tensors_in(call(model, part))]
        given = [t.numpy() for t in tensors_in(part)]
        if len(given) != len(names):
            raise ExportError(f"{path}: {len(names)} inputs in the file, {len(given)} in the example inputs.")
        outputs = session.run(None, dict(zip(names, given, strict=True)))
        if len(outputs) != len(reference):
            raise ExportError(f"{path}: {len(outputs)} outputs in the file, {len(reference)} in the model.")
        for ours, theirs in zip(reference, outputs, strict=True):
            gap, share = _gap(ours, theirs.astype(np.float64), size, path, fp16)
            worst, relative = max(worst, gap), max(relative, share)
    raw = data if isinstance(data, bytes) else data.read_bytes()
    opset = max(o.version for o in onnx.load_model_from_string(raw).opset_import if o.domain in ("", "ai.onnx"))
    return ExportCheck(path, worst, relative, tuple(sizes), opset, session.get_providers()[0])


def _gap(ours: np.ndarray, theirs: np.ndarray, size: int, path: Path, fp16: bool) -> tuple[float, float]:
    """The largest difference, and the same over the standard deviation of `ours`."""
    same = ours.shape == theirs.shape and ours == theirs  # an infinity that both have (a mask) is no difference
    if ours.shape != theirs.shape or not np.isfinite([ours[~same], theirs[~same]]).all():
        raise ExportError(
            f"{path}: at batch size {size} ONNX Runtime gives {theirs.shape}, or values that are not finite where "
            f"the model's {ours.shape} are others. The file is not written."
        )
    finite = ours[np.isfinite(ours)]
    largest = float(np.abs(finite).max(initial=0.0))
    allowed = np.full(ours.shape, 5e-3 * largest) if fp16 else RTOL * np.abs(ours) + ATOL * max(1.0, largest)
    difference = np.abs(ours[~same] - theirs[~same])
    if (difference > allowed[~same]).any():
        raise ExportError(
            f"{path}: at batch size {size} ONNX Runtime differs from the model by {difference.max():.3g} "
            f"(largest output {largest:.3g}). The file is not written."
        )
    gap = float(difference.max(initial=0.0))
    spread = float(finite.std()) if finite.size else 0.0
    return gap, gap / (spread or 1.0)
