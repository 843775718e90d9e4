"""Which of a network's own numbers have to follow when neurons go, and how.

Every size that the code gave must come to what is left along its dimension. An attribute follows where that is
what it counts, wherever it was read as a size. What no attribute can say is asked of the module instead, at the
call (`layers.code`). What neither can do keeps its groups, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from torch import nn

from ..layers import kind_of
from ..layers.code import can_take
from .asked import Asked
from .counts import Count, Values, count_along
from .labels import Classes
from .sizing import Sizes
from .traced import Attribute, Expression, leaves


@dataclass(frozen=True, slots=True)
class Followed:
    """One number that follows.

    Attributes:
        module: name of the module that holds it.
        role: `size` for an attribute, `call` for a size that a call in its code takes.
        place: path of the attribute; method, call and position.
        count: what it counts; None for a size that is left open (-1).
        anchors: classes with which it has to change, beyond those that it counts.
    """

    module: str
    role: Literal["size", "call"]
    place: str
    count: Count | None
    anchors: frozenset[int]


@dataclass(frozen=True, slots=True)
class Following:
    """What becomes of a network's own numbers.

    Attributes:
        numbers: those that follow.
        refused: group -> why it stays, since a number of its cannot follow.
        doubts: group -> the reason that it has if the proof fails.
        still: attributes that were read as sizes or values, and must stay what they are.
    """

    numbers: list[Followed]
    refused: dict[int, str]
    doubts: dict[int, str]
    still: set[tuple[str, str]]


@dataclass
class _Outcome:
    """What one attempt came to."""

    followed: list[Followed] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)  # class -> why it stays
    doubts: dict[int, str] = field(default_factory=dict)  # class -> why it will hardly pass the proof
    still: set[tuple[str, str]] = field(default_factory=set)  # attributes that must stay what they are

    def refuse(self, classes: set[int], why: str) -> None:
        for root in classes:
            self.refused.setdefault(root, why)


def follow(model: nn.Module, classes: Classes, sizes: Sizes, group_of: Mapping[int, int]) -> Following:
    """The numbers that follow, and the groups that stay because theirs cannot.

    Args:
        model: the network.
        classes: of labels.
        sizes: that its code asked for.
        group_of: class that may go -> its group.
    """
    reasons: dict[int, str] = {}
    while True:
        open_ = {root for root, group in group_of.items() if group not in reasons}
        outcome = _Attempt(model, classes, sizes, open_).run()
        new = {group_of[root]: why for root, why in outcome.refused.items()}
        if not new:
            doubts = {group_of[root]: why for root, why in outcome.doubts.items() if root in group_of}
            return Following(outcome.followed, reasons, doubts, outcome.still)
        reasons |= new


class _Attempt:
    def __init__(self, model: nn.Module, classes: Classes, sizes: Sizes, open_: set[int]) -> None:
        self.model, self.sizes = model, sizes
        among = np.array(sorted(open_), dtype=np.int64)
        self.values = Values(classes, lambda roots: np.where(np.isin(roots, among), roots, 0), sizes.plain)
        self.outcome = _Outcome()
        self.wanted: list[tuple[Asked, Count]] = []
        for asked in sizes.asked:
            count = count_along(classes, self.values.open_, asked.labels, asked.dim, asked.size)
            if count is not None:
                self.wanted.append((asked, count))
            elif asked.firm:
                own = set(np.unique(self.values.open_(classes.roots(asked.labels))).tolist()) - {0}
                self.outcome.refuse(own, _constant(asked))
        self.counts: dict[Attribute, list[Count]] = {}

    def run(self) -> _Outcome:
        """Find what the attributes count, then see which sizes are right by that."""
        for attribute in self.sizes.notes.values:
            self._propose(attribute, Count(self.sizes.plain[attribute]))
        for asked, count in self.wanted:
            if isinstance(asked.expression, Attribute):
                self._propose(asked.expression, count)
        self._settle_attributes()
        while self._derive():
            self._settle_attributes()
        self._check()
        for attribute, count in self.values.known.items():
            if count.parts and kind_of(self.model.get_submodule(attribute.module)) is not None:
                continue  # a layer's own width, which is set when the layer is cut
            if count.parts:
                number = Followed(attribute.module, "size", attribute.path, count, frozenset())
                self.outcome.followed.append(number)
            else:
                self.outcome.still.add((attribute.module, attribute.path))
        return self.outcome

    def _propose(self, attribute: Attribute, count: Count) -> None:
        found = self.counts.setdefault(attribute, [])
        if count not in found:
            found.append(count)

    def _settle_attributes(self) -> None:
        """What attributes count that were read as sizes themselves; one that must stay as well stays."""
        for attribute, counts in self.counts.items():
            if attribute in self.values.known:
                continue
            moving = [count for count in counts if count.parts]
            if len(moving) > 1:
                name = f"the attribute {attribute.path!r}{_of(attribute.module)}"
                self.outcome.refuse(_roots(moving), f"{name} counts its channels, and others as well")
            self.values.known[attribute] = counts[0] if len(counts) == 1 else Count(self.sizes.plain[attribute])

    def _derive(self) -> bool:
        """Attributes within expressions, and those that were compared with what is known."""
        before = len(self.values.known)
        pairs: list[tuple[Expression, Count]] = [(asked.expression, count) for asked, count in self.wanted]
        for left, right in self.sizes.notes.equalities:
            for one, other in ((left, right), (right, left)):
                count = self.values(other)
                if count is not None and count.parts:
                    pairs.append((one, count))
        for expression, count in pairs:
            open_ = {leaf for leaf in leaves(expression) if isinstance(leaf, Attribute)} - self.values.known.keys()
            if not open_:
                continue
            found = self.values.solved(expression, count)
            if found is not None and found[1].total == self.sizes.plain[found[0]]:
                self._propose(*found)
        return any(a not in self.values.known for a in self.counts) or len(self.values.known) > before

    def _check(self) -> None:
        """Sizes that are wrong as the attributes stand are asked of the module."""
        calls: dict[tuple[str, str], dict[int, list[tuple[Asked, Count, Count | None]]]] = {}
        for asked, count in self.wanted:
            place = None if asked.place is None else f"{asked.place.method}/{asked.place.call}"
            if place is not None:
                found = calls.setdefault((asked.module, place), {})
                found.setdefault(asked.position, []).append((asked, count, self.values(asked.expression)))
            elif (got := self.values(asked.expression)) != count:
                self._refuse(asked, count, got)
        for (module, place), positions in calls.items():
            self._check_call(module, place, positions)

    def _check_call(
        self, module: str, place: str, positions: Mapping[int, list[tuple[Asked, Count, Count | None]]]
    ) -> None:
        """The sizes of one call in the code, over all times that it ran."""
        wrong = {at: uses for at, uses in positions.items() if any(got != count for _, count, got in uses)}
        if not wrong:
            return
        able = can_take(type(self.model.get_submodule(module)), [place])
        open_: int | None = None
        found: list[Followed] = []
        for at, uses in wrong.items():
            anchors = frozenset().union(*(self._touched(asked, count) for asked, count, _ in uses))
            counts = {count for _, count, _ in uses}
            if able and len(counts) == 1:
                found.append(Followed(module, "call", f"{place}#{at}", counts.pop(), anchors))
            elif able and open_ is None and all(asked.free for asked, _, _ in uses):
                open_ = at
                found.append(Followed(module, "call", f"{place}#{at}", None, anchors))
            else:
                for asked, count, got in uses:
                    if got != count:
                        self._refuse(asked, count, got)
                return
        self.outcome.followed += found

    def _touched(self, asked: Asked, count: Count) -> set[int]:
        """Classes with which a size, or what it was computed from, changes."""
        found = {root for root, _ in count.parts}
        for leaf in leaves(asked.expression):
            part = self.values(leaf)
            found |= set() if part is None else {root for root, _ in part.parts}
        return found

    def _refuse(self, asked: Asked, count: Count, got: Count | None) -> None:
        """Keep what a wrong size would break; where it is not certain what it comes to, the proof will tell."""
        touched = self._touched(asked, count)
        valued = [a for a in _attributes(asked.expression) if a in self.sizes.notes.values]
        names = [a.path for a in _attributes(asked.expression)]
        if valued:
            why = f"the attribute {valued[0].path!r}{_of(valued[0].module)} counts them, and is computed with too"
        elif names:
            why = f"the attribute {names[0]!r} sizes it in a way that cannot follow ({asked.text})"
        else:
            why = _constant(asked)
        if asked.firm or (got is not None and (valued or names)):
            self.outcome.refuse(touched, why)
        else:
            for root in touched:
                self.outcome.doubts.setdefault(root, why)


def _constant(asked: Asked) -> str:
    if asked.text.startswith("slice"):
        return f"its channels are picked by their position ({asked.text})"
    if asked.text.startswith("split"):
        return f"it is split by a constant in the code ({asked.text})"
    return f"its number of channels is a constant in the code ({asked.text}); write -1 there, or flatten(1)"


def _attributes(expression: Expression) -> list[Attribute]:
    return [leaf for leaf in leaves(expression) if isinstance(leaf, Attribute)]


def _roots(counts: list[Count]) -> set[int]:
    return {root for count in counts for root, _ in count.parts}


def _of(module: str) -> str:
    return f" of {module}" if module else ""
