"""Digits: ours against the dense network trained equally long, over several seeds.

    python benchmarks/digits.py --seeds 5

Every seed trains its own dense network; from there one copy trains on as it is, the other goes through
`optimize` with as many steps.
"""

from __future__ import annotations

import copy
import statistics
from typing import Any

import torch
from common import kept, parser, record, say, train_dense

import snnprune


def main() -> None:
    options = parser(__doc__ or "", seeds=5)
    options.add_argument("--target", type=float, default=0.3, help="kept share of the parameters")
    options.add_argument("--epochs", type=float, default=20)
    options.add_argument("--scores", default="switcher+offset")
    args = options.parse_args()
    from digits_cnn import digits_cnn

    rows: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        train, val, test = snnprune.load_data("digits", batch_size=64, seed=seed)
        torch.manual_seed(seed)
        dense = train_dense(digits_cnn(), train, steps=30 * len(train), lr=0.05, seed=seed)
        longer = train_dense(
            copy.deepcopy(dense), train, steps=round(args.epochs * len(train)), lr=0.05, seed=seed + 100
        )
        config = snnprune.PruneConfig(
            target={"params": args.target},
            epochs=args.epochs,
            seed=seed,
            round_to=1,
            search=snnprune.SearchOptions(scores=args.scores),
        )
        result = snnprune.optimize(dense, train, val, config, test=test)
        rows.append(
            {
                "seed": seed,
                "dense": snnprune.evaluate(dense, test).accuracy,
                "dense_equally_long": snnprune.evaluate(longer, test).accuracy,
                "compact": result.report.compact.accuracy,
                "params": result.report.compact.params / result.report.dense.params,
                "macs": result.report.compact.macs / result.report.dense.macs,
                "kept": kept(result),
                "seconds": result.report.seconds,
            }
        )
        say(rows[-1])
    lost = [100 * (r["dense_equally_long"] - r["compact"]) for r in rows]
    spread = statistics.stdev(lost) if len(lost) > 1 else 0.0
    say(f"points lost against dense trained equally long: mean {statistics.mean(lost):.2f} +- {spread:.2f}")
    record(args.results, "digits", rows, args)


if __name__ == "__main__":
    main()
