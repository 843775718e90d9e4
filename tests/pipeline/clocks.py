"""Engines of closed form in place of real ones: no test waits for a clock, or hangs on one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from conftest import TIMES

from snnprune.budget import TimedPart
from snnprune.metrics import count_macs
from snnprune.pipeline import latency
from snnprune.runs.timer import Timer
from snnprune.timing import Compared, Profile, SideBySide
from snnprune.timing.profile import Check

KEY = {"engine": "cpu", "batch": 1, "precision": "fp32", "threads": 1}
DENSE_MS = 2.0


def profile(cost) -> Profile:
    """Every layer takes its share of `DENSE_MS` by its multiply-adds."""
    parts = []
    for layer in cost.layers:
        into = 1 if layer.inputs is None else layer.inputs.read
        sides = [
            np.arange(s.read + 1) if s is not None else np.zeros(1, int) for s in (layer.inputs, layer.outputs)
        ]
        rows = np.ones(1) if layer.inputs is None else np.arange(into + 1.0)
        table = layer.macs * np.outer(rows, np.arange(layer.outputs.read + 1.0))
        scaled = DENSE_MS / cost.dense["macs"] * table
        parts.append(TimedPart(layer.name, layer.inputs, layer.outputs, sides[0], sides[1], scaled))
    return Profile(KEY, parts, DENSE_MS, [Check(1.0, DENSE_MS, DENSE_MS)], {}, 1, {"a": DENSE_MS})


def install(monkeypatch, clock: Callable[[float], float | None]) -> list[float]:
    """Prediction by multiply-adds, and a clock that makes a share of time of a share of them; None refuses.

    Returns:
        The shares of multiply-adds that were timed, as they come.
    """
    seen: list[float] = []

    def compared(self: SideBySide, compact: torch.nn.Module, *, predicted_ms: float | None = None) -> Compared:
        seen.append(count_macs(compact, self.example) / count_macs(self.dense, self.example))
        share = clock(seen[-1])
        return Compared(
            dense_ms=DENSE_MS if share is not None else None,
            compact_ms=DENSE_MS * share if share is not None else None,
            share=share,
            spread=0.01,
            dense_spread=0.01,
            compact_spread=0.01,
            refused=None if share is not None else "it was too busy",
            version="none",
            device="none",
            load="",
            predicted_ms=predicted_ms,
            **KEY,
        )

    def profile_of(model, groups, cost, example, serving, **options) -> Profile:
        return profile(cost)

    monkeypatch.setattr(Timer, "__call__", TIMES)
    monkeypatch.setattr(SideBySide, "__call__", compared)
    monkeypatch.setattr(latency, "profile_of", profile_of)
    return seen
