"""Figures of training steps, which must be finite; read one step late where the CPU would wait for a GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DivergedError
from ..inputs import tensors_in
from ..late import on_its_way, runs_ahead

BAD_GRADIENT = "a gradient is not finite. Lower the learning rate (--lr), or check the data."


def figures_of(loss: Tensor, norms: list[Tensor]) -> Tensor:
    """What a step tells, as one tensor (1 + norms,) without a gradient: its loss, the norms of its gradients."""
    kind = torch.float64 if torch.float64 in (loss.dtype, *(norm.dtype for norm in norms)) else torch.float32
    return torch.stack([figure.detach().to(kind) for figure in (loss, *norms)])


def may_go_on(figure: Tensor) -> bool:
    """Whether a figure is finite; where the answer would have to be waited for, it is left to the watch."""
    return runs_ahead(figure.device) or math.isfinite(float(figure))


@dataclass(slots=True)
class _Pending:
    """Figures on their way to the CPU."""

    step: int
    figures: Tensor
    arrived: torch.cuda.Event | None
    batch: Any


class Watch:
    """Looks at the figures of every step and ends a stage that has diverged.

    On the CPU a step is looked at as soon as it is done. A GPU is given the next step before the figures of the
    last are read, so that it never waits; then a stage that has diverged ends one step later. Whoever is about to
    keep or show what was learned calls `read` first: nothing that has diverged is ever written.

    Args:
        stage: its name, for messages.
        check: raises where a batch is what made the loss of no use; it is asked about such a batch alone.
        loss: of the last step of the part before, of a stage that is gone on with.

    Attributes:
        loss: of the last step that was read; not a number before the first.
    """

    def __init__(self, stage: str, check: Callable[[Any], None], loss: float = math.nan) -> None:
        self.stage, self.check, self.loss = stage, check, loss
        self._pending: _Pending | None = None

    def add(self, step: int, figures: Tensor, batch: Any) -> None:
        """Take the figures of a step, and look at those of the step before.

        Args:
            step: its number.
            figures: from `figures_of`, on any device.
            batch: that it learned from.

        Raises:
            DivergedError: a figure is not finite.
        """
        late = runs_ahead(figures.device)
        sent, arrived = on_its_way(figures)
        self.read()
        self._pending = _Pending(step, sent, arrived, batch)
        if not late:
            self.read()

    def read(self) -> None:
        """Wait for the figures of the last step, and look at them.

        Raises:
            DivergedError: a figure is not finite.
            DataError: so it is, because the batch's labels are of no use.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if pending.arrived is not None:
            pending.arrived.synchronize()
        self.loss, *norms = pending.figures.tolist()
        if not math.isfinite(self.loss):
            self.check(pending.batch)
            raise DivergedError(self._why(pending))
        if not all(map(math.isfinite, norms)):
            raise DivergedError(BAD_GRADIENT)

    def _why(self, pending: _Pending) -> str:
        """What to say of a loss that is not finite: the data are looked at first."""
        count = sum(int((~x.isfinite()).sum()) for x in tensors_in(pending.batch) if x.is_floating_point())
        where = f"the loss became {self.loss} at step {pending.step} of the {self.stage}"
        if count:
            return f"{where}, because {count} values of its batch are not finite. Mend or leave out those inputs."
        return f"{where}. Lower the learning rate (--lr), or check the data for values far out of range."
