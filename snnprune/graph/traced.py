"""Whole numbers that remember where a network's code had them from.

While a model is followed, the integers in its attributes and the sizes of its tensors are numbers of this kind.
What the code makes of them by whole arithmetic remembers that too, so that it is known which attribute sized which
tensor.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

_LARGEST = 40  # terms of an expression; a counter that grows by every call is no size


@dataclass(frozen=True, slots=True)
class Attribute:
    """An integer in an attribute of a module: its name, and the path within it."""

    module: str
    path: str


@dataclass(frozen=True, slots=True, eq=False)
class Width:
    """The size of a tensor along one dimension.

    Attributes:
        labels: of the tensor, or None where no neuron owns any of it.
        dim: the dimension.
        size: along it.
        call: number of the module's call in which it was read.
    """

    labels: Tensor | None
    dim: int
    size: int
    call: int


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """What arithmetic made of two expressions."""

    sign: str
    left: Expression
    right: Expression
    terms: int


Expression = Attribute | Width | Term | int


def leaves(expression: Expression) -> Iterator[Attribute | Width]:
    """The attributes and widths that an expression is made of."""
    if isinstance(expression, Term):
        yield from leaves(expression.left)
        yield from leaves(expression.right)
    elif not isinstance(expression, int):
        yield expression


def alike(left: Expression, right: Expression) -> bool:
    """Whether two expressions are the same attribute."""
    return isinstance(left, Attribute) and left == right


def expression_of(value: int) -> Expression:
    """Where a number came from; a plain integer is itself."""
    return value.origin if isinstance(value, Number) else int(value)


class Number(int):
    """An integer with its origin.

    Attributes:
        origin: the expression that it is the value of.
        notes: what is told when it is compared, or computed with as no size.
    """

    origin: Expression
    notes: Notes

    def __new__(cls, value: int, origin: Expression, notes: Notes) -> Number:
        """A number of a value, and the expression of it."""
        made = int.__new__(cls, value)
        made.origin, made.notes = origin, notes
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies are plain."""
        return int, (int.__index__(self),)

    def __deepcopy__(self, _memo: Any) -> Number:
        """As with integers, itself."""
        return self

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        """As of integers; that two were equal is noted."""
        same = int.__eq__(self, other)  # type: ignore[operator]
        if same is True and isinstance(other, Number) and other.origin is not self.origin:
            self.notes.equal(self.origin, other.origin)
        return same

    def __ne__(self, other: object) -> bool:
        """As of integers."""
        same = self.__eq__(other)
        return same if same is NotImplemented else not same

    def __float__(self) -> float:
        """Its value is computed with."""
        self.notes.valued(self.origin)
        return float(int.__index__(self))

    def __truediv__(self, other: Any) -> Any:
        """Its value is computed with."""
        if isinstance(other, (int, float)):
            self.notes.valued(self.origin)
        return int.__truediv__(self, other) if isinstance(other, int) else int.__index__(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        """Its value is computed with."""
        self.notes.valued(self.origin)
        return other / int.__index__(self)

    def __pow__(self, other: Any, modulo: Any = None) -> Any:  # type: ignore[override]
        """Its value is computed with."""
        self.notes.valued(self.origin)
        return pow(int.__index__(self), other, modulo)

    def __neg__(self) -> Number:
        """Of a size that counts from the end."""
        return _number("-", 0, self, int.__neg__(self), self.notes)

    def __int__(self) -> int:
        """A plain integer."""
        return int.__index__(self)


def _number(sign: str, left: int, right: int, value: int, notes: Notes) -> Number:
    a, b = expression_of(left), expression_of(right)
    terms = 1 + sum(1 if not isinstance(e, Term) else e.terms for e in (a, b))
    return Number(value, Term(sign, a, b, terms) if terms <= _LARGEST else value, notes)


def _arithmetic(sign: str, function: Callable[[int, int], int]) -> tuple[Any, Any]:
    """The methods of one operation, with the number on the left and on the right."""

    def forward(self: Number, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return _number(sign, self, other, function(int.__index__(self), int.__index__(other)), self.notes)

    def backward(self: Number, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        return _number(sign, other, self, function(int.__index__(other), int.__index__(self)), self.notes)

    return forward, backward


for _sign, _name in (("+", "add"), ("-", "sub"), ("*", "mul"), ("//", "floordiv"), ("%", "mod")):
    _there, _back = _arithmetic(_sign, getattr(operator, _name))
    setattr(Number, f"__{_name}__", _there)
    setattr(Number, f"__r{_name}__", _back)


class Notes:
    """What is told of numbers besides the sizes that they were used as.

    Attributes:
        equalities: pairs of expressions that the code found to be equal.
        values: attributes that were computed with as plain numbers.
    """

    def __init__(self) -> None:
        self.equalities: list[tuple[Expression, Expression]] = []
        self.values: set[Attribute] = set()

    def equal(self, left: Expression, right: Expression) -> None:
        """Two numbers were compared, and are equal."""
        if any(isinstance(leaf, Attribute) for e in (left, right) for leaf in leaves(e)):
            self.equalities.append((left, right))

    def valued(self, expression: Expression) -> None:
        """A number was computed with otherwise than as a size."""
        self.values.update(leaf for leaf in leaves(expression) if isinstance(leaf, Attribute))
