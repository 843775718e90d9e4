"""What all scorers have in common: values near 1 or standardised, free offsets, and the options of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .segments import Segments

Start = Literal["post-training", "fresh"]
ScoreSource = Literal["switcher", "switcher+offset", "free"]


def check_scorer(scores: object, start: object) -> None:
    """Refuse unknown options.

    Raises:
        ConfigError: there is no such source of scores, or no such start.
    """
    if scores not in ("switcher", "switcher+offset", "free"):
        raise ConfigError(f"scores={scores!r} is unknown; use switcher, switcher+offset or free.")
    if start not in ("post-training", "fresh"):
        raise ConfigError(f"start={start!r} is unknown; use post-training or fresh.")


class ValueScorer(nn.Module, ABC):
    """Gives everything that is switched a value `u`; its scale is `u` where it is kept.

    At the *post-training* start `u = 1 + spread * z + offset`, so that the trained function is unharmed. At the
    *fresh* start the values of every group are standardised at all times.

    Attributes:
        segments: the groups.
        start: `post-training` or `fresh`.
        offsets: (switched,) a free offset each; empty where only a switcher gives values.
    """

    def __init__(
        self,
        segments: Segments,
        *,
        scores: ScoreSource,
        start: Start,
        spread: float,
        fresh_mean: float,
        fresh_std: float,
        device: torch.device,
    ) -> None:
        super().__init__()
        check_scorer(scores, start)
        self.segments, self.start, self.spread = segments, start, spread
        self.fresh_mean, self.fresh_std = fresh_mean, fresh_std
        self.learns_offsets = scores != "switcher"
        size = segments.total if self.learns_offsets else 0
        self.offsets = nn.Parameter(torch.zeros(size, device=device), requires_grad=self.learns_offsets)

    @abstractmethod
    def drop_switcher(self) -> None:
        """Leave the offsets alone."""

    def become_free(self, values: Tensor) -> None:
        """Let the offsets give the values from now on, and let them begin with these."""
        with torch.no_grad():
            self.offsets.copy_(values - 1)
        self.drop_switcher()

    def switcher_parameters(self) -> list[nn.Parameter]:
        """Parameters of the networks that read weights."""
        return [p for p in self.parameters() if p is not self.offsets]

    def offset_parameters(self) -> list[nn.Parameter]:
        """The offsets, where they learn."""
        return [self.offsets] if self.learns_offsets else []

    def value_of(self, raw: Tensor | None) -> Tensor:
        """(switched,) values u of what the networks say; of None, the offsets alone."""
        if raw is None:
            return 1 + self.offsets
        if self.start == "fresh":
            values = standardized(raw, self.segments, self.fresh_mean, self.fresh_std)
        else:
            values = 1 + self.spread * raw
        return values + self.offsets if self.learns_offsets else values


def standardized(raw: Tensor, segments: Segments, mean: float, std: float) -> Tensor:
    """Values of every group moved and scaled to a mean and a standard deviation, differentiably."""
    centred = raw - segments.spread(segments.means(raw))
    unit = centred.detach().abs().max().clamp_min(1.0)  # without it squares of large values would be infinite,
    spread = segments.means((centred / unit).square()).sqrt() * unit  # and all values of a group the mean
    return mean + std * centred / segments.spread(spread + 1e-6)
