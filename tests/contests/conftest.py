"""Shared by the tests of contests and of the ring: a small network, its data, Ctrl-C, the benchmark's modules."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, importable
from torch import nn
from torch.nn import functional as F

import snnprune
from snnprune.data import ArrayLoader, DataInfo

CONFIG = snnprune.PruneConfig(target={"macs": 0.5}, epochs=2, lr=0.02, round_to=1)
SHORT = replace(CONFIG, epochs=1)


class Net(nn.Module):
    """Batch norm, a residual add, a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 10, 3, padding=1), nn.BatchNorm2d(10)
        self.inner, self.outer = nn.Conv2d(10, 12, 1), nn.Conv2d(12, 10, 1)
        self.head = nn.Linear(10 * 4, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        x = x + self.outer(F.relu(self.inner(x)))
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


def arrays(count: int, content: int, **options) -> ArrayLoader:
    generator = torch.Generator().manual_seed(content)
    labels = torch.randint(0, 3, (count,), generator=generator)
    images = torch.randint(0, 120, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), 0, labels * 2 + 1] += 90
    info = DataInfo("stripes", (1, 8, 8), ("a", "b", "c"), (0.3,), (0.2,))
    return ArrayLoader(images, labels, info, batch_size=16, **options)


@pytest.fixture
def data():
    return arrays(96, 0, shuffle=True, seed=3), arrays(48, 1), arrays(64, 2)


@pytest.fixture
def model() -> Net:
    torch.manual_seed(0)
    made = Net()
    nn.init.uniform_(made.norm.weight, 0.5, 1.5)
    return made.eval()


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal; in processes in the background it is ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def hold(model, data, methods, config=SHORT, **options):
    """A contest of one seed."""
    train, val, test = data
    options = {"seeds": 1, "test": test, **options}
    return snnprune.contest(model, train, val, config, methods=methods, **options)


def stop_at(monkeypatch, stage: type, call: int, method: str = "train_step") -> None:
    """Press Ctrl-C at the beginning of a stage's n-th step, or of another method."""
    original, count = getattr(stage, method), [0]

    def counted(self, *args, **options):
        count[0] += 1
        if count[0] == call:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args, **options)

    monkeypatch.setattr(stage, method, counted)


PLACES = [str(ROOT / "benchmarks" / "ring"), str(ROOT / "benchmarks")]


@pytest.fixture
def ring():
    """The benchmark's modules, importable for the length of one test."""
    with importable(*PLACES):
        import ablations
        import book
        import dense
        import gpu
        import methods
        import rivals
        import steps
        import table
        import tasks
        import tracks

        found = (ablations, book, dense, gpu, methods, rivals, steps, table, tasks, tracks)
        yield SimpleNamespace(**{module.__name__: module for module in found})
        for name in (*(module.__name__ for module in found), "common"):
            sys.modules.pop(name, None)


def rows(ring, **extra):
    """Made-up rows of two methods and three seeds."""
    made = []
    task = ring.tasks.TASKS["mlp"]
    for method, scores in (("switcher", (0.98, 0.97, 0.99)), ("L2", (0.97, 0.965, 0.97))):
        for seed, test in enumerate(scores):
            knobs = ring.methods.first_knobs(task, method)
            made.append(
                {"task": "mlp", "target": 0.1, "method": method, "seed": seed, "kind": "final", "steps": 1200,
                 "recipe": ring.methods.recipe(task, method), "knobs": knobs,
                 "test": test, "dense_test": 0.985, "params": 0.099, "in_budget": True, "seconds": 3,
                 "date": "2026-01-01", "versions": {"torch": "1", "torch-pruning": "2"}, "device": "cpu", **extra}
            )  # fmt: skip
    return made
