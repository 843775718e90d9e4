"""Multiply-adds of a forward pass: what a network costs to run."""

from .count import MacCount, count_macs, price, warn_of_unpriced
from .formulas import add_formula

__all__ = ["MacCount", "add_formula", "count_macs", "price", "warn_of_unpriced"]
