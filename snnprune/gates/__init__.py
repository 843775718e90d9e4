"""Gates on a user's model: attach, phases, budget, compact, detach."""

from .attach import attach, attach_groups
from .attached import Attached
from .blocks import Blocks
from .gated import GatedModel
from .learners import Gradient, HeldState, Learners, Phase
from .rule import Budget, GroupCounts, count_groups
from .sensitivity import measure_sensitivity
from .target import parse_drop, parse_latency, parse_target, read_target

__all__ = [
    "Attached",
    "Blocks",
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
    "measure_sensitivity",
    "parse_drop",
    "parse_latency",
    "parse_target",
    "read_target",
]
