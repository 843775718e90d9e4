"""An ONNX file against the model that it was made from, on real inputs in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .errors import ExportError, first_line
from .inputs import Inputs, batch_size, call, is_listed, rows, tensors_in
from .runtime import device_session, open_session
from .sizes import image_size, other_sizes, resized

RTOL, ATOL = 1e-3, 1e-5
_HALF, _HALF_ON_DEVICE = 5e-3, 1e-2  # of the largest output; a GPU also adds in half precision


@dataclass(frozen=True, slots=True)
class ExportCheck:
    """How far the file and the model are apart.

    Attributes:
        path: the file.
        max_abs_error: largest difference of any output.
        relative_error: the same over the standard deviation of the model's output.
        batch_sizes: those that were tried.
        opset: ONNX operator set of the file.
        provider: execution provider that served the check, the CPU's.
        differences: largest difference of any output, by the provider that served. Files of half precision
            are also run on the GPU, where ONNX Runtime gets one; if there is the CPU alone, they were not.
        same_class: share of the inputs whose largest output is the same in both, the least of all providers; None
            where the first output is no row of classes for each input.
        image_sizes: (height, width) that were tried besides the example's own.
    """

    path: Path
    max_abs_error: float
    relative_error: float
    batch_sizes: tuple[int, ...]
    opset: int
    provider: str
    differences: dict[str, float] = field(default_factory=dict)
    same_class: float | None = None
    image_sizes: tuple[tuple[int, int], ...] = ()


def check_onnx(
    model: nn.Module,
    data: bytes | Path,
    inputs: Inputs,
    *,
    path: Path,
    fp16: bool = False,
    batch: int | None = None,
    sizes: Sequence[tuple[int, int]] = (),
) -> ExportCheck:
    """Compare a file with a model at batch sizes 1, 2, 3 and the whole of the inputs, or at its fixed one.

    Args:
        model: in eval mode on the CPU.
        data: the file or its content.
        inputs: real inputs.
        path: the file's name, for messages.
        fp16: its weights are of half precision; it is also run on the GPU, if ONNX Runtime gets one.
        batch: the only batch size that the file takes; None where it has to take all.
        sizes: (height, width) of images to try besides, which the model takes.

    Raises:
        ExportError: the outputs differ, or the reference says nothing.
    """
    import onnx

    session = open_session(data)
    count = batch_size(inputs)
    if not is_listed(inputs):  # of a list every entry is an input of the file, and all are counted below
        run_over = [bool(x.dim()) and len(x) == count for x in tensors_in(inputs)]
        _check_shapes(session, path, batch, run_over, free_size=bool(sizes))
    batches = (batch,) if batch is not None else tuple(sorted({n for n in (1, 2, 3, count) if n <= count}))
    trials = [rows(inputs, n) for n in batches]
    trials += [resized(rows(inputs, batch or min(2, count)), size) for size in sizes]
    on_device = device_session(data) if fp16 else None
    found = {s.get_providers()[0]: _Found() for s in (session, on_device) if s is not None}
    for part in trials:
        with torch.no_grad():
            reference = [t.double().numpy() for t in tensors_in(call(model, part))]
        for served in filter(None, (session, on_device)):
            limit = None if not fp16 else _HALF if served is session else _HALF_ON_DEVICE
            outputs = _outputs(served, part, path)
            if len(outputs) != len(reference):
                raise ExportError(f"{path}: {len(outputs)} outputs in the file, {len(reference)} in the model.")
            own = found[served.get_providers()[0]]
            for ours, theirs in zip(reference, outputs, strict=True):
                gap, share = _gap(ours, theirs.astype(np.float64), _told(part, served), path, limit)
                own.worst, own.relative = max(own.worst, gap), max(own.relative, share)
            if part is trials[len(batches) - 1]:
                own.classes(reference[:1], outputs[:1])
    raw = data if isinstance(data, bytes) else data.read_bytes()
    opset = max(o.version for o in onnx.load_model_from_string(raw).opset_import if o.domain in ("", "ai.onnx"))
    agreed = [own.same / own.count for own in found.values() if own.count]
    return ExportCheck(
        path,
        max(own.worst for own in found.values()),
        max(own.relative for own in found.values()),
        batches,
        opset,
        session.get_providers()[0],
        {name: own.worst for name, own in found.items()},
        min(agreed) if agreed else None,
        tuple(sizes),
    )


@dataclass(slots=True)
class _Found:
    """What one provider gave so far."""

    worst: float = 0.0
    relative: float = 0.0
    same: int = 0
    count: int = 0

    def classes(self, ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
        """Count the inputs whose largest output is the same."""
        for one, other in zip(ours, theirs, strict=True):
            if one.ndim == 2 and one.shape[1] > 1:
                self.same += int((one.argmax(1) == other.argmax(1)).sum())
                self.count += len(one)


def _check_shapes(
    session: Any, path: Path, batch: int | None, run_over: Sequence[bool], *, free_size: bool
) -> None:
    """Whether the file's inputs are as free as they have to be; `run_over` says which hold the examples."""
    inputs = session.get_inputs()
    examples = [entry for entry, runs in zip(inputs, run_over, strict=False) if runs and entry.shape]
    if not examples:
        raise ExportError(f"{path}: the file has no input with a batch size.")
    for found in (entry.shape[0] for entry in examples):
        if batch is None and not isinstance(found, str):
            raise ExportError(
                f"{path}: the exported batch size is fixed at {found}; the model's code uses a constant batch "
                f"size. If it may be, give batch={found} (--fixed-batch {found})."
            )
        if batch is not None and found != batch:
            raise ExportError(f"{path}: the file's batch size is {found}, not {batch}.")
    fixed = [n for entry in inputs if len(entry.shape) == 4 for n in entry.shape[2:] if not isinstance(n, str)]
    if free_size and fixed:
        raise ExportError(
            f"{path}: height or width of its images is fixed at {fixed[0]}, because the model's code uses it as a "
            "constant. Leave dynamic_size (--dynamic-size) out."
        )


