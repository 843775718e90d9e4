"""The ring's tasks: a dense network per seed, its data, the metric of the target, and a fixed number of steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from common import train_dense
from lenet import lenet5_caffe
from mlp import mlp
from resnet import resnet20
from torch import nn

import snnprune
from snnprune.registry import load_model


@dataclass(frozen=True)
class Task:
    """One network on one data set.

    Attributes:
        make: builds the network.
        data: name of the data set, or the option that holds its path.
        metric: of the target.
        targets: kept shares that the ring covers.
        batch: inputs per step.
        dense_steps: training steps (or adaptation steps) that make the dense network.
        dense_lr: peak learning rate of those.
        steps: training steps of every row, whatever they are spent on.
        rates: peak learning rates to choose from; the middle one is tried first.
        pretrained: start the dense network from `--weights`.
    """

    make: Callable[[], nn.Module]
    data: Literal["mnist", "folder"]
    metric: Literal["macs", "params"]
    targets: tuple[float, ...]
    batch: int
    dense_steps: int
    dense_lr: float
    steps: int
    rates: tuple[float, ...]
    pretrained: bool = False


TASKS = {
    "mlp": Task(mlp, "mnist", "params", (0.25, 0.10, 0.05), 128, 6000, 0.05, 1200, (0.02, 0.05, 0.1)),
    "lenet": Task(lenet5_caffe, "mnist", "params", (0.15, 0.05), 128, 3000, 0.05, 800, (0.02, 0.05, 0.1)),
    "resnet20": Task(
        resnet20, "folder", "macs", (0.5, 0.25), 64, 800, 0.02, 500, (0.01, 0.02, 0.05), pretrained=True
    ),
}


@dataclass
class Bout:
    """One seed of a task: everything that all methods share.

    Attributes:
        dense: the network to prune; each method gets a copy.
        example: two inputs.
        accuracy: of the dense network on the test data.
    """

    task: Task
    seed: int
    dense: nn.Module
    train: Any
    val: Any
    test: Any
    example: torch.Tensor
    accuracy: float


def prepare(name: str, seed: int, options: Any) -> Bout:
    """Data and dense network of one seed; the network is kept under `--cache` for the next call."""
    task = TASKS[name]
    source = "mnist" if task.data == "mnist" else options.images
    train, val, test = snnprune.load_data(
        source,
        options.mnist,
        batch_size=task.batch,
        augment=task.data != "mnist",
        seed=seed,
        download=False,
    )
    path = Path(options.cache) / f"{name}-{task.dense_steps}-{seed}.pt"
    torch.manual_seed(seed)
    dense = task.make()
    if path.exists():
        dense.load_state_dict(torch.load(path, weights_only=True))
    else:
        if task.pretrained:
            arch = Path(__file__).resolve().parents[2] / "models" / "resnet.py"
            dense = load_model(options.weights, arch=f"{arch}:resnet20").model
        dense = train_dense(
            dense, train, steps=task.dense_steps, lr=task.dense_lr, device=options.device, seed=seed
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(copy.deepcopy(dense).cpu().state_dict(), path)
    dense = dense.to(options.device).eval()
    example = next(iter(val))[0][:2].to(options.device)
    return Bout(task, seed, dense, train, val, test, example, snnprune.evaluate(dense, test).accuracy)
