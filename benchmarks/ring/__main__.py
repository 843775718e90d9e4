"""The ring: ours against torch-pruning and against free scales, at equal cost and equal training steps.

Every method starts from the same network, sees the same batches in the same order, and spends the same
number of steps with the same optimiser and schedule. Its knobs are chosen on the validation data of a
seed of their own; then it runs on other seeds, and the test data are looked at once. A row that is in the
results already is not run again, so a long experiment can be stopped and gone on with.

    python benchmarks/ring mlp --mnist FOLDER
    python benchmarks/ring resnet20 --weights resnet20.pt --images FOLDER --target 0.5
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

import torch  # noqa: E402
from methods import VARIANTS, choices, first_knobs, methods, recipe, run  # noqa: E402
from table import write_report  # noqa: E402
from tasks import TASKS, Bout, prepare  # noqa: E402

from snnprune.files import write_json  # noqa: E402
from snnprune.runs.report import device_name, versions  # noqa: E402

TUNING_SEED = 100
RESULTS = HERE / "results"


class Book:
    """Results on file; every row is written as soon as it is there."""

    def __init__(self, path: Path, stamp: dict[str, Any]) -> None:
        self.path, self.stamp = path, stamp

    def find(self, **key: Any) -> dict[str, Any] | None:
        """The row of this method, target, seed and these knobs, if it was run."""
        rows = json.loads(self.path.read_text()) if self.path.exists() else []
        return next((r for r in rows if all(r.get(k) == v for k, v in key.items())), None)

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        rows = json.loads(self.path.read_text()) if self.path.exists() else []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, [*rows, {**self.stamp, **row}])


def measure(
    book: Book, bouts: dict[int, Bout], options: argparse.Namespace, method: str, share: float, seed: int,
    knobs: dict[str, Any], kind: str,
) -> dict[str, Any]:  # fmt: skip
    """A row from the book, or from a run."""
    key = {"task": options.task, "target": share, "method": method, "seed": seed, "knobs": knobs, "kind": kind}
    key |= {"steps": TASKS[options.task].steps, "recipe": recipe(TASKS[options.task], method)}
    known = book.find(**key)
    if known is not None:
        return known
    if seed not in bouts:
        bouts.clear()  # one data set in memory
        bouts[seed] = prepare(options.task, seed, options)
    row = {**key, **run(bouts[seed], method, share, knobs, final=kind == "final")}
    book.add(row)
    print(json.dumps({k: v for k, v in row.items() if k not in ("kept", "exactness")}), flush=True)
    return row


def tune(book: Book, bouts: dict[int, Bout], options: argparse.Namespace, method: str, share: float) -> Any:
    """Knob by knob, the best on the validation data; rows beyond the budget do not count."""
    knobs = first_knobs(TASKS[options.task], method)
    for knob, values in choices(TASKS[options.task], method):
        rows = [
            measure(book, bouts, options, method, share, TUNING_SEED, {**knobs, knob: value}, "tune")
            for value in values
        ]
        knobs = max(rows, key=lambda row: (row["in_budget"], row["val"]))["knobs"]
    return knobs


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=list(TASKS))
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
    if options.task:
        stamp = {
            "date": datetime.date.today().isoformat(),
            "device": device_name(torch.device(options.device)),
            "versions": versions(),
        }
        book, bouts = Book(options.results / f"{options.task}.json", stamp), {}
        task = TASKS[options.task]
        for share in options.target or task.targets:
            if options.ablate:
                for seed in range(TUNING_SEED, TUNING_SEED + options.seeds):
                    for method in ["switcher", *(options.method or list(VARIANTS)[1:])]:
                        knobs = first_knobs(task, method)
                        measure(book, bouts, options, method, share, seed, knobs, "tune")
                continue
            chosen = {m: tune(book, bouts, options, m, share) for m in options.method or methods(task)}
            for seed in range(options.seeds):
                for method, knobs in chosen.items():
                    measure(book, bouts, options, method, share, seed, knobs, "final")
    if options.table or not options.task:
        print(write_report([options.results / f"{name}.json" for name in TASKS], HERE))


if __name__ == "__main__":
    main()
