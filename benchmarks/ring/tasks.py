"""The ring's tasks: a dense network per seed, its data, the metric of the target, and a fixed number of steps."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import dense
import torch
from common import train_dense
from lenet import lenet5_caffe
from mlp import mlp
from resnet import resnet20, resnet56
from torch import nn
from vgg import VGG16

import snnprune
from snnprune.files import write_atomically
from snnprune.pipeline.contents import contents
from snnprune.registry import load_model
from snnprune.runs.saving import weights_digest

SAME = 0.001  # of accuracies of one network on one test set, on different devices


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
        per_epoch: steps of an epoch, where the length of rows is given in epochs; else 0.
        epochs: that length; it belongs to the key of the rows.
        held: images that are held out for testing before the dense network is trained, once for all seeds.
        channels_last: all methods learn in this memory format, which is faster on many CPUs too.
        half_from: length in epochs from which all methods learn in bfloat16 (`PruneConfig.precision`), which takes
            about 0.6 of the time on a CPU that has it; 0 for never. Networks are measured in float32 always.
    """

    make: Callable[[], nn.Module]
    data: Literal["mnist", "folder", "pixels"]
    metric: Literal["macs", "params"]
    targets: tuple[float, ...]
    batch: int
    dense_steps: int
    dense_lr: float
    steps: int
    rates: tuple[float, ...]
    pretrained: bool = False
    per_epoch: int = 0
    epochs: int = 0
    held: int = 0
    channels_last: bool = False
    half_from: int = 0

    @property
    def half(self) -> bool:
        """Whether all methods learn in bfloat16."""
        return 0 < self.half_from <= self.epochs

    @property
    def common(self) -> dict[str, Any]:
        """Options that all methods have, rivals too."""
        channels_last = {"channels_last": True} if self.channels_last else {}
        return channels_last | ({"precision": "bfloat16"} if self.half else {})

    def at(self, epochs: int) -> Task:
        """The same task with rows of another length."""
        if not self.per_epoch:
            return self
        return replace(self, epochs=epochs, steps=epochs * self.per_epoch)


LENGTHS = (1, 5, 20, 100)  # epochs
_PIXELS = {"data": "pixels", "metric": "macs", "batch": 128, "dense_steps": 0, "steps": 0}


