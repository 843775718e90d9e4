"""Multiply-adds of a forward pass: what a network costs to run."""

from .count import MacCount, count_macs, price, warn_of_unpriced

__all__ = ["MacCount", "count_macs", "price", "warn_of_unpriced"]
