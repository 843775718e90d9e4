"""LeNet5-Caffe and the MLP on real MNIST: dense training, then `optimize` to a params target.

python benchmarks/mnist.py lenet --data-root PATH --target 0.15
python benchmarks/mnist.py mlp --data-root PATH --target 0.25
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import kept, parser, record, say, train_dense, weights_removed

import snnprune


def main() -> None:
    args = parser(__doc__ or "", seeds=1)
    args.add_argument("network", choices=["lenet", "mlp"])
    args.add_argument("--data-root", default="data")
    args.add_argument("--target", type=float, nargs="+", default=[0.15])
    args.add_argument("--dense-epochs", type=float, default=12)
    args.add_argument("--epochs", type=float, default=12)
    args.add_argument("--lr", type=float, default=0.05)
    args.add_argument("--scores", default="switcher+offset")
    options = args.parse_args()
    from lenet import lenet5_caffe
    from mlp import mlp

    make = {"lenet": lenet5_caffe, "mlp": mlp}[options.network]
    rows = []
    for seed in range(options.seeds):
        train, val, test = snnprune.load_data(
            "mnist", options.data_root, batch_size=128, augment=False, seed=seed, download=False
        )
        import torch

        torch.manual_seed(seed)
        steps = round(options.dense_epochs * len(train))
        dense = train_dense(make(), train, steps=steps, lr=options.lr, device=options.device, seed=seed)
        say(options.network, "seed", seed, "dense", snnprune.evaluate(dense, val))
        for share in options.target:
            config = snnprune.PruneConfig(
                target={"params": share},
                epochs=options.epochs,
                lr=options.lr,
                seed=seed,
                search=snnprune.SearchOptions(scores=options.scores),
                round_to=1,
            )
            result = snnprune.optimize(dense, train, val, config, test=test, device=options.device)
            report = result.report
            row = {
                "network": options.network,
                "seed": seed,
                "target": share,
                "dense": report.dense.accuracy,
                "compact": report.compact.accuracy,
                "params": report.compact.params / report.dense.params,
                "macs": report.compact.macs / report.dense.macs,
                "weights_removed": weights_removed(dense, result.model),
                "kept": kept(result),
                "steps": {"dense": steps, **report.steps},
                "seconds": report.seconds,
                "exactness": report.exactness,
            }
            rows.append(row)
            say(row)
    record(options.results, "mnist", rows, options)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
