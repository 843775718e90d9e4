"""How much of the MACs' reduction arrives as speed in ONNX Runtime.

    python benchmarks/speed/onnx_speed.py resnet18 mobilenet_v2
    python benchmarks/speed/onnx_speed.py resnet18 --provider cuda --batch 32
    python benchmarks/speed/onnx_speed.py --table

Every network is cut to the same share of its MACs by the norms of its (untrained) weights: by us with widths as
they come, rounded to multiples of 8 and of 16, and by torch-pruning's own magnitude pruner with one ratio for all
layers; and by us to the same share of its time, by `latency=`. All files of a network are timed in turn, call by
call. *yield* is speed-up over MACs reduction (ideal: 1).
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
import torchvision
from steps import add_row, options
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import snnprune
from snnprune.budget import Latency
from snnprune.metrics import count_macs, count_params
from snnprune.pipeline.latency import LatencySearch
from snnprune.pipeline.setting import Setting
from snnprune.switching import Options, switch_neurons
from snnprune.timing import Serving
from snnprune.timing.bench import bench_onnx

NETWORKS = ("resnet18", "mobilenet_v2")
SHARES = (0.5, 0.25)
ROUNDINGS = (1, 8, 16)


def ours(model: nn.Module, example: torch.Tensor, share: float, round_to: int) -> nn.Module:
    """Cut by our threshold over the norms."""
    with snnprune.attach(copy.deepcopy(model), example, round_to=round_to, floor=0.05) as gated:
        gated.set_budget({"macs": share})
        return gated.compact().eval()


def timed(model: nn.Module, example: torch.Tensor, shares: Sequence[float], serving: Serving) -> list[nn.Module]:
    """Cut to shares of the dense time by our threshold over the norms, corrected by the clock as in every run."""
    images = DataLoader(TensorDataset(example, torch.zeros(len(example), dtype=torch.long)), len(example))
    found = []
    for share in shares:
        config = snnprune.PruneConfig(target={"latency": share}, floor=0.05, serving=serving)
        cpu = torch.device("cpu")
        setting = Setting(copy.deepcopy(model), images, None, None, config, cpu, example_inputs=example)
        search = LatencySearch(setting, Latency(share, None), None, resume=False)
        search.ready()
        options = Options(floor=0.05, round_to=8)
        with switch_neurons(copy.deepcopy(model), setting.groups, setting.cost, options) as gated:
            search.settle(gated)
            found.append(gated.compact().eval())
    return found


def theirs(model: nn.Module, example: torch.Tensor, share: float) -> nn.Module:
    """Cut by torch-pruning, its ratio found by bisection so that the MACs just fit."""
    dense = count_macs(model, example)
    low, high, best = 0.0, 0.95, model
    for _ in range(9):
        ratio = (low + high) / 2
        clone = copy.deepcopy(model)
        outputs: list[nn.Module] = [m for m in clone.modules() if isinstance(m, nn.Linear)]
        pruner = tp.pruner.MagnitudePruner(
            clone, example, importance=tp.importance.MagnitudeImportance(p=2), pruning_ratio=ratio,
            ignored_layers=outputs,
        )  # fmt: skip
        pruner.step()
        if count_macs(clone, example) <= share * dense:
            high, best = ratio, clone
        else:
            low = ratio
    return best.eval()


def measure(name: str, args: Any) -> list[dict[str, Any]]:
    """Rows of one network."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)().eval()
    example = torch.randn(2, 3, 224, 224)
    dense, params = count_macs(model, example), count_params(model)
    small = {"dense": model}
    serving = Serving(engine=args.provider, batch=args.batch, threads=args.threads)
    for share, cut in zip(SHARES, timed(model, example, SHARES, serving), strict=True):
        small[f"latency {share:g}"] = cut
    for share in SHARES:
        for multiple in ROUNDINGS:
            small[f"macs {share:g}, multiples of {multiple}"] = ours(model, example, share, multiple)
        small[f"macs {share:g}, torch-pruning"] = theirs(model, example, share)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, network in enumerate(small.values()):
            paths.append(Path(folder) / f"{number}.onnx")
            snnprune.export_onnx(network, paths[-1], example)
        found = bench_onnx(
            paths, batch_sizes=[args.batch], engine=args.provider, calls=args.calls, threads=args.threads
        )
    rows = []
    for (case, network), latency in zip(small.items(), found, strict=True):
        if latency.ratio is None:
            raise SystemExit(f"{name}, {case}: {latency.ratio_refused}")
        share = count_macs(network, example) / dense
        speed_up = 1 / latency.ratio
        rows.append(
            {
                "benchmark": "onnx",
                "case": f"{name}, {case}",
                "batch": args.batch,
                "provider": latency.provider,
                "macs": share,
                "params": count_params(network) / params,
                "median_ms": latency.median_ms,
                "p10_ms": latency.p10_ms,
                "p90_ms": latency.p90_ms,
                "speed_up": speed_up,
                "spread": latency.ratio_spread,
                "yield": speed_up * share,
            }
        )
    return rows


def main() -> None:
    """Command line."""
    parser = options(__doc__ or "")
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--provider", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--calls", type=int)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.table:
        from speed_report import write_speed

        print(write_speed(args.results))
        return
    args.device = args.provider
    for name in args.networks or NETWORKS:
        for row in measure(name, args):
            add_row(args.results, row, args)


if __name__ == "__main__":
    main()
