"""Switchers and scales on a user's model: attach, phases, budget, compact, detach.

`base` holds what all switching has in common; `neurons` and `connections` are its two kinds; `encoding` and
`switcher` turn weights into values; `assembly` puts the parts together.
"""

from .assembly import Look, Options, alike, attach, first_scores, switch_connections, switch_neurons
from .base import Switched
from .current import State
from .learners import Gradient, Phase
from .neurons import GatedModel
from .probing import measure_importance
from .rule import GroupCounts, count_groups
from .scoring import ScoreSource, Start

__all__ = [
    "GatedModel",
    "Gradient",
    "GroupCounts",
    "Look",
    "Options",
    "Phase",
    "ScoreSource",
    "Start",
    "State",
    "Switched",
    "alike",
    "attach",
    "count_groups",
    "first_scores",
    "measure_importance",
    "switch_connections",
    "switch_neurons",
]
