"""Result: the compact model with its report, ready to be saved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..inputs import Inputs
from ..report import Report
from ..visual import PICTURES, SCALES
from .runs import save_run


@dataclass(slots=True)
class Result:
    """What `optimize` returns.

    Attributes:
        model: the compact model, in eval mode: a plain module of the caller's own class.
        report: figures, per-group counts, exactness.
        sample: a few real inputs, for the export's check.
        details: goes into `structure.json`: kept indices, input shape, normalisation, classes.
        scales: group id -> (size,) scales at compaction, 0 for neurons that are gone.
        pictures: an input, and feature maps of pruned and of strengthened kernels, for the page.
    """

    model: nn.Module
    report: Report
    sample: Inputs
    details: dict[str, Any] = field(default_factory=dict)
    scales: dict[str, Tensor] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)

    def save(self, folder: str | Path, *, onnx: bool = True) -> Path:
        """Write a run folder: weights, structure, report, its page, and the verified ONNX file.

        Everything is written into `<folder>.partial` and moved into place at the end.

        Args:
            folder: must not exist yet.
            onnx: also export; the report's `onnx` figure comes from its check.

        Returns:
            The folder.

        Raises:
            RunError: the folder exists or cannot be written.
            ExportError: the model cannot be exported, or ONNX Runtime does not compute what it computes.
        """
        drawn = {SCALES: self.scales, PICTURES: self.pictures}
        return save_run(self.model, self.report, self.sample, self.details, Path(folder), onnx=onnx, drawn=drawn)
