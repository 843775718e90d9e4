"""Sums over chosen rows of a table, the same bits every time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_TOGETHER = 8  # rows that one addition takes


class RowSums(nn.Module):
    """For each of many outputs, the sum of some rows.

    Most outputs are one row alone, a few are sums of many, so partial sums of up to eight rows are appended to the
    table, level by level, until every output is one row of what has become of it.

    Args:
        groups: of every group of outputs (terms, outputs), the rows that make its outputs; it may have no terms.
        rows: of the table.
    """

    def __init__(self, groups: Sequence[Tensor], rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.bounds: list[tuple[int, int]] = []
        self.levels = 0
        end = rows + 1  # behind a row of zeros
        left = list(groups)
        while any(len(terms) > 1 for terms in left):
            tables, begin = [], end
            for i, terms in enumerate(left):
                if len(terms) < 2:
                    continue
                found = []
                for some in terms.split(_TOGETHER):
                    if len(some) == 1:
                        found.append(some[0])
                        continue
                    outputs = some.shape[1]
                    spare = some.new_full((_TOGETHER - len(some), outputs), rows)
                    tables.append(torch.cat([some, spare]).t())
                    found.append(torch.arange(end, end + outputs))
                    end += outputs
                left[i] = torch.stack(found)
            self.register_buffer(f"level_{self.levels}", torch.cat(tables).flatten(), persistent=False)
            self.bounds.append((begin, end))
            self.levels += 1
        picked = [terms[0] if len(terms) else torch.full((terms.shape[1],), rows) for terms in left]
        self.size = end
        self.register_buffer("pick", torch.cat(picked), persistent=False)

    pick: Tensor

    def table(self, like: Tensor, *shape: int) -> Tensor:
        """A table whose first `rows` are to be filled; then comes a row of zeros, and room for partial sums."""
        found = like.new_empty(self.size, *shape)
        found[self.rows].zero_()
        return found

    def complete_(self, table: Tensor) -> Tensor:
        """Fill in the partial sums; `pick` then says where every output lies."""
        for level, (begin, end) in enumerate(self.bounds):
            found = table.index_select(0, getattr(self, f"level_{level}"))
            torch.sum(found.view(end - begin, _TOGETHER, *table.shape[1:]), 1, out=table[begin:end])
        return table
