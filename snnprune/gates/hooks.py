"""The hooks that make a model a gated one."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from ..surgery import scale_call


class Owner(Protocol):
    """Who computes the scales."""

    _dirty: bool
    _factors: dict[str, Tensor]

    def refresh(self) -> None:
        """Compute the scales anew where something has changed."""
        ...


class Gate:
    """Forward pre-hook of one consumer: input times the scales of its columns."""

    def __init__(self, owner: Owner, name: str) -> None:
        self.owner, self.name = owner, name

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Scale the layer's input."""
        if self.owner._dirty:  # the layer is called on its own, not through the model
            self.owner.refresh()
        factor = self.owner._factors.get(self.name)
        return None if factor is None else scale_call(module, args, kwargs, factor)


class Refresh:
    """Forward pre-hook of the whole model: one set of scales per forward pass."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...]) -> None:
        """Look for changes."""
        self.owner.refresh()


def is_gated(model: nn.Module) -> bool:
    """True when any module of the model carries one of our gates."""
    return any(
        isinstance(hook, (Gate, Refresh))
        for module in model.modules()
        for hook in module._forward_pre_hooks.values()
    )
