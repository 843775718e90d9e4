"""Looking at models and runs: what could be pruned, what it would cost, and how accurate it is."""

from .planning import Plan, plan
from .sensitivities import Sensitivity, sensitivity

__all__ = ["Plan", "Sensitivity", "plan", "sensitivity"]
