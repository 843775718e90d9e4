"""Gates on a user's model: attach, phases, budget, compact, detach."""

from .attach import attach, attach_groups
from .gated import GatedModel
from .hooks import is_gated
from .learners import Gradient, HeldState, Learners, Phase
from .rule import Budget, GroupCounts, count_groups
from .sensitivity import measure_sensitivity
from .target import parse_drop, parse_latency, parse_target

__all__ = [
    "Budget",
    "GatedModel",
    "Gradient",
    "GroupCounts",
    "HeldState",
    "Learners",
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
