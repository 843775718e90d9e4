"""Weights to switcher input, and the scorer built on it."""

from .evidence import Evidence
from .scorer import Scorer, Scores, Start

__all__ = ["Evidence", "Scorer", "Scores", "Start"]
