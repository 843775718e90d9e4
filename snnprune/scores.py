"""Two ONNX files on the same data: how many classes each gets right, and how often they agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .errors import DataError, ExportError
from .feeds import OnnxModel, rows_in
from .labels import classes_of, targets_of
from .loaders import bounded


@dataclass(frozen=True, slots=True)
class Score:
    """The fp32 file and the int8 file on the same data.

    Attributes:
        fp32: accuracy of the fp32 file in [0, 1]; None where the data have no labels.
        int8: accuracy of the int8 file; None likewise.
        same_class: share of the inputs for which both say the same class.
        count: of the inputs.
    """

    fp32: float | None
    int8: float | None
    same_class: float
    count: int

    @property
    def lost(self) -> float:
        """Accuracy that int8 costs; without labels the share of inputs that it puts into another class."""
        return 1 - self.same_class if self.fp32 is None or self.int8 is None else self.fp32 - self.int8

    def __str__(self) -> str:
        if self.fp32 is None or self.int8 is None:
            return (
                f"{self.same_class:.2%} of {self.count} inputs in the class that fp32 says (there are no labels)"
            )
        return f"accuracy {self.int8:.2%} in int8, {self.fp32:.2%} in fp32, on {self.count} inputs"


def measure(before: OnnxModel, after: OnnxModel, loader: Iterable[Any], name: str) -> Score:
    """Both files on the same batches.

    Raises:
        DataError: the loader is empty, or its labels are none of the file's classes.
        ExportError: the first output is no row of classes.
    """
    hits, same, places, count, labelled = np.zeros(2), 0, 0, 0, True
    for batch in bounded(loader, f"the {name} data"):
        feed, labels = before.split(batch)
        outputs = [model(feed) for model in (before, after)]
        if outputs[0].ndim < 2 or outputs[0].shape[1] < 2:
            raise ExportError(
                f"{before.name}: its first output, of shape {outputs[0].shape}, holds no classes, so there is no "
                "accuracy that int8 could be held against."
            )
        classes = [output.argmax(1) for output in outputs]
        same, places, count = (
            same + int((classes[0] == classes[1]).sum()),
            places + classes[0].size,
            count + rows_in(feed),
        )
        labelled = labelled and labels is not None and outputs[0].ndim == 2
        if labelled:
            assert labels is not None
            right = classes_of(targets_of(torch.from_numpy(outputs[0]), labels.cpu())).numpy()
            hits += [int((found == right).sum()) for found in classes]
    if not count:
        raise DataError(f"the {name} data yield no batch, so there is nothing to measure the file on.")
    fp32, int8 = (float(n) / count for n in hits) if labelled else (None, None)
    return Score(fp32, int8, same / places, count)
