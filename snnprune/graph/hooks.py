"""Hooks by which a walk knows which module runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from torch import nn
from torch.utils._python_dispatch import _disable_current_modes


class Visitor(Protocol):
    """Who wants to know."""

    modules: dict[str, nn.Module]

    def enter(self, name: str, module: nn.Module, args: Any) -> None:
        """A module begins."""
        ...

    def leave(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A module ends, perhaps by an exception."""
        ...

    def reset(self) -> None:
        """The pass is over."""
        ...


@contextlib.contextmanager
def hooked(walk: Visitor) -> Iterator[None]:
    """Hand every module's beginning and end to a visitor, for the length of a `with` block."""
    handles = []
    for name, module in walk.modules.items():  # under their own names, wherever they stand in a pass
        handles.append(module.register_forward_pre_hook(_Enter(walk, name)))
        # Around the layer itself: what hooks of the user's own do is followed like any other code.
        leave = _Leave(walk, name)
        handles.append(module.register_forward_hook(leave, prepend=True, with_kwargs=True, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        walk.reset()


class _Enter:
    def __init__(self, walk: Visitor, name: str) -> None:
        self.walk, self.name = walk, name

    def __call__(self, module: nn.Module, args: Any) -> None:
        with _disable_current_modes():
            self.walk.enter(self.name, module, args)


class _Leave:
    def __init__(self, walk: Visitor, name: str) -> None:
        self.walk, self.name = walk, name

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        with _disable_current_modes():
            self.walk.leave(self.name, module, args, kwargs, output)
