"""How well the times of layers add up to those of networks: predicted against measured, for cuts at three widths.

    python benchmarks/speed/profiles.py
    python benchmarks/speed/profiles.py resnet50 --engine cuda --precision fp16 --batch 32 --device cuda
    python benchmarks/speed/profiles.py --table

The cuts keep the same share of every group, in multiples of 8, and are none of those that the profile was made
with.
Rows go into `profiles.json`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
import torchvision
from steps import HERE, add_row, options
from torch import nn

import snnprune
from snnprune.budget import CostModel
from snnprune.timing import Serving, SideBySide, profile_of
from snnprune.timing.cuts import cut

NETWORKS = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "vit_b_16")
SHARES = (0.75, 0.5, 0.25)


def evenly(cost: CostModel, share: float) -> dict[str, Any]:
    """The first neurons of every group, in multiples of 8 where it is wide."""
    kept = {}
    for name, group in cost.groups.items():
        step = 8 if group.size >= 64 else 1
        count = min(group.size, max(1, step * round(share * group.size / step)))
        kept[name] = np.arange(group.size) < count
    return kept


def row(name: str, args: Any) -> dict[str, Any]:
    """One network."""
    torch.manual_seed(0)
    model: nn.Module = getattr(torchvision.models, name)().eval()
    images = torch.randn(2, 3, args.size, args.size)
    serving = Serving(engine=args.engine, batch=args.batch, precision=args.precision, threads=args.threads)
    groups = snnprune.trace(model, images)
    cost = CostModel(model, groups, images)
    began = time.monotonic()
    profile = profile_of(model, groups, cost, images, serving, anew=True)
    seconds = time.monotonic() - began
    cost.add_times(profile.parts)
    beside, found = SideBySide(model, images, serving), {}
    for share in SHARES:
        kept = evenly(cost, share)
        timed = beside(cut(model, groups, kept))
        predicted = cost.cost("latency", kept) / profile.dense_ms
        found[f"{share:g}"] = {
            "predicted": predicted,
            "measured": timed.share,
            "spread": timed.spread,
            "refused": timed.refused,
            "error": None if timed.share is None else predicted / timed.share - 1,
        }
    return {
        "benchmark": "profiles",
        "case": name,
        "batch": args.batch,
        "engine": profile.key["engine"],
        "precision": args.precision,
        "served_on": profile.key["device"],
        "dense_ms": profile.dense_ms,
        "dense_predicted_ms": profile.predicted_ms,
        "graphs": profile.graphs,
        "seconds": round(seconds, 1),
        "cuts": found,
        "steps": profile.steps,
    }


def main() -> None:
    """Command line."""
    parser = options(__doc__ or "")
    parser.set_defaults(results=HERE / "profiles.json")
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--engine", default="cpu")
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.table:
        from times_report import write_times

        print(write_times(args.results.parent))
        return
    for name in args.networks or NETWORKS:
        add_row(args.results, row(name, args), args)


if __name__ == "__main__":
    main()
