"""Timing a smaller model beside the dense one: what goes wrong there costs the times, and never a result."""

from __future__ import annotations

import logging

from torch import nn

from ..errors import first_line
from ..inputs import Inputs
from ..timing.compared import Compared, SideBySide
from ..timing.serving import Serving

logger = logging.getLogger(__name__)
_LEAST, _MOST = 4.0, 20.0  # seconds for each of the two models
_RATE = 1e9  # multiply-adds for which a second is added: ten calls, where a slow core does 1e10 a second


class Timer:
    """Times smaller models beside a dense one, as they will be served.

    The dense model is made ready when the first one is timed, and once. Where that fails nothing is tried again; a
    smaller model that cannot be timed costs its own times alone.

    Args:
        dense: the model before; it is referred to, and stays as it is.
        example_inputs: what both take, at least two.
        serving: what serves them.
        macs: multiply-adds of the dense model for one input: what takes long has to be watched for longer.
        patient: watch for as long as for the largest, where the times decide something.

    Attributes:
        failed: whether the dense model cannot be timed.
        why: there are no times of the last model, if so; else empty.
    """

    def __init__(
        self, dense: nn.Module, example_inputs: Inputs, serving: Serving, macs: float, *, patient: bool = False
    ) -> None:
        self.dense, self.example, self.serving = dense, example_inputs, serving
        self.limit = _MOST if patient else min(_LEAST + macs * serving.batch / _RATE, _MOST)
        self.failed, self.why = False, ""
        self._beside: SideBySide | None = None

    def __call__(self, compact: nn.Module, *, predicted_ms: float | None = None) -> Compared | None:
        """Both times; None, with a warning that says why, where they cannot be had.

        Args:
            compact: the model after.
            predicted_ms: goes into the result.
        """
        if self.failed:
            return None
        self.why = ""
        try:
            if self._beside is None:
                self._beside = SideBySide(self.dense, self.example, self.serving, limit=self.limit)
            return self._beside(compact, predicted_ms=predicted_ms)
        except Exception as error:  # of the export, the engine, the compiler, or the model's own code
            self.failed, self.why = self._beside is None, first_line(error)
            logger.warning("the models could not be timed, so no time is reported (%s)", self.why)
            return None
