"""A step of the search against a plain training step: time and peak memory, side by side.

    python benchmarks/speed/overhead.py mlp lenet resnet20
    python benchmarks/speed/overhead.py resnet50 --device cuda
    python benchmarks/speed/overhead.py --table

Every ratio is against the same network, batch and optimiser without a switcher. *together* is the default: the
switcher runs and learns at every step. *hold 8*: it does so at every eighth step and its scales are held between
them. *in turn* is the mean of one step of the switcher and one of the network with held scales. *teacher* adds the
original model's forward pass to both sides.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from steps import (
    NETWORKS,
    PlainStep,
    SearchStep,
    add_row,
    batch_of,
    build,
    cases,
    options,
    peak_memory,
    side_by_side,
    teacher_of,
)

RATIOS = {"together": "plain", "together, teacher": "plain, teacher", "hold 8": "plain", "in turn": "plain"}


def measure(
    name: str, batch: int, device: str, rounds: int, block: int, ratios: dict[str, str] = RATIOS
) -> dict[str, Any]:
    """One row of the table; `block` steps are timed together, for "hold 8" a multiple of 8."""
    data = batch_of(name, batch, device)
    model = build(name, device)
    teacher = teacher_of(model)
    kinds: dict[str, Any] = {
        "plain": lambda: PlainStep(copy.deepcopy(model), data, None),
        "plain, teacher": lambda: PlainStep(copy.deepcopy(model), data, teacher),
        "together": lambda: SearchStep(copy.deepcopy(model), data, None),
        "together, teacher": lambda: SearchStep(copy.deepcopy(model), data, teacher),
        "hold 8": lambda: SearchStep(copy.deepcopy(model), data, None, hold=8),
        "in turn": lambda: SearchStep(copy.deepcopy(model), data, None, alternate=1, gradient="held"),
    }
    kinds = {kind: make for kind, make in kinds.items() if kind in {*ratios, *ratios.values()}}
    memory = {}
    for kind, make in kinds.items():  # one at a time, so that nothing else is alive
        memory[kind] = peak_memory(make(), device)
    steps = {kind: make() for kind, make in kinds.items()}
    seconds = side_by_side(steps, device, rounds=rounds, block=block)
    return {
        "seconds": {k: round(v, 6) for k, v in seconds.items()},
        "bytes": memory,
        "time": {kind: seconds[kind] / seconds[base] for kind, base in ratios.items()},
        "memory": {kind: memory[kind] / memory[base] for kind, base in ratios.items()},
    }


def main() -> None:
    """Command line."""
    parser = options(__doc__ or "")
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], help="default: all")
    parser.add_argument("--batch", type=int, help="default: 64; on the CPU what fits")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--kinds", nargs="+", choices=list(RATIOS), default=list(RATIOS), help="default: all")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.table:
        from speed_report import write_speed

        print(write_speed(args.results))
        return
    for name, batch in cases(args):
        row = measure(name, batch, args.device, args.rounds, args.block, {k: RATIOS[k] for k in args.kinds})
        add_row(args.results, {"benchmark": "overhead", "case": name, "batch": batch, **row}, args)


if __name__ == "__main__":
    main()
