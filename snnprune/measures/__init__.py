"""What a model is judged by: accuracy, the mean loss, or a metric of the user's own."""

from .accuracy import Accuracy
from .info import ACCURACY, LOSS, Evaluation, MetricInfo
from .losses import MeanLoss
from .metric import Measure, Metric, measure_of

__all__ = [
    "ACCURACY",
    "LOSS",
    "Accuracy",
    "Evaluation",
    "MeanLoss",
    "Measure",
    "Metric",
    "MetricInfo",
    "measure_of",
]
