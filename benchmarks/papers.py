"""The papers' own experiments, as published: fresh weights, free mode, no fine-tuning.

    python benchmarks/papers.py mlp --data-root DIR --runs 4
    python benchmarks/papers.py mlp --data-root DIR --separate
    python benchmarks/papers.py mlp --data-root DIR --together
    python benchmarks/papers.py lenet --data-root DIR --connections
    python benchmarks/papers.py vgg_cov2 --data cifar10 --data-root DIR --epochs 60 --device cuda
    python benchmarks/papers.py vgg16 --pace
    python benchmarks/papers.py --table

Rows go into papers.json; a run that is there already is not repeated. `--table` writes papers.md and, with
matplotlib, the figures.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

from common import HERE, kept, parser, train_dense, weights_removed
from published import AS_JPEG, KNOWN, PAPERS, STD

import snnprune
from snnprune.files import write_json
from snnprune.runs.report import device_name, versions

RESULTS = HERE / "papers.json"
_NEAR = 0.01  # mean pixels of a tenth of the images


def network(name: str, seed: int) -> Any:
    """A network with fresh weights, from a file in models/."""
    import importlib

    import torch

    file, function = PAPERS[name].make.split(":")
    torch.manual_seed(seed)
    return getattr(importlib.import_module(file), function)(**dict(PAPERS[name].kwargs))


def one_run(name: str, mode: str, seed: int, options: Any) -> dict[str, Any]:
    """Train as published; what came out, beside a network trained equally long without a switcher."""
    named = PAPERS[name].data
    train, val, test = snnprune.load_data(
        options.data or named,
        options.data_root,
        batch_size=64,
        augment=named != "mnist",
        seed=seed,
        download=False,
    )
    check_data(named, options.data or named, val)
    steps = round(options.epochs * len(train))
    dense = network(name, seed)
    trained = train_dense(network(name, seed), train, steps=steps, lr=0.05, device=options.device, seed=seed)
    baseline = snnprune.evaluate(trained, test).accuracy
    if mode == "separate":
        dense = trained.requires_grad_(False)
    config = config_of(
        mode, seed, epochs=options.epochs, separate_std=options.separate_std, fresh_mean=options.fresh_mean
    )
    before = network(name, seed)
    result = snnprune.optimize(dense, train, val, config, test=test, device=options.device)
    report = result.report
    row: dict[str, Any] = {
        "accuracy": report.compact.accuracy,
        "baseline": baseline,
        "removed": weights_removed(before, result.model),
        "fc_removed": fc_removed(before, result.model),
        "kept": kept(result),
        "groups": report.groups,
        "history": [h for h in report.history if "counts" in h],
        "scales": {n: [round(v, 4) for v in s.tolist()] for n, s in result.scales.items() if len(s) <= 1000},
        "epochs": options.epochs,
        "seconds": report.seconds,
        "exactness": report.exactness,
    }
    return row


def config_of(
    mode: str, seed: int, *, epochs: float, separate_std: float, fresh_mean: float | None = None
) -> snnprune.PruneConfig:
    """Options of a way of learning."""
    settings: dict[str, Any] = {"epochs": epochs, "seed": seed}
    search: dict[str, Any] = {"patience": None}
    if mode == "separate":
        search |= {"fresh_mean": 1.0, "fresh_std": separate_std}
    if mode == "connections":
        settings |= {"granularity": "connection"}
    if mode == "together":  # fresh and free as published, but learned by our loop
        settings |= {"lr": 0.05, "weight_decay": 5e-4, "recovery": {"momentum": 0.9}}
        search |= {"alternate": "together", "fresh_mean": 0.0}
    if fresh_mean is not None:
        search |= {"fresh_mean": fresh_mean}
    return snnprune.PruneConfig.paper(search=search, **settings)


def source_of(name: str, given: str | None) -> str:
    """Which data a row is of: images in a folder are taken for JPEG files, in an .npz they are the pixels."""
    if given is not None and Path(given).is_dir() and PAPERS[name].data in KNOWN:
        return f"{PAPERS[name].data}{AS_JPEG}"
    return PAPERS[name].data


def check_data(named: str, given: str, val: Any) -> None:
    """Refuse data that are not the paper's, whose figures would stand beside published ones.

    Args:
        named: the paper's data.
        given: where these come from.
        val: their validation part, which is not augmented.

    Raises:
        SystemExit: shape, classes or mean pixels are not those of the paper's data.
    """
    if named not in KNOWN:
        return
    info = val.info
    total, count = 0.0, 0
    for x, _ in val:
        total, count = total + x.double().mean((2, 3)).sum(0), count + len(x)
    pixels = [float(m * s + c) for m, s, c in zip(total / count, info.std, info.mean, strict=True)]
    wanted = KNOWN[named]
    near = all(abs(a - b) <= _NEAR for a, b in zip(pixels, wanted.mean, strict=False))
    if (info.shape, len(info.classes)) != (wanted.shape, wanted.classes) or not near:
        found = ", ".join(f"{p:.3f}" for p in pixels)
        raise SystemExit(
            f"{given} is not {named}: images of {info.shape} in {len(info.classes)} classes with mean pixels "
            f"{found}. Give {named} itself."
        )


def fc_removed(dense: Any, compact: Any) -> float:
    """Share of the FC layers' weights that is gone or exactly 0."""
    from torch import nn

    def count(model: Any) -> int:
        return sum(int(m.weight.count_nonzero()) for m in model.modules() if isinstance(m, nn.Linear))

    return 1 - count(compact) / count(dense)


