"""What PyTorch's operations do to labels.

Operations that only move elements are run on the labels themselves. Elementwise operations unite the
labels that meet. What reads several elements at once (a sum, a norm, a product of activations) unites
the labels that it reads: they form one coarser neuron, such as a head of attention. An operation without
a rule keeps everything that it touches.
"""

from __future__ import annotations

from typing import Any

import torch

from .elementwise import ELEMENTWISE, elementwise
from .moves import MOVES
from .ops import Rule, operation
from .reads import READS

_ALL = {**ELEMENTWISE, **MOVES, **READS}


def rule_for(func: Any) -> Rule | None:
    """The rule of an operation, by its name and tags; None when there is none."""
    found = _ALL.get(operation(func).rstrip("_"))
    if found is None and torch.Tag.pointwise in {*func.tags, *_functional(func).tags}:
        found = elementwise
    return found


def _functional(func: Any) -> Any:
    """The operation of which this one is the in-place form; not all of those carry its tags."""
    base = getattr(torch.ops.aten, operation(func).rstrip("_"), None)
    return getattr(base, func._overloadname, func)
