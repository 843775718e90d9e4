"""What may give neurons their order: what learns, criteria by name, objects of torch-pruning, functions."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ..errors import ConfigError, first_line
from ..fingerprint import digest_of
from ..shown import brief_repr, cut

Needs = Literal["weights", "gradients", "squares"]

LEARNED = ("switcher", "switcher+offset", "free")
NORM = "norm"  # of all weights of a neuron, as the search begins with it; needs no other library
ALONE: dict[str, Needs] = {  # torch-pruning's criteria, and what they look at besides the weights
    "random": "weights",
    "l1": "weights",
    "l2": "weights",
    "lamp": "weights",
    "fpgm": "weights",
    "taylor": "gradients",
    "hessian": "squares",
    "bn-scale": "weights",
}
CRITERIA = (NORM, *ALONE)
_MEANT = {
    "norms": NORM,
    "ours": "switcher+offset",
    "magnitude": "l2",
    "l1-norm": "l1",
    "l2-norm": "l2",
    "geometric-median": "fpgm",
    "gradient": "taylor",
    "obd": "hessian",
    "fisher": "hessian",
    "bn": "bn-scale",
    "slimming": "bn-scale",
    "rand": "random",
}
_OF_THEIRS: dict[str, Needs] = {
    "taylorimportance": "gradients",
    "hessianimportance": "squares",
}  # ends of names of their classes
_LIBRARY = "torch_pruning"


class _Scores:
    """What gives the order, in its plain form: the name, the object or the function as it is."""

    what = (
        f"{', '.join(map(repr, (*LEARNED, *CRITERIA)))}, an importance of torch-pruning, or a function of (model, "
        "groups)"
    )

    def __call__(self, value: Any) -> Any:
        check_scores(value)
        return str(value) if isinstance(value, str) else value


Scores = Annotated[Any, _Scores()]


def check_scores(scores: object, name: str = "scores") -> None:
    """Refuse what gives no order.

    Args:
        scores: what was given.
        name: of the option, for the message.

    Raises:
        ConfigError: an unknown name, a class, or what cannot be called with a model and its groups.
    """
    if isinstance(scores, str):
        if scores in LEARNED or scores in CRITERIA:
            return
        raise ConfigError(
            f"{name}={brief_repr(scores)} is unknown; use one of "
            f"{', '.join((*LEARNED, *CRITERIA))}.{_hint(scores)}"
        )
    wanted = "Give a name, an importance of torch-pruning, or a function of (model, groups)"
    if isinstance(scores, type):
        raise ConfigError(
            f"scores is the class {scores.__name__}. Make an instance of it: {scores.__name__}(...)."
        )
    if not callable(scores):
        raise ConfigError(f"scores is {brief_repr(scores, 60)}. {wanted}.")
    if is_theirs(scores):
        return
    try:
        inspect.signature(scores).bind(None, None)
    except ValueError:  # code in C tells nothing about itself
        pass
    except TypeError as error:
        raise ConfigError(
            f"scores={label_of(scores)} cannot be called with a model and its groups ({first_line(error)}). "
            f"{wanted}."
        ) from error
    needs(scores)


def _hint(name: str) -> str:
    """` Did you mean lamp?`, or nothing."""
    near = difflib.get_close_matches(name.strip().lower()[:40], [*LEARNED, *CRITERIA, *_MEANT], 1)
    return f" Did you mean {_MEANT.get(near[0], near[0])}?" if near else ""


def is_theirs(scores: object) -> bool:
    """Whether it is an importance of torch-pruning or derived from one, without importing that."""
    return any(cls.__module__.split(".")[0] == _LIBRARY for cls in type(scores).__mro__)


def is_criterion(scores: object) -> bool:
    """Whether it gives an order that nothing learns."""
    return scores in CRITERIA if isinstance(scores, str) else scores is not None


def needs(scores: object) -> Needs:
    """What it looks at: `weights` alone, or also `gradients` of the loss, or `squares` of those of inputs.

    A function of one's own, or an importance derived from torch-pruning's, says so by an attribute `needs`.

    Raises:
        ConfigError: a function says something else.
    """
    if isinstance(scores, str):
        return ALONE.get(scores, "weights")
    if is_theirs(scores) and not hasattr(scores, "needs"):
        named = [cls.__name__.lower() for cls in type(scores).__mro__]
        asked: list[Needs] = [kind for end, kind in _OF_THEIRS.items() if any(n.endswith(end) for n in named)]
        return asked[0] if asked else "weights"
    said = getattr(scores, "needs", "weights")
    if said not in ("weights", "gradients", "squares"):
        raise ConfigError(
            f"scores={label_of(scores)} says that it needs {brief_repr(said, 60)}; use weights, gradients or "
            "squares."
        )
    return said


def label_of(scores: object) -> str:
    """A short name for tables."""
    if isinstance(scores, str):
        return scores
    inner = scores.func if isinstance(scores, functools.partial) else scores
    named = getattr(inner, "__name__", None)
    return cut(named if isinstance(named, str) else type(inner).__name__, 60)


def words_of(scores: Any) -> str:
    """It in words that set it apart from others: for reports, and for checkpoints."""
    if isinstance(scores, str):
        return scores
    named = getattr(scores, "__qualname__", None)
    if isinstance(named, str):
        return f"{getattr(scores, '__module__', '?')}.{named}"
    if isinstance(scores, functools.partial):
        bound = [brief_repr(value, 40) for value in scores.args]
        return cut(f"{words_of(scores.func)}({', '.join([*bound, *_named(scores.keywords)])})", 200)
    return cut(f"{type(scores).__name__}({', '.join(_named(getattr(scores, '__dict__', {})))})", 200)


def _named(values: Mapping[str, Any]) -> list[str]:
    plain = (bool, int, float, str, type(None))
    return [f"{k}={v!r}" for k, v in sorted(values.items()) if isinstance(v, plain) and not k.startswith("_")]


def fingerprint_of(scores: Any) -> str | None:
    """A digest of its code and of what it was made with: other scores have another one.

    Returns:
        None of a name, which says it all, and of code that cannot be read.
    """
    return None if isinstance(scores, str) else digest_of(scores)
