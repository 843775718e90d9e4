"""Conditions that a GPU tells late: they are looked at when the answer is there, and nothing waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..late import on_its_way


@dataclass(frozen=True, slots=True)
class _Open:
    """A condition on its way to the CPU."""

    holds: Tensor
    arrived: torch.cuda.Event | None
    error: Callable[[], Exception]
    turn: int


class Doubts:
    """What must hold, as tensors that a device may still be computing.

    Reading a tensor makes Python wait for all that the GPU was given, and the GPU then for Python. So on a CPU a
    condition is read at once, and one of a GPU is sent on its way and read when the next set of scales is begun:
    by then the answer is there. `settle` reads all that is open.
    """

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._turn = 0

    def begin(self) -> None:
        """A new set of scales is begun: read what was asked about those before.

        Raises:
            Exception: the error of the first condition that does not hold.
        """
        self._read(self._turn)
        self._turn += 1

    def add(self, holds: Tensor, error: Callable[[], Exception]) -> None:
        """Note a condition.

        Args:
            holds: boolean, without dimensions.
            error: what to raise if it does not hold; made only then.
        """
        sent, arrived = on_its_way(holds)
        self._open.append(_Open(sent, arrived, error, self._turn))
        if holds.device.type == "cpu":
            self.settle()

    def settle(self) -> None:
        """Read all that is open.

        Raises:
            Exception: the error of the first condition that does not hold.
        """
        self._read(self._turn)

    def _read(self, last: int) -> None:
        while self._open and self._open[0].turn <= last:
            one = self._open.pop(0)
            if one.arrived is not None:
                one.arrived.synchronize()
            if not bool(one.holds):
                self._open.clear()
                raise one.error()
