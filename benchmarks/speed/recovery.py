"""What the memory format, half precision and the compiler make of a step of the recovery, side by side.

    python benchmarks/speed/recovery.py resnet20 mlp
    python benchmarks/speed/recovery.py resnet50 --device cuda
    python benchmarks/speed/recovery.py --table

The step is that of a run: teacher, distillation, SGD. It is taken on the dense network, whose speed needs no cut.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from steps import NETWORKS, add_row, batch_of, build, cases, options, side_by_side, teacher_of
from torch import Tensor, nn

import snnprune
from snnprune.learner.loss import TaskLoss
from snnprune.learner.recovering import RecoverStage
from snnprune.pipeline.attaching import working_copy

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
    "both": {"channels_last": True, "compile": True},
    "both, bfloat16": {"channels_last": True, "compile": True, "precision": "bfloat16"},
}


class RecoverStep:
    """A step of the recovery, by the code that runs it."""

    def __init__(self, model: nn.Module, batch: tuple[Tensor, Tensor], chosen: dict[str, Any]) -> None:
        config = snnprune.PruneConfig(lr=1e-4, **chosen)
        model = working_copy(model, batch[0].device, config)
        loss = TaskLoss(
            teacher_of(model),
            distill=config.distill,
            temperature=config.recovery.temperature,
            precision=config.precision,
            compile=config.compile,
        )
        self.batch = batch
        self.stage = RecoverStage(model, loss, config, total=10**6, val=None, extra={}, sparse=())

    def __call__(self) -> None:
        self.stage.train_step(self.batch)


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


def main() -> None:
    """Command line."""
    parser = options(__doc__ or "")
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], help="default: all")
    parser.add_argument("--batch", type=int, help="default: 64; on the CPU what fits")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.table:
        from speed_report import write_speed

        print(write_speed(args.results))
        return
    for name, batch in cases(args):
        row = measure(name, batch, args.device, args.rounds, args.block)
        add_row(args.results, {"benchmark": "recovery", "case": name, "batch": batch, **row}, args)


if __name__ == "__main__":
    main()
