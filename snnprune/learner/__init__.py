"""Search, in which switcher and network learn together, and recovery of the compact model."""

from .checkpoint import Checkpoint, Interrupted, reading
from .config import PruneConfig
from .events import Callback, Event
from .groups import RecoveryOptions, SearchOptions
from .identity import check_same_run
from .loss import LossFunction, TaskLoss
from .progress import Progress
from .recovering import recover, settled
from .searching import search
from .speed import Speed, speed_of
from .teacher import Teacher

__all__ = [
    "Callback",
    "Checkpoint",
    "Event",
    "Interrupted",
    "LossFunction",
    "Progress",
    "PruneConfig",
    "RecoveryOptions",
    "SearchOptions",
    "Speed",
    "TaskLoss",
    "Teacher",
    "check_same_run",
    "reading",
    "recover",
    "search",
    "settled",
    "speed_of",
]
