"""A real pretrained ResNet-20 on CIFAR-10: ours against one-shot L2-norm pruning by torch-pruning.

Every row starts from the same network and spends the same number of training steps at the same peak
learning rate, batch size, weight decay and cosine. The network is first adapted to the pixels at hand
(`--adapt` steps); that is the dense reference. `dense` is the same network trained on for as long.

    python benchmarks/resnet20_cifar10.py --weights resnet20.pt --data FOLDER
"""

from __future__ import annotations

import argparse
import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from common import kept, parser, record, say, train_dense
from torch import nn

import snnprune
from snnprune.files import write_atomically
from snnprune.learner import TaskLoss
from snnprune.learner.optim import cosine
from snnprune.metrics import count_macs, count_params
from snnprune.registry import load_model


def torch_pruning_one_shot(
    model: nn.Module, example: torch.Tensor, share: float, *, spread: bool, streams: bool
) -> nn.Module:
    """torch-pruning's L2-norm pruner, its ratio found by bisection so that the MACs just fit.

    Args:
        model: copied.
        example: a batch.
        share: kept share of the MACs.
        spread: one ranking over all layers (global) instead of the same ratio in each (local).
        streams: also prune the residual streams. torch-pruning does not know that option-A shortcuts
            shift the channels, so this is not exact before the fine-tuning.
    """
    import torch_pruning as tp

    dense = count_macs(model, example)

    def pruned(ratio: float) -> nn.Module:
        clone = copy.deepcopy(model)
        ignored: list[nn.Module] = [clone.linear]  # type: ignore[list-item]
        if not streams:
            ignored += [m for n, m in clone.named_modules() if n == "conv1" or n.endswith(".conv2")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = tp.pruner.BasePruner(
                clone,
                example,
                importance=tp.importance.GroupMagnitudeImportance(p=2),
                global_pruning=spread,
                pruning_ratio=ratio,
                max_pruning_ratio=0.9,
                ignored_layers=ignored,
            )
            pruner.step()
        return clone

    low, high = 0.0, 0.95
    for _ in range(12):
        middle = (low + high) / 2
        if count_macs(pruned(middle), example) <= share * dense:
            high = middle
        else:
            low = middle
    return pruned(high)


def fine_tune(
    model: nn.Module, train: Any, teacher: nn.Module | None, args: argparse.Namespace, seed: int, lr: float
) -> nn.Module:
    """The recovery of `optimize`, step for step, for a rival's network."""
    loss_of = TaskLoss(teacher, distill=0.9 if teacher else 0.0, temperature=2.0)
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    model.to(args.device).train()
    for step in range(args.steps):
        epoch, at = divmod(step, len(train))
        if at == 0:
            batches = train.batches(epoch)
        x, y = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = lr * cosine(step, args.steps, 0.05)
        loss = loss_of(model, (x.to(args.device), y.to(args.device)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    return model.eval()


def main() -> None:
    options = parser(__doc__ or "", seeds=1)
    options.add_argument("--weights", required=True, help="state dict of the pretrained ResNet-20")
    options.add_argument("--data", required=True, help="folder with train/<class> and test/<class>")
    options.add_argument("--adapt", type=int, default=400, help="steps that make the dense reference")
    options.add_argument("--steps", type=int, default=400, help="training steps of every row")
    options.add_argument("--target", type=float, default=0.5, help="kept share of the MACs")
    options.add_argument("--lr", type=float, nargs="+", default=[0.05], help="peaks; the best on val is taken")
    options.add_argument("--scores", nargs="+", default=["switcher+offset"])
    options.add_argument("--adapted", default="", help="keep the adapted networks under this path, to go on later")
    options.add_argument("--option", nargs="*", default=[], help="further options of the search: share=0.1 ...")
    options.add_argument(
        "--only", nargs="+", choices=["ours", "rivals", "dense"], default=["ours", "rivals", "dense"]
    )
    options.add_argument("--first-seed", type=int, default=0)
    args = options.parse_args()
    models = Path(__file__).resolve().parent.parent / "models" / "resnet.py"
    pretrained = load_model(args.weights, arch=f"{models}:resnet20").model
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        train, val, test = snnprune.load_data(args.data, batch_size=128, seed=seed)
        say("before adapting", snnprune.evaluate(pretrained, test))
        cache = Path(f"{args.adapted}-{args.adapt}-{seed}.pt") if args.adapted else None
        if cache and cache.exists():
            dense = load_model(cache, arch=f"{models}:resnet20").model.to(args.device)
        else:
            dense = train_dense(
                copy.deepcopy(pretrained), train, steps=args.adapt, lr=0.02, device=args.device, seed=seed
            )
            if cache:
                state = dense.state_dict()
                write_atomically(cache, lambda p, state=state: torch.save(state, p))
        base = snnprune.evaluate(dense, test)
        say("dense reference", base)
        example = next(iter(val))[0][:2].to(args.device)
        macs, params = count_macs(dense, example), count_params(dense)

        def note(
            name: str,
            lr: float,
            model: nn.Module,
            start: float,
            *,
            base: Any = base,
            seed: int = seed,
            val: Any = val,
            test: Any = test,
            macs: int = macs,
            params: int = params,
            example: torch.Tensor = example,
            **more: Any,
        ) -> None:
            row = {
                "row": name,
                "seed": seed,
                "lr": lr,
                "dense": base.accuracy,
                "after_removal_val": start,
                "val": snnprune.evaluate(model, val).accuracy,
                "test": snnprune.evaluate(model, test).accuracy,
                "macs": count_macs(model, example) / macs,
                "params": count_params(model) / params,
                **more,
            }
            record(args.results, "resnet20_cifar10", [row], args)
            say(row)

        for lr in args.lr:
            for scores in args.scores if "ours" in args.only else []:
                config = snnprune.PruneConfig(
                    target={"macs": args.target},
                    epochs=args.steps / len(train),
                    lr=lr,
                    seed=seed,
                    round_to=1,
                    search=snnprune.SearchOptions(
                        scores=scores, **{k: float(v) for k, v in (o.split("=") for o in args.option)}
                    ),
                )
                result = snnprune.optimize(dense, train, val, config, device=args.device)
                searched = [h for h in result.report.history if h["stage"] == "search"]
                start = searched[-1]["val_accuracy"] if searched else float("nan")
                steps = sum(result.report.steps.values())
                assert steps == args.steps, steps
                note(
                    f"ours, {scores}",
                    lr,
                    result.model,
                    start,
                    kept=kept(result),
                    seconds=result.report.seconds,
                )
            variants = {
                "torch-pruning L2, local, streams kept": {"spread": False, "streams": False},
                "torch-pruning L2, global, streams kept": {"spread": True, "streams": False},
                "torch-pruning L2, local, as it is": {"spread": False, "streams": True},
            }
            for name, kind in variants.items() if "rivals" in args.only else ():
                try:
                    pruned = torch_pruning_one_shot(dense, example, args.target, **kind)
                except RuntimeError as error:  # what it prunes at zero-padded shortcuts need not run
                    failed = {"row": name, "seed": seed, "failed": str(error).splitlines()[0]}
                    record(args.results, "resnet20_cifar10", [failed], args)
                    say(failed)
                    continue
                start = snnprune.evaluate(pruned, val).accuracy
                for teacher in (None, dense):
                    tuned = fine_tune(copy.deepcopy(pruned), train, teacher, args, seed, lr)
                    note(name + (", distilled" if teacher else ""), lr, tuned, start)
            if "dense" in args.only:
                longer = fine_tune(copy.deepcopy(dense), train, None, args, seed, lr)
                note("dense, trained on", lr, longer, base.accuracy)


if __name__ == "__main__":
    main()
