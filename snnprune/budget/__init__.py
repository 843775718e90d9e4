"""What a set of kept neurons costs, and the selection that meets a target."""

from .blocks import rounding_step
from .costs import Metric, Scores
from .model import TOLERANCE, CostModel, Selection

__all__ = ["TOLERANCE", "CostModel", "Metric", "Scores", "Selection", "rounding_step"]
