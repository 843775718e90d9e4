"""What the speed benchmarks share: networks, steps to time, and the memory that a step takes."""

from __future__ import annotations

import argparse
import copy
import datetime
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "models")]

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import snnprune  # noqa: E402
from snnprune.budget import CostModel  # noqa: E402
from snnprune.files import write_json  # noqa: E402
from snnprune.learner import TaskLoss  # noqa: E402
from snnprune.learner.searching import SearchStage  # noqa: E402
from snnprune.pipeline.attaching import switch  # noqa: E402
from snnprune.runs.report import device_name, versions  # noqa: E402

Step = Callable[[], None]


@dataclass(frozen=True)
class Network:
    """A network of the table.

    Attributes:
        make: `module:function`; torchvision's or a file in models/.
        shape: of one input.
        batch: inputs per step.
        cpu_batch: the same where no GPU is at hand.
        classes: outputs.
    """

    make: str
    shape: tuple[int, ...]
    batch: int
    cpu_batch: int
    classes: int


NETWORKS = {
    "mlp": Network("mlp:mlp", (1, 28, 28), 64, 64, 10),
    "lenet": Network("lenet:lenet5_caffe", (1, 28, 28), 64, 64, 10),
    "resnet20": Network("resnet:resnet20", (3, 32, 32), 64, 64, 10),
    "resnet50": Network("torchvision.models:resnet50", (3, 224, 224), 64, 16, 1000),
    "mobilenet_v2": Network("torchvision.models:mobilenet_v2", (3, 224, 224), 64, 8, 1000),
    "vgg16": Network("torchvision.models:vgg16", (3, 224, 224), 64, 8, 1000),
    "vit_b_16": Network("torchvision.models:vit_b_16", (3, 224, 224), 64, 8, 1000),
}


def build(name: str, device: str) -> nn.Module:
    """The network with fresh weights."""
    module, function = NETWORKS[name].make.split(":")
    torch.manual_seed(0)
    return getattr(importlib.import_module(module), function)().to(device)


def batch_of(name: str, size: int, device: str) -> tuple[Tensor, Tensor]:
    """Random images and labels."""
    generator = torch.Generator().manual_seed(0)
    network = NETWORKS[name]
    images = torch.randn(size, *network.shape, generator=generator)
    labels = torch.randint(0, network.classes, (size,), generator=generator)
    return images.to(device), labels.to(device)


class PlainStep:
    """A training step as one would write it: cross-entropy, clipped gradients, SGD with momentum."""

    def __init__(self, model: nn.Module, batch: tuple[Tensor, Tensor], teacher: nn.Module | None) -> None:
        self.model, self.batch = model.train(), batch
        self.optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, weight_decay=5e-4)
        self.loss = TaskLoss(teacher, distill=0.9 if teacher is not None else 0.0, temperature=2.0)

    def __call__(self) -> None:
        loss = self.loss(self.model, self.batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        float(loss.detach())

    def state(self) -> list[Any]:
        """Everything that lives between steps."""
        return [self.model.state_dict(), self.optimizer.state_dict(), _state_of(self.loss.teacher)]


class SearchStep:
    """A step of the search, by the code that runs it."""

    def __init__(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], teacher: nn.Module | None, **search: Any
    ) -> None:
        config = snnprune.PruneConfig(
            target={"macs": 0.5},
            floor=0.02,
            lr=1e-4,
            distill=0.9 if teacher is not None else 0.0,
            search=snnprune.SearchOptions(**search),
        )
        self.batch = batch
        example = batch[0][:2]
        groups = snnprune.trace(model, example, input_neurons=config.input_neurons)
        self.loss = TaskLoss(teacher, distill=config.distill, temperature=config.recovery.temperature)
        self.gated = switch(model, groups, lambda: CostModel(model, groups, example), config, self.loss, None)
        self.stage = SearchStage(self.gated, self.loss, config, total=1000, per_epoch=1000, val=None, extra={})
        self.stage.step = 900  # the target itself, at the end of the ramp

    def __call__(self) -> None:
        self.stage.train_step(self.batch)
        self.stage.step = 900 + (self.stage.step - 899) % 96  # also in turn every phase has its turn

    def state(self) -> list[Any]:
        """Everything that lives between steps."""
        found = self.stage.state()
        return [found, _state_of(self.loss.teacher)]


