"""Iterative pruning: a part of the way to the target at a time, with recovery between."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

ROUNDS = 5
BETWEEN = 0.5  # of the steps, spent between the rounds


def shares_of(share: float, rounds: int) -> list[float]:
    """Kept shares of the cost after each round, at even distances; the last one is the target."""
    return [1 - (1 - share) * at / rounds for at in range(1, rounds)] + [share]


def lengths_of(steps: int, rounds: int) -> list[int]:
    """Steps of recovery after each round, `steps` together: as many between any two, and all others at the end."""
    between = int(BETWEEN * steps) // (rounds - 1) if rounds > 1 else 0
    return [between] * (rounds - 1) + [steps - between * (rounds - 1)]


def in_rounds(
    model: nn.Module,
    shares: list[float],
    lengths: list[int],
    cut: Callable[[nn.Module, float], nn.Module],
    learn: Callable[[nn.Module, int, int], object],
) -> nn.Module:
    """Cut and recover in turn; after the last cut nothing is learned here.

    Args:
        model: to begin with.
        shares: of the dense network's cost, one per round.
        lengths: steps of recovery after each round.
        cut: network and share -> a network that costs no more.
        learn: trains a network in place: (network, number of the round from 0, steps).

    Returns:
        The network after the last cut.
    """
    for at, share in enumerate(shares):
        model = cut(model, share)
        if at < len(shares) - 1 and lengths[at]:
            learn(model, at, lengths[at])
    return model
