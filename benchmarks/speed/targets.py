"""Does `latency=0.5` come out as half the time, on a machine that does other things meanwhile?

    python benchmarks/speed/targets.py --runs 3
    python benchmarks/speed/targets.py resnet18 --engine torch-compiled --device cuda --precision fp16 --batch 32
    python benchmarks/speed/targets.py --table

Every run times the network's layers anew, learns for a few steps on random images, and corrects itself by the
clock, all of it while another process keeps a core busy (`--idle`: without). Then that process is ended and the
files are timed by `bench`, alone. With `--other PID` the busy process is one that runs anyway, a training for
example; it is stopped while `bench` times, and goes on afterwards. What is learned does not matter here; the time
does. Rows go into `targets.json`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
import torchvision
from steps import HERE, add_row, options
from torch.utils.data import DataLoader, TensorDataset

import snnprune
from snnprune.metrics import count_macs, count_params
from snnprune.timing import Serving

NETWORKS = {"resnet18": 4, "mobilenet_v2": 4, "efficientnet_b0": 4, "vit_b_16": 2}  # images per step
_BUSY = "while True: pass"


@contextlib.contextmanager
def busy(really: bool) -> Iterator[None]:
    """Another process that keeps a core busy."""
    other = subprocess.Popen([sys.executable, "-c", _BUSY]) if really else None
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


@contextlib.contextmanager
def stopped(other: int | None) -> Iterator[None]:
    """A process that runs anyway waits."""
    if other is not None:
        os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        if other is not None:
            os.kill(other, signal.SIGCONT)


def run(name: str, seed: int, args: Any) -> dict[str, Any]:
    """One run, and what its files take afterwards."""
    torch.manual_seed(seed)
    model = getattr(torchvision.models, name)().eval()
    images = torch.randn(4 * NETWORKS[name], 3, args.size, args.size)
    loader = DataLoader(TensorDataset(images, torch.arange(len(images)) % 10), NETWORKS[name])
    serving = Serving(engine=args.engine, batch=args.batch, precision=args.precision, threads=args.threads)
    config = snnprune.PruneConfig(
        target={"latency": args.target},
        epochs=2,
        lr=1e-3,
        seed=seed,
        floor=0.05,
        search=snnprune.SearchOptions(share=0.5),
        serving=serving,
    )
    began = time.monotonic()
    with busy(not args.idle and args.other is None), tempfile.TemporaryDirectory() as cache:
        os.environ["SNNPRUNE_CACHE"] = cache
        result = snnprune.optimize(model, loader, None, config, device=args.device)
    seconds = time.monotonic() - began
    *tries, final = result.report.trials
    compact = result.model.cpu()
    files = {"dense": model, "compact": compact}
    with stopped(args.other):
        found = snnprune.bench(files, [serving], example_inputs=images[:2], limit=60.0, spread=0.01)[1]
    example = images[:1]
    return {
        "benchmark": "targets",
        "case": f"{name}, seed {seed}",
        "batch": args.batch,
        "engine": found.engine,
        "precision": found.precision,
        "served_on": found.device,
        "target": args.target,
        "busy": "a training" if args.other is not None else not args.idle,
        "predicted": tries[0]["predicted_ms"],
        "tries": [t.get("latency") for t in tries],
        "said": final.get("latency"),
        "measured": found.ratio,
        "spread": found.ratio_spread,
        "refused": found.ratio_refused,
        "ms": found.ms,
        "macs": count_macs(compact, example) / count_macs(model, example),
        "params": count_params(compact) / count_params(model),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Command line."""
    parser = options(__doc__ or "")
    parser.set_defaults(results=HERE / "targets.json")
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--target", type=float, default=0.5)
    parser.add_argument("--engine", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--idle", action="store_true", help="no other process")
    parser.add_argument("--other", type=int, metavar="PID", help="the process that keeps a core busy")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.table:
        from times_report import write_times

        print(write_times(args.results.parent))
        return
    if args.other is not None:
        try:
            os.kill(args.other, 0)  # known now, and not after minutes of work
        except OSError as error:
            parser.error(f"--other {args.other}: there is no such process that can be stopped ({error})")
    for seed in range(args.first_seed, args.first_seed + args.runs):
        for name in args.networks or NETWORKS:
            add_row(args.results, run(name, seed, args), args)


if __name__ == "__main__":
    main()
