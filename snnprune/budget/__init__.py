"""What a set of kept neurons costs, the selection that meets a target, and what targets there are."""

from .blocks import ROUND_TO, rounding_step
from .costs import COUNTED, Columns, Counted, Metric
from .demands import demands_of
from .model import CostModel, NeuronScores, Selection
from .selector import SLACK, Selector
from .target import Budget, Latency, Target, check_drop, parse_drop, parse_latency, parse_target, read_target
from .times import TimedPart
from .widths import Bounds, Widths, read_widths, widths_of

__all__ = [
    "COUNTED",
    "ROUND_TO",
    "SLACK",
    "Bounds",
    "Budget",
    "Columns",
    "CostModel",
    "Counted",
    "Latency",
    "Metric",
    "NeuronScores",
    "Selection",
    "Selector",
    "Target",
    "TimedPart",
    "Widths",
    "check_drop",
    "demands_of",
    "parse_drop",
    "parse_latency",
    "parse_target",
    "read_target",
    "read_widths",
    "rounding_step",
    "widths_of",
]
