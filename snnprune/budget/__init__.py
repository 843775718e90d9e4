"""What a set of kept neurons costs, and the selection that meets a target."""

from .costs import Metric, Scores
from .model import CostModel, Selection

__all__ = ["CostModel", "Metric", "Scores", "Selection"]
