"""torch-pruning: the one module that imports it, when a criterion or a pruner of it is asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ..errors import CriterionError, first_line


def library() -> Any:
    """The package `torch_pruning`.

    Raises:
        CriterionError: it is not installed, or cannot be imported.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise CriterionError(
            f"torch-pruning cannot be imported ({first_line(error)}). Its criteria and pruners need it: pip "
            'install "torch-pruning>=1.6,<2".'
        ) from error
    return torch_pruning


def importance_of(name: str) -> Any:
    """The importance behind a name of `ALONE`, with torch-pruning's own defaults."""
    found = library().importance
    makers: dict[str, Callable[[], Any]] = {
        "random": found.RandomImportance,
        "l1": lambda: found.GroupMagnitudeImportance(p=1),
        "l2": lambda: found.GroupMagnitudeImportance(p=2),
        "lamp": found.LAMPImportance,
        "fpgm": found.FPGMImportance,
        "taylor": found.GroupTaylorImportance,
        "hessian": found.GroupHessianImportance,
        "bn-scale": found.BNScaleImportance,
    }
    return makers[name]()


def fresh(importance: Any) -> Any:
    """A copy of an importance that is the user's, without gradients that it has gathered from another model."""
    made = copy.copy(importance)
    if callable(forget := getattr(made, "zero_grad", None)):
        forget()
    return made


def functions() -> Any:
    """Its pruning functions, by which its importances tell the sides of layers apart."""
    return library().pruner.function
