"""Who learns: the network, what gives the scales, or both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import nn

from ..errors import ConfigError

Phase = Literal["switcher", "network", "both"]
Gradient = Literal["through", "held"]


class Learners:
    """The phase that a model with scales is in; the caller's `requires_grad` flags outlive it.

    Attributes:
        phase: who learns.
        gradient: what the network's phase does with the scales, see `GatedModel.set_phase`.
        flags: the network's parameters, and whether the caller had left each trainable.
    """

    def __init__(self, network: nn.Module) -> None:
        self.phase: Phase = "both"
        self.gradient: Gradient = "through"
        self.flags = {p: p.requires_grad for p in network.parameters()}

    @property
    def held(self) -> bool:
        """Whether the network learns under scales that stay as they are."""
        return self.phase == "network" and self.gradient == "held"

    def changes(self, phase: Phase, gradient: Gradient) -> bool:
        """Whether this is another phase than the present one.

        Raises:
            ConfigError: no such phase or gradient.
        """
        if phase not in ("switcher", "network", "both"):
            raise ConfigError(f"phase {phase!r} is unknown; use 'switcher', 'network' or 'both'.")
        if gradient not in ("through", "held"):
            raise ConfigError(f"gradient {gradient!r} is unknown; use 'through' or 'held'.")
        return (phase, gradient) != (self.phase, self.gradient)

    def set(self, phase: Phase, gradient: Gradient, scorer: Iterable[nn.Parameter]) -> None:
        """Freeze whoever does not learn: the network's parameters, or those of the scorer."""
        self.phase, self.gradient = phase, gradient
        for parameter, flag in self.flags.items():
            parameter.requires_grad_(flag and phase != "switcher")
        for parameter in scorer:
            parameter.requires_grad_(phase != "network")

    def network(self) -> list[nn.Parameter]:
        """The network's parameters that the caller had left trainable."""
        return [p for p, flag in self.flags.items() if flag]

    def put_back(self) -> None:
        """The caller's flags again."""
        for parameter, flag in self.flags.items():
            parameter.requires_grad_(flag)

    def put_on(self, clone: nn.Module) -> nn.Module:
        """The caller's flags on a copy of the network, which loses its gradients; returns the copy."""
        for parameter, flag in zip(clone.parameters(), self.flags.values(), strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = None
        return clone
