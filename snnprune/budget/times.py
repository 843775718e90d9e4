"""What a part of a network takes, as a table over how many of its inputs and outputs stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .costs import Columns, Kept


@dataclass(frozen=True, slots=True, eq=False)
class TimedPart:
    """The time of one part of a network, such as a layer with all that the engine fuses to it.

    Counts of columns that have the same row (or column) of the table cost the same, so that stairs are exact.

    Attributes:
        name: of the part, for messages.
        inputs: columns on whose number the time depends, or None.
        outputs: others, or None. Where both are None the time is a constant.
        rows: (inputs read + 1,) row of the table for every number of inputs from 0 on; (1,) zeros where `inputs`
            is None.
        columns: (outputs read + 1,) column of the table, likewise.
        table: (R, C) milliseconds.

    Raises:
        ConfigError: a map or the table is of another shape; a map falls, or points outside of the table; a time is
            not finite, is negative, or falls where more columns are there.
    """

    name: str
    inputs: Columns | None
    outputs: Columns | None
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    table: NDArray[np.float64]

    def __post_init__(self) -> None:
        table = np.asarray(self.table, dtype=np.float64)
        if table.ndim != 2 or not table.size:
            self._refuse(f"its table has the shape {table.shape}", "give times of shape (rows, columns)")
        if not np.isfinite(table).all() or table.min() < 0:
            self._refuse("a time of its table is negative or not finite", "measure it again")
        for axis, many in enumerate(("inputs", "outputs")):
            if (np.diff(table, axis=axis) < 0).any():
                self._refuse(f"its time falls where more {many} are there", "take the running maximum")
        object.__setattr__(self, "table", table)
        for axis, (name, side) in enumerate((("rows", self.inputs), ("columns", self.outputs))):
            found, want = np.asarray(getattr(self, name)), 1 if side is None else side.read + 1
            if found.shape != (want,) or not np.issubdtype(found.dtype, np.integer):
                self._refuse(
                    f"its {name} are {found.dtype} of shape {found.shape}",
                    f"give whole numbers of shape ({want},)",
                )
            if (np.diff(found) < 0).any() or found[0] < 0 or found[-1] >= table.shape[axis]:
                self._refuse(
                    f"its {name} fall, or point outside of the {table.shape[axis]} that the table has",
                    "give every count a place in the table, no lower than that of the count before",
                )
            object.__setattr__(self, name, found.astype(np.int64))

    def _refuse(self, cause: str, remedy: str) -> None:
        raise ConfigError(f"times of {self.name}: {cause}; {remedy}.")

    @property
    def dense(self) -> float:
        """Milliseconds while everything stays."""
        return float(self.table[self.rows[-1], self.columns[-1]])

    @property
    def reached(self) -> bool:
        """Whether it loses columns when neurons go."""
        return any(side is not None and bool(side.parts) for side in (self.inputs, self.outputs))

    def cost(self, kept: Kept) -> float:
        """Milliseconds with only the neurons in `kept`; groups not named stay whole."""
        into, out = (0 if side is None else side.count(kept) for side in (self.inputs, self.outputs))
        return float(self.table[self.rows[into], self.columns[out]])

    def along(self, group: str, size: int, kept: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.float64]:
        """(size + 1,) milliseconds with the first 0, 1, ... neurons of a group; of other groups with `kept`."""
        sides = (self.inputs, self.outputs)
        into, out = (np.zeros(1, dtype=np.int64) if s is None else _counts(s, group, size, kept) for s in sides)
        return self.table[self.rows[into], self.columns[out]] + np.zeros(size + 1)


def _counts(columns: Columns, group: str, size: int, kept: Kept) -> NDArray[np.int64]:
    """(size + 1,) columns that stay with the first 0, 1, ... neurons of the group."""
    needs = np.zeros(columns.width, dtype=np.int64)  # so many of its neurons must be there
    for name, at, neurons in columns.parts:
        if name == group:
            np.maximum.at(needs, at, neurons + 1)
        elif name in kept:
            needs[at[~kept[name][neurons]]] = size + 1
    read = needs if columns.index is None else needs[columns.index]
    return np.cumsum(np.bincount(read, minlength=size + 2)[: size + 1])
