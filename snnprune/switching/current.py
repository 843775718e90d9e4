"""The scales that are at work: computed once for every state of the weights, whoever asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from .segments import straight_through

State = dict[str, Tensor]
Compute = Callable[["Scales | None"], "tuple[Tensor, Scales]"]


@dataclass(frozen=True, slots=True)
class Scales:
    """One set of scales.

    Attributes:
        values: (switched,) without a graph; exactly 0 where `mask` is not set.
        mask: (switched,) boolean, what is kept.
    """

    values: Tensor
    mask: Tensor

    def state(self) -> State:
        """For checkpoints."""
        return {"values": self.values, "mask": self.mask}

    @classmethod
    def read(cls, state: Any, count: int, device: torch.device) -> Scales:
        """What `state` returned.

        Args:
            state: anything.
            count: how many are switched.
            device: where they are to be.

        Raises:
            ConfigError: these are no scales of so many.
        """
        found = [state.get(name) if isinstance(state, Mapping) else None for name in ("values", "mask")]
        values, mask = (x if isinstance(x, Tensor) and x.shape == (count,) else None for x in found)
        if values is None or mask is None or mask.dtype != torch.bool:
            raise ConfigError(f"the scales of a state must be {count} values and a mask, as they were saved.")
        return cls(values.to(device), mask.to(device))


class Current:
    """Keeps the scales that a forward pass has used, so that surgery, reports and checkpoints see the very same.

    A scorer that is run a second time on the same weights may answer with other last bits, because a GPU does not
    add in the same order twice; near the threshold that even decides who is kept. What holds at all times:

    1. While the weights and the budget are the same, all who ask get the same values, to the bit. They are
       computed when somebody asks for the first time.
    2. A differentiable pass has these values, too. Only its graph is made anew, because a graph is good for one
       backward pass.
    3. Fixed scales (set by hand, or held while the network learns alone) stay, whatever changes.

    Whether the weights are the same is told by `version`, see `changes`.

    Args:
        compute: runs the scorer. Given the scales that hold already, or None, it returns the differentiable values
            and the scales.
        version: equal as long as nothing has changed that the scales depend on.
    """

    def __init__(self, compute: Compute, version: Callable[[], object]) -> None:
        self._compute, self._version = compute, version
        self._known: Scales | None = None
        self._stamp: object = None
        self.fixed = False

    @property
    def known(self) -> Scales | None:
        """What holds now; None where it has to be computed."""
        if self._known is None or not (self.fixed or self._stamp == self._version()):
            return None
        return self._known

    @property
    def last(self) -> Scales | None:
        """What the last pass has used, whether or not weights have changed since."""
        return self._known

    def scales(self) -> Scales:
        """What holds now, computed where it has to be."""
        known = self.known
        if known is None:
            with torch.no_grad():
                _, known = self._compute(None)
            self._keep(known)
        return known

    def differentiable(self) -> Tensor:
        """(switched,) scales for a pass, with a graph where gradients are recorded and scales not fixed."""
        if self.fixed or not torch.is_grad_enabled():
            return self.scales().values
        soft, scales = self._compute(self.known)
        self._keep(scales)
        return straight_through(scales.values, soft)

    def _keep(self, scales: Scales) -> None:
        self._known, self._stamp = scales, self._version()

    def fix(self, scales: Scales) -> None:
        """From now on these, until `forget`."""
        self._known, self.fixed = scales, True

    def put_back(self, scales: Scales) -> None:
        """These belong to the weights as they are now: they come from the same checkpoint."""
        self._keep(scales)
        self.fixed = False

    def forget(self) -> None:
        """Compute anew when somebody asks, also where scales were fixed."""
        self._known, self._stamp, self.fixed = None, None, False
