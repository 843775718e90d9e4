"""What one pass of the switcher costs, against the number of parameters that it reads.

    python benchmarks/speed/growth.py
    python benchmarks/speed/growth.py vit_l_16 --device cuda
    python benchmarks/speed/growth.py --table

A pass reads all weights, gives every neuron its value, and takes gradients to the switcher's parameters and to all
weights. Its peak memory is counted without the weights and without their gradients, which training holds anyway.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import torchvision
from steps import NETWORKS, add_row, build, options, peak_of

import snnprune
from snnprune.switching.encoding import Scorer

CASES = ("mlp", "lenet", "resnet20", "mobilenet_v2", "resnet18", "resnet50", "vit_b_16", "vgg16", "vit_l_16")


class Pass:
    """Forward and backward of the switcher over one network."""

    def __init__(self, name: str, device: str) -> None:
        torch.manual_seed(0)
        self.model = build(name, device) if name in NETWORKS else getattr(torchvision.models, name)().to(device)
        shape = NETWORKS[name].shape if name in NETWORKS else (3, 224, 224)
        groups = snnprune.trace(self.model, torch.randn(2, *shape, device=device))
        self.neurons = sum(g.size for g in groups if g.prunable)
        self.scorer = Scorer(self.model, groups)
        self.learned = [*self.model.parameters(), *self.scorer.switcher_parameters()]
        self.params = sum(p.numel() for p in self.model.parameters())
        self.largest = max(p.numel() for p in self.model.parameters())

    def __call__(self) -> None:
        values = self.scorer(self.model)
        total = (values * torch.linspace(-1, 1, len(values), device=values.device)).sum()
        torch.autograd.grad(total, self.learned, allow_unused=True)


def measure(name: str, device: str, rounds: int) -> dict[str, Any]:
    """One point of the curve."""
    one = Pass(name, device)
    one()
    clock = time.perf_counter if device.startswith("cuda") else time.process_time
    times = []
    for _ in range(rounds):
        began = clock()
        one()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(clock() - began)
    extra = peak_of(one, device) - 4 * one.params  # gradients of the weights are a result, not a cost
    seconds = sorted(times)[len(times) // 2]
    return {
        "params": one.params,
        "neurons": one.neurons,
        "largest": one.largest,
        "seconds": seconds,
        "ns_per_param": 1e9 * seconds / one.params,
        "extra_bytes": extra,
        "extra_over_largest_layer": extra / (4 * one.largest),
    }


def main() -> None:
    """Command line."""
    parser = options(__doc__ or "")
    parser.add_argument("cases", nargs="*", choices=[*CASES, []])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.table:
        from speed_report import write_speed

        print(write_speed(args.results))
        return
    for name in args.cases or CASES:
        row = measure(name, args.device, args.rounds)
        add_row(args.results, {"benchmark": "growth", "case": name, "batch": 0, **row}, args)


if __name__ == "__main__":
    main()
