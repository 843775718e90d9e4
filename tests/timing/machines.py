"""Machines that are made up: a clock that only calls move, and calls that are interrupted."""

from __future__ import annotations

import itertools

import numpy as np

from snnprune.timing.clock import measure


class Machine:
    """A clock that only calls move, each by what it is said to take at that moment."""

    def __init__(self, share: float = 1.0, others: float = 0.0) -> None:
        self.time, self.ran, self.share, self.others = 0.0, 0.0, share, others
        self.log: list[str] = []

    def call(self, name, seconds):
        """`seconds`: what a call takes, or a function of (time, number of the call) that says so."""
        count = itertools.count()

        def run() -> None:
            took = seconds(self.time, next(count)) if callable(seconds) else seconds
            self.log.append(name)
            self.time += took
            self.ran += took * self.share

        return run

    def measure(self, options=None, **calls):
        made = {name: self.call(name, seconds) for name, seconds in calls.items()}
        given = {"least": 0.0, "warm_up": 1, **(options or {})}
        return measure(
            made,
            now=lambda: self.time,
            cpu=lambda: self.ran,
            used=lambda: self.others * self.time,
            **given,
        )


def noisy(base, seed, scale=0.2):
    """Never less than the call's own time, often more, and now and then very much more."""
    draw = np.random.default_rng(seed)

    def seconds(_time, _number):
        return base * (1 + scale * draw.exponential() + (5.0 if draw.random() < 0.05 else 0.0))

    return seconds
