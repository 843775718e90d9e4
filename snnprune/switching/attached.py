"""What gated models of neurons and of connections have in common: whose they are, who learns, what is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Self

from torch import nn

from ..errors import AttachError
from ..plain import Mark
from .learners import Learners


class Attached(Mark):
    """A user's model with scales, until `detach()`; a `with` block does that by itself, also after an exception.

    Attributes:
        model: what runs with the scales.
        scorer: gives the scales; None where they are set by hand.
        learners: who learns, and the caller's `requires_grad` flags.
    """

    model: nn.Module
    scorer: Any
    learners: Learners

    def __enter__(self) -> Self:
        """Nothing happens on entering; the scales are at work already."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Detach, also after an exception."""
        self.detach()

    def detach(self) -> nn.Module:
        """Give the user's model back as it was, but for what it has learned."""
        raise NotImplementedError

    def unhooked(self) -> contextlib.AbstractContextManager[nn.Module]:
        """The plain model for the length of a `with` block."""
        raise NotImplementedError

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

    def network_parameters(self) -> list[nn.Parameter]:
        """The model's parameters that the caller had left trainable."""
        return self.learners.network()

    def scorer_parameters(self) -> list[nn.Parameter]:
        """Everything the scorer learns: the switcher and, with it, the offsets."""
        if self.scorer is None:
            return []
        offsets = offsets_of(self.scorer) if self.scorer.learns_offsets else []
        return self.scorer.switcher_parameters() + offsets

    def state_dict(self) -> dict[str, Any]:
        """The states of the network, `model`, and of the scorer, `scorer`; None for scales set by hand."""
        scorer = None if self.scorer is None else self.scorer.state_dict()
        with self.unhooked():
            return {"model": self.model.state_dict(), "scorer": scorer}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned, after gates were attached with the same arguments.

        Args:
            state: with entries `model` and `scorer`; others are passed over.

        Raises:
            RuntimeError: names or shapes are not those of this model, as of any `load_state_dict`.
        """
        with self.unhooked():
            self.model.load_state_dict(state["model"])
        if self.scorer is not None:
            self.scorer.load_state_dict(state["scorer"])
        self.forget()

    def forget(self) -> None:
        """Let scales be computed anew, also where they are held."""
        raise NotImplementedError


def offsets_of(scorer: Any) -> list[nn.Parameter]:
    """A scorer's offsets: one tensor for all neurons, or one per layer of connections."""
    return [scorer.offsets] if isinstance(scorer.offsets, nn.Parameter) else list(scorer.offsets)
