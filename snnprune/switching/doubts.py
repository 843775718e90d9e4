"""Conditions that a GPU tells late: they are looked at when the answer is there, and nothing waits for it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class Doubts:
    """What must hold, as tensors that a device may still be computing.

    Reading a tensor makes Python wait for the GPU, and the GPU then for Python. So a condition is read where it
    costs nothing: on a CPU at once, else when the next one is added (its answer is there by then) or at `settle`.
    """

    def __init__(self) -> None:
        self._open: list[tuple[Tensor, Callable[[], Exception]]] = []

    def add(self, holds: Tensor, error: Callable[[], Exception]) -> None:
        """Note a condition.

        Args:
            holds: boolean, without dimensions.
            error: what to raise if it does not hold; made only then.
        """
        self.settle()
        self._open.append((holds, error))
        if holds.device.type == "cpu":
            self.settle()

    def settle(self) -> None:
        """Read all that is open.

        Raises:
            Exception: the error of the first condition that does not hold.
        """
        while self._open:
            holds, error = self._open.pop(0)
            if not bool(holds):
                self._open.clear()
                raise error()
