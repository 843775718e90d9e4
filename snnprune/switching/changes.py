"""Whether weights have changed since something was computed from them."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook


class Changes:
    """Tells states of some parameters apart.

    PyTorch counts the changes in place of every tensor, but not those by fused optimisers, nor that a parameter
    was given another tensor (`p.data = ...`, as averaged weights are swapped in). So the steps of all optimisers
    that hold one of the parameters are counted, too, and places in memory are compared. What is written in place
    through `p.data` is seen by nobody; `forget()` of the gated model says so.

    Args:
        parameters: whose changes count.

    Attributes:
        steps: of such optimisers, since this was made.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._known = {id(parameter) for parameter in self._parameters}
        self.steps = 0
        _listen()
        _LIVING.add(self)

    def state(self) -> tuple[int, int, int]:
        """Equal as long as no parameter has changed."""
        versions = sum(parameter._version for parameter in self._parameters)
        return versions, self.steps, sum(parameter.data_ptr() for parameter in self._parameters)

    def close(self) -> None:
        """Optimisers need not tell any more."""
        _LIVING.discard(self)


_LIVING: weakref.WeakSet[Changes] = weakref.WeakSet()


@functools.cache
def _listen() -> None:
    """Be told of the steps of all optimisers, once per process: a hook that goes while hooks run is an error."""
    register_optimizer_step_post_hook(_stepped)


def _stepped(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
    for changes in list(_LIVING):
        if any(id(p) in changes._known for group in optimizer.param_groups for p in group["params"]):
            changes.steps += 1
