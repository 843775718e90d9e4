"""Who takes part in a contest: ours, free scales, norms, and torch-pruning's criteria in two ways."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..criteria import ALONE, fingerprint_of, label_of, words_of
from ..criteria.foreign import fresh, importance_of
from ..criteria.names import NORM, check_scores, is_theirs
from ..errors import ConfigError
from ..shown import brief_repr, cut
from .rounds import ROUNDS
from .theirs import Scope, Sparse

Ways = Literal["our-surgery", "as-they-are", "both"]

OURS, FREE, DENSE = "ours", "free", "dense"
SPARSE: dict[str, Sparse] = {"bn-sparse": "bn", "group-sparse": "group", "growing": "growing"}
ITERATIVE = {"l2-iterative": "l2", "taylor-iterative": "taylor"}
METHODS = (OURS, FREE, NORM, *ALONE, *SPARSE, *ITERATIVE, DENSE)
_FREE, _DENSE = "free scales", "dense, trained on"  # in the table
SEARCHING = (OURS, _FREE)  # names in the table of those that learn what to cut
DEFAULT = (OURS, FREE, NORM, "l2", "lamp", "taylor")
SCOPES: tuple[Scope, ...] = ("local", "global")


@dataclass(frozen=True)
class Entrant:
    """One line of the table: a method in one way.

    Attributes:
        name: for the table, and by which its runs are known on file.
        scores: what orders the neurons; None for that of the run's own options.
        scope: of torch-pruning's pruner; None under our surgery.
        sparse: which sparse learning goes before the removal.
        rounds: in how many it removes, with recovery between.
        cuts: False for the dense network, which only trains on.
        rival: whether it is another library's, or the user's own, against which ours is held.
        words: it in full, with a digest of what it does, for the book.
    """

    name: str
    scores: Any
    scope: Scope | None = None
    sparse: Sparse | None = None
    rounds: int = 1
    cuts: bool = True
    rival: bool = True
    words: str = ""

    def importance(self) -> Callable[[], Any]:
        """What makes a fresh importance for torch-pruning's pruner."""
        if self.sparse is not None:
            return lambda: importance_of("bn-scale" if self.sparse == "bn" else "l2")
        return (lambda: importance_of(self.scores)) if isinstance(self.scores, str) else lambda: fresh(self.scores)


def entrants(methods: Sequence[Any], ways: Ways) -> list[Entrant]:
    """All that take part.

    Args:
        methods: names of `METHODS`, `all`, importances of torch-pruning, or functions of (model, groups).
            `lamp:global` is torch-pruning's own pruner with one ranking alone, `l2:local` with one ratio for all.
            An importance or a function may come as a pair, with its name in the table.
        ways: of torch-pruning's criteria: `our-surgery` takes their order under our threshold and surgery,
            `as-they-are` its own pruner, with the same ratio in every layer and with one ranking over all.

    Raises:
        ConfigError: an unknown name, one that stands twice or cannot take part in that way, or nobody is left.
    """
    found: list[Entrant] = []
    for method in [one for given in methods for one in (METHODS if given == "all" else [given])]:
        found += _of(method, ways)
    names = [entrant.name for entrant in found]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        label = double.partition(",")[0]
        named = label in METHODS or double in (_FREE, _DENSE)
        raise ConfigError(
            f"{double} takes part twice; "
            + (
                "give each method once ('all' holds every one)."
                if named
                else f"give importances and functions as pairs with names of their own, such as ('mine', {label})."
            )
        )
    lost = [one for one in methods if isinstance(one, str) and one != "all" and not _of(one, ways)]
    if lost:
        raise ConfigError(
            f"{', '.join(lost)} cannot take part: {', '.join((*SPARSE, *ITERATIVE))} go with torch-pruning's own "
            "pruner, so they need --as-they-are or --both."
        )
    if not found:
        raise ConfigError(f"nobody takes part; give all, or some of {', '.join(METHODS)}.")
    return found


def _of(method: Any, ways: Ways) -> list[Entrant]:
    name, _, scope = method.partition(":") if isinstance(method, str) else ("", "", "")
    if scope:
        if scope not in SCOPES or name not in (*ALONE, *SPARSE, *ITERATIVE):
            raise ConfigError(
                f"method {brief_repr(method)} is unknown: before the colon stands a criterion of torch-pruning's "
                f"own pruner, such as lamp, and behind it {' or '.join(SCOPES)}."
            )
        return [entrant for entrant in _of(name, "as-they-are") if entrant.scope == scope]
    if not isinstance(method, str):
        given = isinstance(method, tuple) and len(method) == 2 and isinstance(method[0], str)
        label, method = method if given else (None, method)
        if given and isinstance(method, str):
            raise ConfigError(
                f"({brief_repr(label)}, {brief_repr(method)}): only functions and importances have a name given."
            )
        check_scores(method)
        label = _label(label_of(method) if label is None else label)
        words = f"{words_of(method)} {(fingerprint_of(method) or '?')[:12]}"
        if is_theirs(method):
            return _ways(label, method, ways, words)
        return [Entrant(label, method, words=words)]  # a function has no pruner of its own
    if method == OURS:
        return [Entrant(OURS, None, rival=False)]
    if method == FREE:
        return [Entrant(_FREE, "free", rival=False)]
    if method == NORM:
        return [Entrant(NORM, NORM, rival=False)]
    if method == DENSE:
        return [Entrant(_DENSE, None, cuts=False, rival=False)]
    if method in ALONE:
        return _ways(method, method, ways, "")
    if method in SPARSE:
        return [] if ways == "our-surgery" else _theirs(method, method, "", SPARSE[method])
    if method in ITERATIVE:
        return [] if ways == "our-surgery" else _theirs(method, ITERATIVE[method], "", rounds=ROUNDS)
    near = difflib.get_close_matches(method.strip().lower()[:40], METHODS, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(f"method {brief_repr(method)} is unknown; use all, or some of {', '.join(METHODS)}.{hint}")


def _label(name: str) -> str:
    """The name of a function or an importance.

    Raises:
        ConfigError: it would be taken for one of ours.
    """
    method, _, scope = name.partition(":")
    if name in (*METHODS, "all", _FREE, _DENSE) or (method in METHODS and scope in SCOPES) or not name.strip():
        raise ConfigError(
            f"{brief_repr(name)} is the name of a method of the contest. Give yours a name of its own, as a pair: "
            "('mine', function). Where both are to take part, give a list: ['ours', function]."
        )
    return cut(name, 60)


def _ways(label: str, scores: Any, ways: Ways, words: str) -> list[Entrant]:
    own = [Entrant(label, scores, words=words)] if ways != "as-they-are" else []
    return own if ways == "our-surgery" else [*own, *_theirs(label, scores, words)]


def _theirs(label: str, scores: Any, words: str, sparse: Sparse | None = None, rounds: int = 1) -> list[Entrant]:
    return [Entrant(f"{label}, as it is, {scope}", scores, scope, sparse, rounds, words=words) for scope in SCOPES]
