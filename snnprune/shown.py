"""What is shown of texts and lists that come from others: texts that stay in their line, and lists that end."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
ROWS = 500  # of a table
_TEXT, _WIDE = 300, 60  # characters of one text, and of a narrow one
_HOLDS = "the run's report.json holds all"


def visible(text: str) -> str:
    """The text with every control, format and lone surrogate character as `?`, line ends among them.

    Such a character moves the cursor, renames the window, reverses what follows, or forges a line.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def cut(text: object, length: int = _TEXT, front: float = 0.5) -> str:
    """A visible text of at most so many characters, of which the middle is left out.

    Args:
        text: what to show.
        length: characters.
        front: share of them before what is left out.
    """
    whole = str(text)
    if len(whole) > length:  # before it is looked through, for a file may hold a text of any length
        gap = "…" if length < _WIDE else " ... "
        begin = int(front * (length - len(gap)))
        whole = f"{whole[:begin]}{gap}{whole[len(whole) - (length - len(gap) - begin) :]}"
    return visible(whole)


def brief_repr(value: object, length: int = 100) -> str:
    """A value as Python writes it, of at most so many characters; where it cannot be written, what it is."""
    try:
        return repr(value)[:length]
    except Exception:  # a whole number of too many digits, or somebody's own __repr__
        return f"a number of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"


def first(items: Sequence[T], limit: int, what: str, where: str = _HOLDS) -> tuple[list[T], str]:
    """The first items, and a sentence on how many are left out; it is empty where none are.

    Args:
        items: all there are.
        limit: how many are shown.
        what: they are, in words.
        where: all can be found.
    """
    return list(items[:limit]), _note("first", items, limit, what, where)


def last(items: Sequence[T], limit: int, what: str, where: str = _HOLDS) -> tuple[list[T], str]:
    """The last items, and a sentence as of `first`."""
    return list(items[-limit:]), _note("last", items, limit, what, where)


def largest(
    items: Sequence[T], limit: int, what: str, size: Callable[[T], float], where: str = _HOLDS
) -> tuple[list[T], str]:
    """The largest items in the order in which they come, and a sentence as of `first`."""
    chosen = heapq.nlargest(limit, range(len(items)), key=lambda at: size(items[at]))
    return [items[at] for at in sorted(chosen)], _note("largest", items, limit, what, where)


def spread(items: Sequence[T], limit: int, what: str, where: str = _HOLDS) -> tuple[list[T], str]:
    """Items at equal distances, both ends among them, and a sentence as of `first`."""
    gaps = max(1, min(limit, len(items)) - 1)
    chosen = [items[at * (len(items) - 1) // gaps] for at in range(min(limit, len(items)))]
    return chosen, _note("", items, limit, what, where)


def _note(which: str, items: Sequence[object], limit: int, what: str, where: str) -> str:
    if len(items) <= limit:
        return ""
    chosen = f"the {limit:,} {which}" if which else f"{limit:,}"
    return f"Of {len(items):,} {what} {chosen} are shown; {where}."
