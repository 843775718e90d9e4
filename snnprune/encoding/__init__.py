"""Weights to switcher input, and the scorer built on it."""

from .scorer import Scorer, Scores, Start

__all__ = ["Scorer", "Scores", "Start"]
