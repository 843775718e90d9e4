"""Connection switching (arXiv 2103.15590): scales on single weights of fully connected layers."""

from .find import switched_layers
from .model import ConnectionModel
from .probing import measure_connections
from .rule import connections_for
from .scorer import ConnectionScorer
from .weights import fold_connections_, weight_of

__all__ = [
    "ConnectionModel",
    "ConnectionScorer",
    "connections_for",
    "fold_connections_",
    "measure_connections",
    "switched_layers",
    "weight_of",
]
