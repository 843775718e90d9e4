"""Weights to switcher input, and the scorer built on it."""

from .evidence import Evidence
from .scorer import Scorer

__all__ = ["Evidence", "Scorer"]