def of_old(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the options that were not written down when they could not differ."""
    return {"separate_std": STD, **row} if row["mode"] == "separate" else row


def main() -> None:
    """Command line."""
    args = parser(__doc__ or "")
    args.formatter_class = argparse.RawDescriptionHelpFormatter
    args.set_defaults(results=RESULTS)
    args.add_argument("network", nargs="?", choices=list(PAPERS))
    args.add_argument("--data", help="another source than the paper's name for it (a folder, an .npz)")
    args.add_argument("--data-root", default="data")
    args.add_argument("--epochs", type=float, default=20)
    args.add_argument("--runs", type=int, default=1)
    args.add_argument("--first", type=int, default=0, help="first seed")
    args.add_argument("--separate", action="store_true", help="switcher only, on a trained and frozen network")
    args.add_argument("--separate-std", type=float, default=STD)
    args.add_argument("--fresh-mean", type=float, help="of the scores at the start, below 0 for more compression")
    args.add_argument("--together", action="store_true", help="both at every step, with momentum and weight decay")
    args.add_argument("--connections", action="store_true", help="arXiv 2103.15590: single connections")
    args.add_argument("--pace", action="store_true", help="time some steps, for papers.md's plan, and run nothing")
    args.add_argument("--table", action="store_true")
    options = args.parse_args()
    import torch

    chosen = [m for m in ("separate", "together", "connections") if getattr(options, m)]
    if len(chosen) > 1:
        args.error("choose one of --separate, --together and --connections")
    mode = chosen[0] if chosen else "joint"
    stamp = {
        "date": datetime.date.today().isoformat(),
        "device": device_name(torch.device(options.device)),
        "versions": versions(),
    }
    if options.pace:
        if options.network is None:
            args.error("--pace times one network: name it")
        from papers_states import measure_pace

        measure_pace(options.network, mode, stamp, options.device)
        return
    for seed in range(options.first, options.first + options.runs) if options.network else ():
        rows = json.loads(options.results.read_text()) if options.results.exists() else []
        key: dict[str, Any] = {"network": options.network, "mode": mode, "seed": seed, "epochs": options.epochs}
        key |= {"fresh_mean": options.fresh_mean, "data": source_of(options.network, options.data)}
        if mode == "separate":
            key["separate_std"] = options.separate_std
        if any(all(of_old(r).get(k) == v for k, v in key.items()) for r in rows):
            continue
        row = {**key, **one_run(options.network, mode, seed, options), **stamp}
        rows = json.loads(options.results.read_text()) if options.results.exists() else []
        write_json(options.results, [*rows, row])
        print(
            {k: row[k] for k in ("network", "mode", "seed", "accuracy", "baseline", "removed", "kept", "seconds")}
        )
    if options.table or not options.network:
        from papers_report import write_papers

        print(write_papers(options.results, HERE))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
