"""What a set of kept neurons costs, the selection that meets a target, and what targets there are."""

from .blocks import rounding_step
from .costs import METRICS, Metric
from .model import CostModel, NeuronScores, Selection
from .selector import SLACK, Selector
from .target import Budget, parse_drop, parse_latency, parse_target, read_target

__all__ = [
    "METRICS",
    "SLACK",
    "Budget",
    "CostModel",
    "Metric",
    "NeuronScores",
    "Selection",
    "Selector",
    "parse_drop",
    "parse_latency",
    "parse_target",
    "read_target",
    "rounding_step",
]
