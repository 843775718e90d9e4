"""Which neurons stay, by their values: the best that a budget allows, or those above zero."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..budget import Budget, CostModel
from ..errors import CollapsedLayerError, TargetError
from .doubts import Doubts
from .rule import collapsed
from .segments import Segments, offsets

_PART = "neurons of one of its layers"


class Choice:
    """The neurons of one model that stay; nothing here waits for a GPU.

    Args:
        cost: what neurons cost.
        segments: the groups.
        lifts: (neurons,), what is added to values before they are compared; None without a scorer.
        doubts: where conditions are noted that have to hold.
        floor: least kept share of every group under a budget.
        round_to: keep multiples of this many channels under a budget.
    """

    def __init__(
        self,
        cost: CostModel,
        segments: Segments,
        lifts: Tensor | None,
        doubts: Doubts,
        *,
        floor: float,
        round_to: int,
    ) -> None:
        self.cost, self.segments, self.lifts, self.doubts = cost, segments, lifts, doubts
        self.floor, self.round_to = floor, round_to
        first = dict(zip(segments.names, offsets(segments.sizes), strict=True))
        self._parts = [
            (name, (first[name] + torch.from_numpy(part)).to(segments.group.device))
            for name, parts in cost.parts.items()
            for part in parts
        ]

    def under(self, budget: Budget, values: Tensor) -> Tensor:
        """(neurons,) mask of the best, by one threshold that meets the budget.

        Args:
            budget: what is asked for.
            values: (neurons,) values u.
        """
        options = {"floor": self.floor, "round_to": self.round_to}
        scores = values.detach() if self.lifts is None else values.detach() + self.lifts
        selector = self.cost.selector(budget.metric, device=values.device, **options)
        mask, fits = selector(scores, budget.share)

        def error() -> Exception:
            found = {n: u.double().cpu().numpy() for n, u in self.segments.split(scores).items()}
            try:
                self.cost.select(budget.metric, budget.share, found, **options)
            except TargetError as error:
                return error
            return TargetError(f"{budget.metric}={budget.share:g} is below what the floors allow.")

        self.doubts.add(fits, error)
        return mask

    def alone(self, values: Tensor) -> Tensor:
        """(neurons,) mask in the papers' free mode: those whose value is positive.

        Args:
            values: (neurons,) values u.
        """
        mask = values > 0
        per_group = self.segments.sums(mask.to(torch.float32))
        self.doubts.add((per_group > 0).all(), lambda: self._cut_by(mask))
        for name, part in self._parts:
            self.doubts.add(mask.index_select(0, part).any(), partial(collapsed, name, len(part), _PART))
        return mask

    def _cut_by(self, mask: Tensor) -> CollapsedLayerError:
        kept = self.segments.split(mask)
        name = next(name for name, own in kept.items() if not bool(own.any()))
        return collapsed(name, len(kept[name]), "neurons")
