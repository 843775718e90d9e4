"""Switchers and gates on a user's model: attach, phases, budget, compact, detach."""

from .attached import Attached
from .attaching import attach, attach_groups
from .blocks import Blocks
from .gated import GatedModel
from .learners import Gradient, HeldState, Learners, Phase
from .probing import measure_sensitivity
from .rule import GroupCounts, count_groups

__all__ = [
    "Attached",
    "Blocks",
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
]
