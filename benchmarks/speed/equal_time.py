"""Accuracy at equal time: the target of time against MACs chosen to take as long, and against torch-pruning.

    python benchmarks/speed/equal_time.py mobilenet_v2 --weights mobilenet_v2_flowers.pt --images flowers144
    python benchmarks/speed/equal_time.py resnet18 --images flowers144
    python benchmarks/speed/equal_time.py --time        # all files of all rows in one run; wants a quiet machine
    python benchmarks/speed/equal_time.py --table

A network that was trained on the images (MobileNetV2 comes so, ResNet-18 is trained here from fresh weights) is
cut to half its measured time, in ONNX Runtime on the CPU, one thread, batch 1. That is done in four ways; then it
recovers with the same batches, the same number of steps in all, the same teacher and the same rate:

- `latency`: by `latency=0.5`;
- `macs`: by a share of the MACs. The search is for a share at which a cut by norms takes half the time; at its end
  the share is chosen anew by bisection, so that what the search has found takes half the time;
- `L2`: torch-pruning's L2 norm, the same ratio in every layer, found by bisection in the same way;
- `LAMP`: torch-pruning's LAMP, one ranking over all layers, likewise.

A row that is on file is not run again. Test images are looked at once, by the recovered network. Rows go into
`equal_time.json`, files into `--cache`.
"""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
import torchvision
from steps import HERE, add_row, options
from torch import nn

import snnprune
from snnprune.budget import CostModel
from snnprune.files import write_atomically, write_json
from snnprune.inputs import first_images
from snnprune.learner import TaskLoss, recover
from snnprune.metrics import count_macs, count_params
from snnprune.pipeline.job import Job
from snnprune.pipeline.setting import Setting
from snnprune.switching import Options, switch_neurons
from snnprune.timing import Serving, SideBySide

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
METHODS = ("latency", "macs", "L2", "LAMP")
SERVING = Serving(engine="cpu")
TARGET = 0.5
_STEPS = 7  # of a bisection
_LOW = 0.95  # of the target: near enough
_FLOOR = 0.05  # of every group, and the least share of the MACs
_CLOCKS = 3  # looks at the clock before it is given up
_LIMIT = 8.0  # seconds for each of two files


def dense(name: str, splits: Any, args: Any) -> nn.Module:
    """The network that all begin with."""
    classes = len(splits.train.info.classes)
    model = getattr(torchvision.models, name)(num_classes=classes)
    if args.weights is not None:
        model.load_state_dict(torch.load(args.weights, weights_only=True))
        return model.eval()
    kept = Path(args.cache) / f"{name}-{args.image_size}-{args.dense_epochs:g}.pt"
    if not kept.exists():
        torch.manual_seed(0)
        model = getattr(torchvision.models, name)(num_classes=classes)
        config = snnprune.PruneConfig(lr=0.05, distill=0.0)
        steps = round(args.dense_epochs * len(splits.train))
        recover(model, splits.train, TaskLoss(None, distill=0.0, temperature=1.0), config, total=steps)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, lambda p: torch.save(model.state_dict(), p))
    model.load_state_dict(torch.load(kept, weights_only=True))
    return model.eval()


def bisected(take: Callable[[float], nn.Module], beside: SideBySide, *, falls: bool) -> tuple[float, nn.Module]:
    """The setting whose cut is the slowest that is fast enough.

    Args:
        take: makes a cut of a number in [0, 1].
        beside: the clock.
        falls: whether the time falls as the number rises.
    """
    low, high, best = 0.0, 1.0, None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        cut = take(middle)
        share = next((s for s in (beside(cut).share for _ in range(_CLOCKS)) if s is not None), None)
        if share is None:
            raise SystemExit("the clock is not to be believed here; end what else runs")
        if share <= TARGET and (best is None or share > best[2]):
            best = middle, cut, share
        if (share <= TARGET) != falls:
            low = middle
        else:
            high = middle
        if best is not None and best[2] >= _LOW * TARGET:
            break
    assert best is not None, "no cut is fast enough"
    return best[0], best[1]


class EqualTime:
    """Chooses the share of the MACs at the end of a search: that whose cut takes as long as was asked for.

    Args:
        job: whose search it is; what it delivers is checked against the share.
        beside: the clock.
    """

    def __init__(self, job: Job, beside: SideBySide) -> None:
        self.job, self.beside, self.chosen = job, beside, 1.0

    def ready(self) -> None:
        """Nothing is to be known before."""

    def settle(self, gated: Any) -> None:
        """Set the budget of a model at the end of its search."""
        self.chosen, _ = bisected(by_macs(gated), self.beside, falls=False)
        gated.set_budget({"macs": max(self.chosen, _FLOOR)})
        self.job.config = replace(self.job.config, target={"macs": max(self.chosen, _FLOOR)})


def by_macs(gated: Any) -> Callable[[float], nn.Module]:
    """Our own cut at a share of the MACs."""

    def take(share: float) -> nn.Module:
        gated.set_budget({"macs": max(share, _FLOOR)})
        return gated.compact().eval()

    return take


