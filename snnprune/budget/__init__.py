"""What a set of kept neurons costs, and the selection that meets a target."""

from .costs import Metric, Scores
from .model import CostModel, Selection, rounding_step

__all__ = ["CostModel", "Metric", "Scores", "Selection", "rounding_step"]
