"""Numerical proofs that folding and removing change nothing, and the groups that have passed one."""

from .difference import (
    TOLERANCE,
    Difference,
    gated_by,
    gated_difference,
    measured,
    random_scales,
    randomize_norms_,
    relative_difference,
    removal_difference,
)
from .tracing import trace
from .verify import verify_groups

__all__ = [
    "TOLERANCE",
    "Difference",
    "gated_by",
    "gated_difference",
    "measured",
    "random_scales",
    "randomize_norms_",
    "relative_difference",
    "removal_difference",
    "trace",
    "verify_groups",
]
