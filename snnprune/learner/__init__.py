"""Alternating learning of switcher and network, and recovery of the compact model."""

from .checkpoint import Checkpoint, Interrupted, reading
from .config import PruneConfig
from .events import Callback, Event
from .loss import LossFunction, TaskLoss
from .recover import recover
from .search import search

__all__ = [
    "Callback",
    "Checkpoint",
    "Event",
    "Interrupted",
    "LossFunction",
    "PruneConfig",
    "TaskLoss",
    "reading",
    "recover",
    "search",
]
