"""Alternating learning of switcher and network, and recovery of the compact model."""

from .checkpoint import Checkpoint, Interrupted, reading
from .config import PruneConfig
from .events import Callback, Event
from .groups import RecoveryOptions, SearchOptions
from .identity import check_same_run
from .loss import LossFunction, TaskLoss
from .recovering import recover
from .searching import search

__all__ = [
    "Callback",
    "Checkpoint",
    "Event",
    "Interrupted",
    "LossFunction",
    "PruneConfig",
    "RecoveryOptions",
    "SearchOptions",
    "TaskLoss",
    "check_same_run",
    "reading",
    "recover",
    "search",
]
