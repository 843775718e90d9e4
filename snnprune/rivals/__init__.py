"""Ours against free scales, norms and torch-pruning's criteria, on a user's own model, data and target."""

from .book import BOOK, PAGE, Contest
from .entrants import DEFAULT, METHODS, Ways
from .running import contest

__all__ = ["BOOK", "DEFAULT", "METHODS", "PAGE", "Contest", "Ways", "contest"]
