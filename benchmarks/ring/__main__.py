"""The ring: ours against torch-pruning and against free scales, at equal cost and equal training steps.

Every method starts from the same network, sees the same batches in the same order, and spends the same
number of steps with the same optimiser and schedule. Its knobs are chosen on the validation data of a
seed of their own; then it runs on other seeds, and the test data are looked at once. A row that is in the
results already is not run again, so a long experiment can be stopped and gone on with.

    python benchmarks/ring mlp --mnist FOLDER
    python benchmarks/ring resnet20 --weights resnet20.pt --images FOLDER --target 0.5
    python benchmarks/ring resnet20-pixels --weights resnet20.pt --images cifar10.npz --epochs 1
    python benchmarks/ring dense resnet56 --images cifar10.npz --dense-epochs 100
    python benchmarks/ring resnet56 --images cifar10.npz --epochs 20
    python benchmarks/ring --table
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "models")]

import dense  # noqa: E402
import torch  # noqa: E402
from book import Book  # noqa: E402
from methods import VARIANTS, choices, first_knobs, methods, recipe, run, untuned_knobs  # noqa: E402
from table import current, write_report  # noqa: E402
from tasks import LENGTHS, TASKS, Bout, prepare, task_of  # noqa: E402

from snnprune.runs.report import device_name, versions  # noqa: E402

TUNING_SEED = 100
RESULTS = HERE / "results"


def measure(
    book: Book, bouts: dict[int, Bout], options: argparse.Namespace, method: str, share: float, seed: int,
    knobs: dict[str, Any], kind: str,
) -> dict[str, Any]:  # fmt: skip
    """A row from the book, or from a run."""
    key = {"task": options.task, "target": share, "method": method, "seed": seed, "knobs": knobs, "kind": kind}
    task = task_of(options.task, options)
    key |= {"steps": task.steps, "recipe": recipe(task, method)}
    if task.epochs:
        key["epochs"] = task.epochs
    key["trainer"] = "untuned" if options.untuned else None
    if seed not in bouts:
        bouts.clear()  # one data set in memory
        bouts[seed] = prepare(options.task, seed, options)
        same = [r for r in book.rows() if (r["task"], r["seed"]) == (options.task, seed) and current(r)]
        bouts[seed].check(same)
    known = book.find(**key)
    if known is not None:
        return known
    other = book.find(**{name: value for name, value in key.items() if name != "knobs"})
    if kind == "final" and other is not None:
        raise SystemExit(
            f"{method} was run on the test data of seed {seed} with {other['knobs']}, and {knobs} are chosen now: "
            "a second look would choose by them. Take other seeds (--first-seed), or the knobs as they were."
        )
    row = {**key, **bouts[seed].origin, **run(bouts[seed], method, share, knobs, final=kind == "final")}
    book.add(row)
    print(json.dumps({k: v for k, v in row.items() if k not in ("kept", "exactness")}), flush=True)
    return row


def tune(book: Book, bouts: dict[int, Bout], options: argparse.Namespace, method: str, share: float) -> Any:
    """Knob by knob, the best on the validation data; rows beyond the budget do not count."""
    task = task_of(options.task, options)
    knobs = first_knobs(task, method)
    for knob, values in choices(task, method):
        rows = [
            measure(book, bouts, options, method, share, TUNING_SEED, {**knobs, knob: value}, "tune")
            for value in values
        ]
        knobs = max(rows, key=lambda row: (row["in_budget"], row["val"]))["knobs"]
    return knobs


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="*", help=f"{', '.join(TASKS)}; or dense and one that we train ourselves")
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=[LENGTHS[0]],
        help="lengths of rows, of tasks in original pixels; 1, 5, 20 and 100 are meant",
    )  # fmt: skip
    parser.add_argument("--dense-epochs", type=int, default=100, help="of `dense`")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--untuned", action="store_true", help="knobs where tuning would start, all distilled")
    parser.add_argument("--target", type=float, nargs="+", help="kept shares; by default those of the task")
    parser.add_argument("--method", nargs="+", help="by default all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--ablate", action="store_true", help="variants of ours, on the validation data of tuning seeds"
    )
    parser.add_argument("--mnist", default="data", help="folder that torchvision's MNIST lies in")
    parser.add_argument("--images", default="data/cifar10", help="CIFAR-10: folder with train/ and test/, or .npz")
    parser.add_argument("--weights", default="resnet20.pt", help="state dict of a ResNet-20 for CIFAR-10")
    parser.add_argument("--cache", default=".ring", help="folder for the dense networks")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with a file per task")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="write the report from the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    words, options.task = options.task, options.task[-1] if options.task else None
    ours = [name for name, task in TASKS.items() if task.held]
    if options.task and (options.task not in TASKS or words[:-1] not in ([], ["dense"])):
        parser.error(f"{' '.join(words)}: give one of {', '.join(TASKS)}, or dense and one of {', '.join(ours)}")
    if words[:-1] and options.task not in ours:
        parser.error(f"dense makes {', '.join(ours)}; {options.task} makes its own when it is first asked for")
    if words[:-1]:
        dense.train(options.task, TASKS[options.task], options, epochs=options.dense_epochs)
    elif options.task:
        stamp = {
            "date": datetime.date.today().isoformat(),
            "device": device_name(torch.device(options.device)),
            "versions": versions(),
        }
        book = Book(options.results / f"{options.task}.json", stamp)
        for length in options.epochs if TASKS[options.task].per_epoch else [0]:
            options.length = length
            hold(book, options)
    if options.table or not options.task:
        files = [options.results / f"{name}.json" for name in [*TASKS, "gpu"]]
        print(write_report(files, HERE))


def hold(book: Book, options: argparse.Namespace) -> None:
    """All rows of one length."""
    task, bouts = task_of(options.task, options), {}
    for share in options.target or task.targets:
        if options.ablate:
            for seed in range(TUNING_SEED, TUNING_SEED + options.seeds):
                for method in ["switcher", *(options.method or list(VARIANTS)[1:])]:
                    knobs = first_knobs(task, method)
                    measure(book, bouts, options, method, share, seed, knobs, "tune")
            continue
        chosen = {}
        for method in options.method or methods(task):
            untuned = untuned_knobs(task, method) if options.untuned else None
            chosen[method] = untuned or tune(book, bouts, options, method, share)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for method, knobs in chosen.items():
                measure(book, bouts, options, method, share, seed, knobs, "final")


if __name__ == "__main__":
    main()
