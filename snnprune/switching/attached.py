"""A user's model for a time: what it offers meanwhile, and what a `with` block and Python's `copy` do with it."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import Any, Self

from torch import Tensor, nn

from ..budget import Metric
from ..errors import AttachError
from ..plain import Mark
from .rule import GroupCounts


class Attached(Mark, ABC):
    """Sits on a user's model until `detach()`; a `with` block does that by itself, also after an exception."""

    @abstractmethod
    def detach(self) -> nn.Module:
        """Give the user's model back as it was, but for what it has learned."""

    @abstractmethod
    def running(self) -> contextlib.AbstractContextManager[nn.Module]:
        """The model with its scales at work, for code that calls parts or methods of it."""

    @abstractmethod
    def unhooked(self) -> contextlib.AbstractContextManager[nn.Module]:
        """The plain model for the length of a `with` block."""

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with its scales."""

    @property
    @abstractmethod
    def scales(self) -> dict[str, Tensor]:
        """Group of neurons -> scales for the surgery, without a graph; exactly 0 for neurons that go."""

    @abstractmethod
    def counts(self) -> list[GroupCounts]:
        """Kept, weakened and strengthened per group (or layer)."""

    @abstractmethod
    def prove(self, sample: Any) -> dict[str, float]:
        """That gated, folded and removed models agree, in float64; see `proving`."""

    @abstractmethod
    def fold(self) -> nn.Module:
        """A copy of the full size with the scales folded into the weights."""

    @abstractmethod
    def compact(self) -> nn.Module:
        """A smaller model that computes what this one computes."""

    def predicted(self) -> dict[Metric, tuple[float, float]]:
        """Metric -> cost of the compact model and of the dense one, as predicted; empty where nothing was."""
        return {}

    def switched_off(self) -> list[str]:
        """Names of parameters that hold exact zeros in the compact model."""
        return []

    def __enter__(self) -> Self:
        """Nothing happens on entering; the scales are at work already."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Detach, also after an exception."""
        self.detach()

    def __deepcopy__(self, _memo: object) -> Self:
        """Refuse to be copied.

        Raises:
            AttachError: always.
        """
        raise AttachError(
            "gates are not copied. compact() and fold() give models of their own, state_dict() what is needed to "
            "go on, and a deep copy of the model keeps the scales of that moment."
        )

    def __reduce__(self) -> str:
        raise AttachError("gates are not pickled. Save compact(), or state_dict() to go on later.")
