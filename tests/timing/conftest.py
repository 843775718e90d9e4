"""Shared by the tests of times: small networks, the questions about them, and an engine with a closed form."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnprune.budget import CostModel
from snnprune.graph import find_groups
from snnprune.timing.questions import Questions, ask
from snnprune.timing.serving import Serving

SERVING = Serving(engine="cpu", batch=2)


class Residual(nn.Module):
    """A stem, a residual sum over a depthwise block with squeeze and excitation, a concatenation, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.up = nn.Conv2d(64, 96, 1)
        self.deep = nn.Conv2d(96, 96, 3, padding=1, groups=96)
        self.squeeze, self.excite = nn.Conv2d(96, 6, 1), nn.Conv2d(6, 96, 1)
        self.down = nn.Conv2d(96, 64, 1)
        self.more = nn.Conv2d(64, 24, 3, padding=1)
        self.head = nn.Linear(88, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        y = self.deep(self.up(x).relu()).relu()
        y = y * self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = x + self.down(y)
        x = torch.cat([x, self.more(x).relu()], 1)
        return self.head(x.mean((2, 3)))


def _made(model: nn.Module, example: Any) -> SimpleNamespace:
    model.eval()
    groups = find_groups(model, example)
    cost = CostModel(model, groups, example)
    return SimpleNamespace(
        model=model,
        example=example,
        groups=groups,
        cost=cost,
        questions=ask(model, groups, cost, example, SERVING),
    )


@functools.cache
def residual_() -> SimpleNamespace:
    torch.manual_seed(0)
    return _made(Residual(), torch.randn(2, 3, 8, 8))


@functools.cache
def tiny_() -> SimpleNamespace:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 2)
    )
    return _made(model, torch.randn(2, 5))


@pytest.fixture(scope="session")
def residual() -> SimpleNamespace:
    """A convolutional network of every kind of layer, with its groups, costs and questions; not to be changed."""
    return residual_()


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """Three fully connected layers, likewise."""
    return tiny_()


def steps_of(stair: int) -> Callable[[int], int]:
    """Channels that an engine computes in blocks of so many."""
    return lambda count: stair * math.ceil(count / stair)


def engine(step: Callable[[int], int] = lambda count: count, *, start: float = 0.5) -> Callable[[bytes], float]:
    """Milliseconds of a graph, by its content alone: steps of both widths times positions, and a constant."""
    import onnx

    def ms(data: bytes) -> float:
        graph = onnx.load_from_string(data).graph
        weights = {w.name: list(w.dims) for w in graph.initializer}
        total = 0.0
        for node in graph.node:
            dims = weights.get(node.input[1]) if len(node.input) > 1 else None
            if node.op_type == "Conv" and dims is not None:
                grouped = dims[1] == 1 and dims[0] > 1
                total += step(dims[0]) * (1 if grouped else step(dims[1])) * float(np.prod(dims[2:]))
            elif node.op_type in ("Gemm", "MatMul") and dims is not None:
                total += step(dims[0]) * step(dims[1])
        return start + 1e-4 * total

    return ms


def answers_by(questions: Questions, ms: Callable[[bytes], float]) -> dict[str, float | None]:
    """What an engine with a closed form answers."""
    return {name: ms(question.data) for name, question in questions.graphs.items()}
