"""A user's model for a time: what a `with` block and the functions of Python's `copy` do with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from torch import nn

from ..errors import AttachError
from ..plain import Mark


class Attached(Mark, ABC):
    """Sits on a user's model until `detach()`; a `with` block does that by itself, also after an exception."""

    @abstractmethod
    def detach(self) -> nn.Module:
        """Give the user's model back as it was, but for what it has learned."""

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