def _state_of(model: nn.Module | None) -> Any:
    return None if model is None else model.state_dict()


def teacher_of(model: nn.Module) -> nn.Module:
    """The frozen original."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def side_by_side(steps: Mapping[str, Step], device: str, *, rounds: int, block: int) -> dict[str, float]:
    """Median seconds of each, taken in turn so that a slow moment of the machine meets all of them.

    On the CPU seconds of this process are counted, all threads together, so that other processes matter less.

    Args:
        steps: what to time.
        device: waited for before the clock is read.
        rounds: how often each is timed.
        block: calls per timing.
    """
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            _wait(device)
            began = clock()
            for _ in range(block):
                step()
            _wait(device)
            if turn:  # the first round warms up
                times[name].append((clock() - began) / block)
    return {name: statistics.median(found) for name, found in times.items()}


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_memory(step: Any, device: str) -> int:
    """Bytes at the highest point of a step, with what lives between steps."""
    step()
    if not device.startswith("cuda"):
        for parameter in _parameters(step):
            parameter.grad = None  # gradients belong to the step
        return peak_of(step, device) + _bytes(step.state(), set())
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def peak_of(step: Step, device: str) -> int:
    """Bytes at the highest point of a call, above what was there before.

    On the CPU summed up from the allocator's own events, so that it does not depend on what the
    operating system gives back.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        step()
    results: Any = found.profiler and found.profiler.kineto_results
    events = [e for e in results.events() if e.name() == "[memory]"]
    running = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        running += event.nbytes()
        peak = max(peak, running)
    return peak


def _parameters(step: Any) -> list[nn.Parameter]:
    if isinstance(step, PlainStep):
        return list(step.model.parameters())
    return [*step.gated.network_parameters(), *step.gated.scorer_parameters()]


def _bytes(value: Any, seen: set[int]) -> int:
    if isinstance(value, Tensor):
        pointer = value.data_ptr()
        if pointer in seen:
            return 0
        seen.add(pointer)
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(_bytes(v, seen) for v in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_bytes(v, seen) for v in value)
    return 0


def options(text: str) -> argparse.ArgumentParser:
    """Options that every speed benchmark has."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", default="cpu")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--results", type=Path, default=HERE / "results.json")
    made.add_argument("--table", action="store_true", help="write the report from the results")
    return made


def cases(args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Networks to measure, each with its batch: the one that was given, or what suits the device."""
    for name in args.networks or NETWORKS:
        network = NETWORKS[name]
        yield name, args.batch or (network.cpu_batch if args.device == "cpu" else network.batch)


def add_row(path: Path, row: dict[str, Any], args: argparse.Namespace) -> None:
    """Append a row with date, versions and device; one of the same key on the same device is replaced."""
    rows = json.loads(path.read_text()) if path.exists() else []
    row = {
        **row,
        "date": datetime.date.today().isoformat(),
        "device": device_name(torch.device(args.device)),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    key = ("benchmark", "case", "batch", "device", "engine", "precision")
    rows = [r for r in rows if any(r.get(k) != row.get(k) for k in key)]
    write_json(path, [*rows, row])
    print(json.dumps({k: v for k, v in row.items() if k != "versions"}), flush=True)


__all__ = [
    "NETWORKS",
    "PlainStep",
    "SearchStep",
    "add_row",
    "batch_of",
    "build",
    "cases",
    "options",
    "peak_memory",
    "peak_of",
    "side_by_side",
    "teacher_of",
]
