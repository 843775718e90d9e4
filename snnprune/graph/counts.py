"""How many of something are left, whichever neurons go: a fixed number, and so many of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .labels import Classes, core, varying
from .traced import Attribute, Expression, Term, Width, leaves


@dataclass(frozen=True, slots=True)
class Count:
    """A number of elements along a dimension, before and after any neurons have gone.

    Attributes:
        fixed: those that no neuron owns, or whose neurons stay.
        parts: (class, its elements), in the order of the classes.
    """

    fixed: int
    parts: tuple[tuple[int, int], ...] = ()

    @property
    def total(self) -> int:
        """Of all elements."""
        return self.fixed + sum(n for _, n in self.parts)

    def __add__(self, other: Count) -> Count:
        """Both side by side."""
        return _count(self.fixed + other.fixed, Counter(dict(self.parts)) + Counter(dict(other.parts)))

    def __sub__(self, other: Count) -> Count | None:
        """What is left without some; None where these are none of it."""
        mine = Counter(dict(self.parts))
        mine.subtract(dict(other.parts))
        if self.fixed < other.fixed or any(n < 0 for n in mine.values()):
            return None
        return _count(self.fixed - other.fixed, mine)

    def times(self, factor: int) -> Count:
        """So many times as much."""
        return Count(self.fixed * factor, tuple((r, n * factor) for r, n in self.parts))

    def over(self, divisor: int) -> Count | None:
        """The same share of every class and of what is fixed; None where there is none."""
        if divisor < 1 or self.fixed % divisor or any(n % divisor for _, n in self.parts):
            return None
        return Count(self.fixed // divisor, tuple((r, n // divisor) for r, n in self.parts))


def _count(fixed: int, parts: Mapping[int, int]) -> Count:
    return Count(fixed, tuple(sorted((r, n) for r, n in parts.items() if n)))


Open = Callable[[np.ndarray], np.ndarray]  # classes -> those that may go, 0 for the others


def count_along(classes: Classes, open_: Open, labels: Tensor | None, dim: int, size: int) -> Count | None:
    """What is left of a tensor along one dimension; None where that is not the same everywhere.

    A dimension along which nothing but one class lies is as long as before while the class is there at all.
    """
    if labels is None or dim not in varying(labels):
        return Count(size)
    small = core(labels)
    lines = open_(classes.roots(small.numpy()))
    lines = np.moveaxis(lines, dim, 0).reshape(size, -1)
    if (lines == lines[:1]).all():
        return Count(size)
    if not (lines == lines[:, :1]).all():
        return None
    found = Counter(lines[:, 0].tolist())
    return _count(found.pop(0, 0), found)


class Values:
    """What expressions come to, for attributes of which it is known what they count.

    Attributes:
        known: attribute -> what it counts.
        plain: attribute -> its number, where it counts nothing that goes.
    """

    def __init__(self, classes: Classes, open_: Open, plain: Mapping[Attribute, int]) -> None:
        self.classes, self.open_, self.plain = classes, open_, plain
        self.known: dict[Attribute, Count] = {}

    def __call__(self, expression: Expression) -> Count | None:
        """What an expression comes to; None where it is no such count."""
        if isinstance(expression, int):
            return Count(expression)
        if isinstance(expression, Attribute):
            return self.known.get(expression, Count(self.plain[expression]))
        if isinstance(expression, Width):
            return count_along(self.classes, self.open_, expression.labels, expression.dim, expression.size)
        left, right = self(expression.left), self(expression.right)
        return None if left is None or right is None else _combined(expression.sign, left, right)

    def solved(self, expression: Expression, wanted: Count) -> tuple[Attribute, Count] | None:
        """The attribute that makes an expression come to a count, and what it then counts; None without one."""
        if isinstance(expression, Attribute):
            return expression, wanted
        if not isinstance(expression, Term):
            return None
        left = any(isinstance(leaf, Attribute) and leaf not in self.known for leaf in leaves(expression.left))
        right = any(isinstance(leaf, Attribute) and leaf not in self.known for leaf in leaves(expression.right))
        if left and right and expression.sign == "*":  # such as heads * width: one of them is known to stay
            return None
        if left and right and not _same(expression.left, expression.right):
            return None
        side, other = (
            (expression.left, expression.right) if left or not right else (expression.right, expression.left)
        )
        known = self(other)
        if known is None or not (left or right):
            return None
        inner = self._inverse(expression, side, known, wanted)
        return None if inner is None else self.solved(side, inner)

    def _inverse(self, term: Term, side: Expression, known: Count, wanted: Count) -> Count | None:
        """What one side of a term has to come to."""
        first = side is term.left
        if term.sign == "+":
            if first and _same(term.left, term.right):
                return wanted.over(2)
            return wanted - known
        if term.sign == "-" and first:
            return wanted + known
        if term.sign == "*":
            if not known.parts:
                return wanted.over(known.fixed) if known.fixed else None
            return _ratio(wanted, known)
        if term.sign == "//" and first and not known.parts:
            return wanted.times(known.fixed)
        return None


def _same(left: Expression, right: Expression) -> bool:
    return isinstance(left, Attribute) and left == right


def _ratio(whole: Count, part: Count) -> Count | None:
    """How many times as much one count is as another, the same for every class."""
    if not part.total or whole.total % part.total:
        return None
    times = whole.total // part.total
    return Count(times) if part.times(times) == whole else None


def _combined(sign: str, left: Count, right: Count) -> Count | None:
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        if left.parts and right.parts:
            return None
        return left.times(right.fixed) if left.parts else right.times(left.fixed)
    if sign == "//":
        if not right.parts:
            exact = left.over(right.fixed) if right.fixed else None
            return exact if left.parts or exact is not None else Count(left.fixed // max(1, right.fixed))
        return _ratio(left, right)
    if sign == "%" and not left.parts and not right.parts:
        return Count(left.fixed % max(1, right.fixed))
    return None
