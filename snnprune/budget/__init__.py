"""What a set of kept neurons costs, the selection that meets a target, and what targets there are."""

from .blocks import rounding_step
from .costs import Metric, Scores
from .model import TOLERANCE, CostModel, Selection
from .target import Budget, parse_drop, parse_latency, parse_target, read_target

__all__ = [
    "TOLERANCE",
    "Budget",
    "CostModel",
    "Metric",
    "Scores",
    "Selection",
    "parse_drop",
    "parse_latency",
    "parse_target",
    "read_target",
    "rounding_step",
]