def _pixels(make: Callable[[], nn.Module], targets: tuple[float, ...], images: int, **more: Any) -> Task:
    """A network on CIFAR-10 in its original pixels, which learns from so many images."""
    return Task(make, targets=targets, per_epoch=images // 128, **_PIXELS, **more).at(LENGTHS[0])


_PUBLIC = {"dense_lr": 0.0, "rates": (0.01, 0.02, 0.05), "pretrained": True}
_OURS = {"dense_lr": 0.1, "rates": (0.02, 0.05, 0.1), "held": dense.HELD}
TASKS = {
    "mlp": Task(mlp, "mnist", "params", (0.25, 0.10, 0.05), 128, 6000, 0.05, 1200, (0.02, 0.05, 0.1)),
    "lenet": Task(lenet5_caffe, "mnist", "params", (0.15, 0.05), 128, 3000, 0.05, 800, (0.02, 0.05, 0.1)),
    "resnet20": Task(
        resnet20, "folder", "macs", (0.5, 0.25), 64, 800, 0.02, 500, (0.01, 0.02, 0.05), pretrained=True
    ),
    "resnet20-pixels": _pixels(resnet20, (0.5, 0.25), 45_000, channels_last=True, half_from=5, **_PUBLIC),
    "resnet20-16": _pixels(resnet20, (0.5, 0.25), dense.LEARNED, **_OURS),  # images of 16x16: for ablations
    "resnet56": _pixels(resnet56, (0.47, 0.25), dense.LEARNED, channels_last=True, half_from=1, **_OURS),
    "vgg16": _pixels(
        partial(VGG16, hidden=512), (0.5, 0.25), dense.LEARNED, channels_last=True, half_from=1, **_OURS
    ),
}


@dataclass
class Bout:
    """One seed of a task: everything that all methods share.

    Attributes:
        dense: the network to prune; each method gets a copy.
        example: two inputs.
        accuracy: of the dense network on the test data.
        origin: what of the data and of the dense network sets this seed's rows apart from others, by name.
    """

    task: Task
    seed: int
    dense: nn.Module
    train: Any
    val: Any
    test: Any
    example: torch.Tensor
    accuracy: float

    @functools.cached_property
    def origin(self) -> dict[str, str]:
        data = json.dumps([contents(loader) for loader in (self.train, self.val, self.test)], sort_keys=True)
        return {"data": hashlib.sha256(data.encode()).hexdigest()[:8], "dense": weights_digest(self.dense)[:8]}

    def check(self, rows: list[dict[str, Any]]) -> None:
        """Refuse rows on file of this task and seed that are of other data, or of another dense network.

        Those that do not say so are known by the accuracy of their dense network, if they are final.

        Raises:
            SystemExit: there is one.
        """
        for row in rows:
            known = {name: row[name] for name in self.origin if name in row}
            other = [name for name, value in known.items() if value != self.origin[name]]
            if not known and abs(row.get("dense_test", self.accuracy) - self.accuracy) > SAME:
                other = [f"dense network's accuracy, {row['dense_test']:.2%} there and {self.accuracy:.2%} here,"]
            if other:
                raise SystemExit(
                    f"rows on file of seed {self.seed} ({row['method']}, {row['date']}) are of other data or of "
                    f"another dense network: their {' and '.join(other)} differ. Give the images and weights that "
                    "they were made with, or --results with a folder of its own."
                )


def prepare(name: str, seed: int, options: Any) -> Bout:
    """Data and dense network of one seed; the network is kept under `--cache` for the next call."""
    task = task_of(name, options)
    if task.held:
        return _held_out(name, task, seed, options)
    source = "mnist" if task.data == "mnist" else options.images
    train, val, test = snnprune.load_data(
        source,
        options.mnist,
        batch_size=task.batch,
        augment=task.data != "mnist",
        seed=seed,
        download=False,
    )
    _check_length(task, train)
    torch.manual_seed(seed)
    network = task.make()
    path = Path(options.cache) / f"{name}-{task.dense_steps}-{seed}.pt"
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
    else:
        if task.pretrained:
            arch = Path(__file__).resolve().parents[2] / "models" / "resnet.py"
            network = load_model(options.weights, arch=f"{arch}:resnet20").model
        if task.dense_steps:
            network = train_dense(
                network, train, steps=task.dense_steps, lr=task.dense_lr, device=options.device, seed=seed
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda p: torch.save(copy.deepcopy(network).cpu().state_dict(), p))
    return _bout(task, seed, network, (train, val, test), options)


def task_of(name: str, options: Any) -> Task:
    """The task in the length that is asked for."""
    return TASKS[name].at(getattr(options, "length", None) or LENGTHS[0])


def _held_out(name: str, task: Task, seed: int, options: Any) -> Bout:
    """A network of our own; its file says which images were held out, and no row learns from them."""
    network = task.make()
    held = dense.load_(network, dense.place(options.cache, name), options.images)
    loaders = dense.loaders(options.images, held, batch_size=task.batch, seed=seed)
    _check_length(task, loaders[0])
    return _bout(task, seed, network, loaders, options)


def _check_length(task: Task, train: Any) -> None:
    if task.per_epoch and len(train) != task.per_epoch:
        raise SystemExit(
            f"--images has {len(train)} batches of training images, and rows are of {task.per_epoch}: give all "
            "50,000 training images of CIFAR-10."
        )


def _bout(task: Task, seed: int, network: nn.Module, loaders: Any, options: Any) -> Bout:
    network = network.to(options.device).eval()
    train, val, test = loaders
    example = next(iter(val))[0][:2].to(options.device)
    return Bout(task, seed, network, train, val, test, example, snnprune.evaluate(network, test).accuracy)
