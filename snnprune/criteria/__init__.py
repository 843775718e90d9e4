"""Criteria: orders of neurons that nothing learns, by name, by an object of torch-pruning, or by a function."""

from .gradients import Loss
from .judging import judge
from .names import (
    ALONE,
    CRITERIA,
    LEARNED,
    Scores,
    check_scores,
    fingerprint_of,
    is_criterion,
    label_of,
    needs,
    words_of,
)

__all__ = [
    "ALONE",
    "CRITERIA",
    "LEARNED",
    "Loss",
    "Scores",
    "check_scores",
    "fingerprint_of",
    "is_criterion",
    "judge",
    "label_of",
    "needs",
    "words_of",
]
