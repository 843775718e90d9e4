"""Result: the compact model with its report, ready to be saved."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..inputs import Inputs
from ..options import checked, path_of
from .folder import check_free, save_run
from .report import Report
from .saving import weights_digest
from .timer import Timer
from .visual import PICTURES, SCALES

logger = logging.getLogger(__name__)


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
        timer: times the model beside the dense one, to which it refers until that is done; None where it is.
    """

    model: nn.Module
    report: Report
    sample: Inputs
    details: dict[str, Any] = field(default_factory=dict)
    scales: dict[str, Tensor] = field(default_factory=dict)
    pictures: dict[str, Tensor] = field(default_factory=dict)
    timer: Timer | None = field(default=None, repr=False, compare=False)
    _measured: str = field(init=False, repr=False, compare=False)  # of the weights that the report speaks of

    def __post_init__(self) -> None:
        self._measured = weights_digest(self.model)

    def save(self, folder: str | Path, *, onnx: bool = True, time: bool = True) -> Path:
        """Write a run folder: weights, structure, report, its page, and the verified ONNX file.

        Everything is written into `<folder>.partial` and moved into place at the end. Accuracy and loss of a model
        that was trained further are unknown: they are left out of the report, with a warning. With the ONNX file,
        dense and compact model are timed side by side where that has not been done yet, for the report. A model
        that cannot be timed is saved without, with a warning.

        Args:
            folder: must not exist yet.
            onnx: also export; the report's `onnx` figure comes from its check.
            time: with `onnx`, fill the report's `latency`; small models take a few seconds, large ones up to 40.

        Returns:
            The folder.

        Raises:
            ConfigError: an argument is not what it must be.
            RunError: the folder exists or cannot be written.
            ExportError: the model cannot be exported, or ONNX Runtime does not compute what it computes.
        """
        place, onnx, time = path_of("folder", folder), checked("onnx", onnx, bool), checked("time", time, bool)
        if weights_digest(self.model) != self._measured:
            logger.warning(
                "the model has changed since it was measured, so what was measured of it is left out of the "
                "report; snnprune.evaluate(result.model, test) measures it"
            )
            self.report.compact = replace(self.report.compact, accuracy=None, loss=None, value=None)
            self._measured = weights_digest(self.model)
        drawn = {SCALES: self.scales, PICTURES: self.pictures}
        check_free(place)
        if onnx and time and self.timer is not None:
            if self.report.latency is None:
                found = self.timer(self.model)
                self.report.latency = None if found is None else found.to_dict()
            self.timer = None  # and with it the dense model
        return save_run(self.model, self.report, self.sample, self.details, place, onnx=onnx, drawn=drawn)
