"""Gates on a user's model: attach, phases, budget, compact, detach."""

from .attach import attach, attach_groups
from .gated import GatedModel, Gradient, HeldState, Phase
from .hooks import is_gated
from .rule import Budget, GroupCounts, count_groups
from .sensitivity import measure_sensitivity
from .target import parse_drop, parse_latency, parse_target

__all__ = [
    "Budget",
    "GatedModel",
    "Gradient",
    "GroupCounts",
    "HeldState",
    "Phase",
    "attach",
    "attach_groups",
    "count_groups",
    "is_gated",
    "measure_sensitivity",
    "parse_drop",
    "parse_latency",
    "parse_target",
]
