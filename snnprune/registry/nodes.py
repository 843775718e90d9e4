"""What a pickle makes, by kind and size: what the stack machine works with in place of the values themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

DEPTH = 100  # containers in one another; a module takes three levels, and copying one takes three calls a level
_KEY_WEIGHT = 8  # the values that a tuple used as a key may hold
_NONE: list[Any] = []  # never filled
_KEYED = ("dict", "ordered", "foreign")
_PRIME = 2**61 - 1  # integers below it are their own hash


class Refused(Exception):
    """The file is damaged, or asks for what no saved model needs."""


class Node:
    """A container, an object, a tensor or a storage.

    `weight` and `data` are what a walk meets that does not know which parts are shared: values, and bytes of
    tensors. They are final because a container that is part of another one may not change any more, for which
    reason nothing can contain itself either.
    """

    __slots__ = ("cls", "data", "depth", "held", "item", "items", "keys", "kind", "odd", "plain", "size", "weight")

    def __init__(self, kind: str, items: Iterable[Any] = (), size: int = 0, item: int = 1) -> None:
        self.kind, self.size, self.item = kind, size, item  # size: entries, or bytes of a storage
        self.weight, self.data, self.depth, self.odd = 1, 0, 0, 0
        self.plain, self.held = True, False  # plain: all of it may be hashed
        self.keys: list[Any] = [] if kind in _KEYED else _NONE  # of a dict
        self.items: list[Any] = _NONE  # of a tuple
        self.cls: type = object  # of an object
        if items:
            self.hold(items)

    def hold(self, items: Iterable[Any]) -> None:
        """Take items in: they become final."""
        if self.held:
            raise Refused("its parts are in one another")
        for item in items:
            if isinstance(item, Node):
                if item is self:
                    raise Refused("its parts are in one another")
                item.held = True
                self.weight += item.weight
                self.data += item.data
                self.depth = max(self.depth, item.depth + 1)
            else:
                self.weight += weight(item)
        if self.depth > DEPTH:
            raise Refused(f"its parts are nested more than {DEPTH} deep, or in one another")


class Global:
    """A class or function that the file names."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def tuple_of(items: list[Any]) -> Node:
    """A tuple; it keeps its items, for it may be the arguments of a call."""
    made = Node("tuple", items, size=len(items))
    made.items = items
    made.plain = made.weight <= _KEY_WEIGHT and all(is_plain(item) for item in items)
    return made


def weight(value: Any) -> int:
    """Of a string or number: 1, and more for a long one."""
    return 1 + sys.getsizeof(value) // 64 if isinstance(value, (str, bytes, int)) else 1


def is_plain(value: Any) -> bool:
    """Whether it may be a key, or in a set: a number, a string, or a small tuple of those."""
    if isinstance(value, Node):
        return value.kind == "tuple" and value.plain
    return not isinstance(value, Global)


def is_odd(key: Any) -> bool:
    """Whether its hash can be foreseen and chosen, so that a dict of many such keys is slow."""
    if isinstance(key, int):
        return not -_PRIME < key < _PRIME
    return isinstance(key, (float, Node))
