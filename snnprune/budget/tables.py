"""Costs of sets that grow, all in one table on the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .terms import Terms


@dataclass(frozen=True, slots=True)
class Table:
    """Costs of sets that grow: an entry with number i stays from the i-th set on.

    Attributes:
        start: (orders, rows x sets) what rows have in the first set.
        place: (entries,) of every entry's row.
        rows: of the terms.
        sets: that are looked at.
        lookup: maps and amounts, where pairs of counts are looked up; None where they are multiplied.
    """

    start: Tensor
    place: Tensor
    rows: int
    sets: int
    lookup: tuple[Tensor, Tensor] | None

    @staticmethod
    def of(
        terms: Terms,
        orders: int,
        sets: int,
        shift: int,
        device: torch.device,
        lookup: tuple[Tensor, Tensor] | None,
    ) -> Table:
        """The table for entries whose numbers begin at -shift."""
        rows = len(terms.fixed)
        start = np.zeros((orders, rows, sets), dtype=np.int64)
        start[:, :, 0] = terms.fixed
        if orders > 1 and lookup is None:  # of sets that cost the same, the threshold's order takes the largest
            start[0, terms.pairs - 1, 1:] = 1
        place = torch.from_numpy(terms.rows * sets + shift).to(device)
        return Table(torch.from_numpy(start.reshape(orders, -1)).to(device), place, rows, sets, lookup)

    def costs(self, numbers: Tensor, weights: Tensor) -> Tensor:
        """(orders, sets) costs, for (orders, entries) numbers of the set from which an entry stays."""
        counts = torch.scatter_add(self.start, 1, numbers + self.place, weights.expand(len(numbers), -1))
        counts = counts.view(-1, 2, self.rows // 2, self.sets).cumsum(-1)
        if self.lookup is None:
            left, right = counts.unbind(1)
            return (left * right).sum(1)
        maps, amounts = self.lookup
        return amounts[maps[counts].sum(1)].sum(1)