def _outputs(session: Any, part: Inputs, path: Path) -> list[np.ndarray]:
    names = [i.name for i in session.get_inputs()]
    given = [t.numpy() for t in tensors_in(part)]
    if len(given) != len(names):
        raise ExportError(f"{path}: {len(names)} inputs in the file, {len(given)} in the example inputs.")
    try:
        return session.run(None, dict(zip(names, given, strict=True)))
    except Exception as error:  # ONNX Runtime's own tree of exceptions
        raise ExportError(
            f"{path}: ONNX Runtime does not run the file {_told(part, session)} ({first_line(error)}). The file "
            "is not written."
        ) from error


def _told(part: Inputs, session: Any) -> str:
    """Where something happened, in words."""
    shapes = [tuple(t.shape[2:]) for t in tensors_in(part) if t.dim() == 4]
    size = f" and size {shapes[0][0]}x{shapes[0][1]}" if shapes else ""
    where = session.get_providers()[0].removesuffix("ExecutionProvider")
    return f"at batch size {batch_size(part)}{size} on {where}"


def sizes_taken(model: nn.Module, inputs: Inputs) -> tuple[tuple[int, int], ...]:
    """Other sizes of images that a model takes, among those that are tried.

    Raises:
        ExportError: it takes no other height, or no other width.
    """
    height, width = image_size(inputs)
    found, why = [], ""
    for size in other_sizes(inputs):
        try:
            with torch.no_grad():
                call(model, resized(inputs, size))
            found.append(size)
        except Exception as error:  # whatever its layers say
            why = why or f" ({first_line(error)})"
    if {h for h, _ in found} <= {height} or {w for _, w in found} <= {width}:
        raise ExportError(
            f"the model itself takes images of {height}x{width} alone{why}, so its file cannot take others. Leave "
            "dynamic_size (--dynamic-size) out."
        )
    return tuple(found)


def _gap(ours: np.ndarray, theirs: np.ndarray, where: str, path: Path, limit: float | None) -> tuple[float, float]:
    """The largest difference, and the same over the standard deviation of `ours`.

    `limit` is the share of the largest output that may be missed; None asks for single precision.
    """
    same = ours.shape == theirs.shape and ours == theirs  # an infinity that both have (a mask) is no difference
    if ours.shape != theirs.shape or not np.isfinite([ours[~same], theirs[~same]]).all():
        raise ExportError(
            f"{path}: {where} ONNX Runtime gives {theirs.shape}, or values that are not finite where "
            f"the model's {ours.shape} are others. The file is not written."
        )
    finite = ours[np.isfinite(ours)]
    largest = float(np.abs(finite).max(initial=0.0))
    single = RTOL * np.abs(ours) + ATOL * max(1.0, largest)
    allowed = single if limit is None else np.full(ours.shape, limit * largest)
    difference = np.abs(ours[~same] - theirs[~same])
    if (difference > allowed[~same]).any():
        raise ExportError(
            f"{path}: {where} ONNX Runtime differs from the model by {difference.max():.3g} "
            f"(largest output {largest:.3g}). The file is not written."
        )
    gap = float(difference.max(initial=0.0))
    spread = float(finite.std()) if finite.size else 0.0
    return gap, gap / (spread or 1.0)
