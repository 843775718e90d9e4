"""A step of the recovery: what makes it faster, against a loop written by hand, and what half precision costs.

    python benchmarks/speed/recovery.py resnet20 mlp                 # memory format, half precision, compiler
    python benchmarks/speed/recovery.py --against-loop resnet20 mlp  # seconds and launched operations of both
    python benchmarks/speed/recovery.py --accuracy                   # bfloat16 and float32 on digits, three seeds
    python benchmarks/speed/recovery.py resnet50 --device cuda
    python benchmarks/speed/recovery.py --table

The step is that of a run: teacher, distillation, SGD. It is taken on the dense network, whose speed needs no cut.
"""

from __future__ import annotations

import copy
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from steps import NETWORKS, add_row, batch_of, build, cases, options, side_by_side, teacher_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import snnprune
from snnprune.learner.loss import TaskLoss
from snnprune.learner.recovering import RecoverStage
from snnprune.learner.watch import Watch
from snnprune.pipeline.attaching import working_copy

PLAIN: dict[str, Any] = {"channels_last": False, "compile": False, "precision": "float32"}
OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": PLAIN,
    "channels_last": {**PLAIN, "channels_last": True},
    "compile": {**PLAIN, "compile": True},
    "both": {**PLAIN, "channels_last": True, "compile": True},
    "both, bfloat16": {"channels_last": True, "compile": True, "precision": "bfloat16"},
}
LOOPS = {name: {**PLAIN, "precision": name} for name in ("float32", "bfloat16")}
MODELS = Path(__file__).resolve().parents[2] / "models"


class RecoverStep:
    """A step of the recovery, by the code that runs it."""

    def __init__(self, model: nn.Module, batch: tuple[Tensor, Tensor], chosen: dict[str, Any]) -> None:
        config = snnprune.PruneConfig(lr=1e-4, **chosen)
        model = working_copy(model, batch[0].device, config)
        loss = TaskLoss.of(config, teacher_of(model))
        self.batch = batch
        self.stage = RecoverStage(model, loss, config, total=10**6, val=None, extra={}, sparse=())
        self.watch = Watch("recover", self.stage.check)

    def __call__(self) -> None:
        self.watch.add(self.stage.step, self.stage.train_step(self.batch), self.batch)


class HandWrittenStep:
    """The same step as one would write it in a script: no look at its numbers, no options."""

    def __init__(self, model: nn.Module, batch: tuple[Tensor, Tensor], precision: str) -> None:
        self.model, self.teacher, self.batch = copy.deepcopy(model).train(), teacher_of(model), batch
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.SGD(
            self.parameters, 1e-4, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 10**6)
        self.cast = torch.autocast(batch[0].device.type, torch.bfloat16, enabled=precision == "bfloat16")

    def __call__(self) -> None:
        images, labels = self.batch
        self.optimizer.zero_grad(set_to_none=True)
        with self.cast:
            logits = self.model(images)
            with torch.no_grad():
                target = self.teacher(images)
            soft = F.kl_div(
                F.log_softmax(logits / 2, 1), F.log_softmax(target / 2, 1), reduction="batchmean", log_target=True
            )
            loss = 0.1 * F.cross_entropy(logits, labels) + 0.9 * 4 * soft
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimizer.step()
        self.schedule.step()


class Launches(TorchDispatchMode):
    """Counts operations that launch something; views do not."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = [value.alias_info for value in func._schema.returns]
        self.count += not any(alias is not None and not alias.is_write for alias in aliases)
        return func(*args, **(kwargs or {}))


def launches(step: Any) -> int:
    """Operations of a call that launch something."""
    with Launches() as found:
        step()
    return found.count


def measure(name: str, batch: int, device: str, rounds: int, block: int) -> dict[str, Any]:
    """One row of the table; the first call of each, which may compile, is timed apart."""
    data, model = batch_of(name, batch, device), build(name, device)
    steps = {kind: RecoverStep(copy.deepcopy(model), data, chosen) for kind, chosen in OPTIONS.items()}
    first = {}
    for kind, step in steps.items():
        began = time.perf_counter()
        step()
        first[kind] = round(time.perf_counter() - began, 2)
    seconds = side_by_side(steps, device, rounds=rounds, block=block)
    return {
        "seconds": {kind: round(value, 6) for kind, value in seconds.items()},
        "first": first,
        "time": {kind: seconds[kind] / seconds["as it is"] for kind in OPTIONS},
    }


def against_loop(name: str, batch: int, device: str, rounds: int, block: int) -> dict[str, Any]:
    """Seconds and launched operations of our step over those of a loop written by hand, by precision."""
    data, model = batch_of(name, batch, device), build(name, device)
    steps: dict[str, Any] = {}
    for precision, chosen in LOOPS.items():
        steps[f"ours, {precision}"] = RecoverStep(copy.deepcopy(model), data, chosen)
        steps[f"by hand, {precision}"] = HandWrittenStep(model, data, precision)
    seconds = side_by_side(steps, device, rounds=rounds, block=block)
    counts = {kind: launches(step) for kind, step in steps.items()}
    return {
        "seconds": {kind: round(value, 6) for kind, value in seconds.items()},
        "operations": counts,
        "time": {p: seconds[f"ours, {p}"] / seconds[f"by hand, {p}"] for p in LOOPS},
        "launches": {p: counts[f"ours, {p}"] / counts[f"by hand, {p}"] for p in LOOPS},
    }


def accuracy(batch: int, device: str, seeds: int, epochs: float) -> dict[str, Any]:
    """Test accuracies of runs on digits whose learning differs in its precision alone, one for each seed."""
    from digits_cnn import digits_cnn

    found: dict[str, list[float]] = {name: [] for name in LOOPS}
    for seed in range(seeds):
        for precision, chosen in LOOPS.items():
            model = digits_cnn()
            model.load_state_dict(torch.load(MODELS / "digits_cnn.pt"))
            train, val, test = snnprune.load_data("digits", batch_size=batch)
            config = snnprune.PruneConfig(target={"macs": 0.25}, epochs=epochs, seed=seed, **chosen)
            result = snnprune.optimize(model.to(device), train, val, config, test=test)
            assert result.report.compact.accuracy is not None
            found[precision].append(round(result.report.compact.accuracy, 4))
    return {"accuracy": found, "mean": {name: round(statistics.mean(v), 4) for name, v in found.items()}}


def main() -> None:
    """Command line."""
    parser = options(__doc__ or "")
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], help="default: all")
    parser.add_argument("--batch", type=int, help="default: 64; on the CPU what fits")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block", type=int, default=4)
    parser.add_argument("--against-loop", action="store_true", help="against a loop written by hand")
    parser.add_argument("--accuracy", action="store_true", help="what half precision costs on digits")
    parser.add_argument("--seeds", type=int, default=3, help="of --accuracy")
    parser.add_argument("--epochs", type=float, default=20, help="of --accuracy")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.table:
        from speed_report import write_speed

        print(write_speed(args.results))
        return
    if args.accuracy:
        batch = args.batch or 128
        row = accuracy(batch, args.device, args.seeds, args.epochs)
        add_row(args.results, {"benchmark": "precision", "case": "digits, macs 0.25", "batch": batch, **row}, args)
        return
    for name, batch in cases(args):
        kind, function = ("loop", against_loop) if args.against_loop else ("recovery", measure)
        row = function(name, batch, args.device, args.rounds, args.block)
        add_row(args.results, {"benchmark": kind, "case": name, "batch": batch, **row}, args)


if __name__ == "__main__":
    main()