def ours_by_macs(
    model: nn.Module, splits: Any, config: snnprune.PruneConfig, example: torch.Tensor, beside: SideBySide
) -> tuple[float, nn.Module]:
    """The share of the MACs that takes half the time, and the recovered network."""
    groups = snnprune.trace(model, example)
    cost = CostModel(model, groups, example)
    with switch_neurons(copy.deepcopy(model), groups, cost, Options(floor=_FLOOR, round_to=8)) as gated:
        first, _ = bisected(by_macs(gated), beside, falls=False)
    config = replace(config, target={"macs": max(first, _FLOOR)})
    setting = Setting(
        copy.deepcopy(model),
        splits.train,
        splits.val,
        None,
        config,
        torch.device("cpu"),
        loss_fn=None,
        callbacks=(),
        example_inputs=example,
    )
    job = Job(setting, config)
    job.timer = timer = EqualTime(job, beside)
    setting.prepare()
    compact = job.run()
    return timer.chosen, compact


def theirs(model: nn.Module, example: torch.Tensor, method: str) -> Callable[[float], nn.Module]:
    """torch-pruning's cut at a ratio."""
    importance = (
        tp.importance.LAMPImportance() if method == "LAMP" else tp.importance.GroupMagnitudeImportance(p=2)
    )

    def take(ratio: float) -> nn.Module:
        clone = copy.deepcopy(model).requires_grad_(True)
        last = [m for m in clone.modules() if isinstance(m, nn.Linear)][-1:]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tp.pruner.BasePruner(
                clone,
                example,
                importance=importance,
                global_pruning=method == "LAMP",
                pruning_ratio=0.95 * ratio,
                max_pruning_ratio=0.95,
                ignored_layers=last,
                round_to=8,  # as ours: odd widths are slow
            ).step()
        return clone.eval()

    return take


def run(name: str, method: str, seed: int, args: Any) -> dict[str, Any]:
    """One row."""
    splits = snnprune.load_data(args.images, image_size=args.image_size, batch_size=64, seed=seed, **IMAGENET)
    model = dense(name, splits, args)
    example = first_images(splits.val, 2)
    beside = SideBySide(model, example, SERVING, limit=_LIMIT)
    total = round(args.epochs * len(splits.train))
    config = snnprune.PruneConfig(
        target={"latency": TARGET}, epochs=args.epochs, lr=args.lr, seed=seed, floor=_FLOOR, serving=SERVING
    )
    began, chosen = time.monotonic(), None
    if method == "macs":
        chosen, compact = ours_by_macs(model, splits, config, example, beside)
    elif method == "latency":
        compact = snnprune.optimize(model, splits.train, splits.val, config).model
    else:
        chosen, compact = bisected(theirs(model, example, method), beside, falls=True)
        teacher = copy.deepcopy(model).requires_grad_(False)
        loss = TaskLoss(teacher, distill=config.distill, temperature=config.recovery.temperature)
        recover(compact.requires_grad_(True), splits.train, loss, config, total=total)
        compact = compact.eval()
    for kind, network in (("dense", model), (f"{method}-{seed}", compact)):
        snnprune.export_onnx(network, Path(args.cache) / f"{name}-{kind}.onnx", example)
    return {
        "benchmark": "equal time",
        "case": f"{name}, {method}, seed {seed}",
        "network": name,
        "method": method,
        "seed": seed,
        "chosen": chosen,
        "dense": snnprune.evaluate(model, splits.test).accuracy,
        "accuracy": snnprune.evaluate(compact, splits.test).accuracy,
        "images": sum(len(labels) for _, labels in splits.test),
        "share": None,  # see `clocked`
        "macs": count_macs(compact, example) / count_macs(model, example),
        "params": count_params(compact) / count_params(model),
        "steps": total,
        "seconds": round(time.monotonic() - began, 1),
    }


def clocked(args: Any) -> None:
    """Time the files of all rows beside the dense one."""
    rows = json.loads(args.results.read_text())
    for network in dict.fromkeys(row["network"] for row in rows):
        own = [row for row in rows if row["network"] == network]
        kinds = ["dense", *(f"{row['method']}-{row['seed']}" for row in own)]
        paths = [Path(args.cache) / f"{network}-{kind}.onnx" for kind in kinds]
        _, *found = snnprune.bench_onnx(paths, batch_sizes=[1], engine="cpu", limit=30.0, spread=0.01)
        for row, one in zip(own, found, strict=True):
            row.update(share=one.ratio, spread=one.ratio_spread, ms=one.ms, refused=one.ratio_refused)
            print(row["case"], one.ratio, one.ratio_spread, one.ratio_refused, flush=True)
    write_json(args.results, rows)


def main() -> None:
    """Command line."""
    parser = options(__doc__ or "")
    parser.set_defaults(results=HERE / "equal_time.json")
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--weights", type=Path, help="state dict of a trained network")
    parser.add_argument("--images", help="folder with train/ and test/")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--dense-epochs", type=float, default=12)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--cache", default="cache", help="folder for networks that are trained here")
    parser.add_argument("--time", action="store_true", help="time the files of all rows")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.table:
        from times_report import write_times

        print(write_times(args.results.parent))
        return
    if args.time:
        clocked(args)
        return
    for seed in range(args.seeds):
        for name in args.networks:
            for method in args.methods:
                rows = json.loads(args.results.read_text()) if args.results.exists() else []
                if not any(r["case"] == f"{name}, {method}, seed {seed}" for r in rows):
                    add_row(args.results, run(name, method, seed, args), args)


if __name__ == "__main__":
    main()
