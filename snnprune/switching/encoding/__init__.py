"""Weights to switcher input, and the scorer built on it."""

from .evidence import Evidence
from .scorer import Scorer, ScoreSource, Start

__all__ = ["Evidence", "ScoreSource", "Scorer", "Start"]
