"""All methods and seeds of ResNet-56 at 40 epochs, at once on one GPU, in ten minutes at most.

    python benchmarks/ring/gpu.py --images cifar10.npz --cache .ring --results benchmarks/ring/results/gpu.json
    python benchmarks/ring/gpu.py --tiny --images cifar10.npz --results /tmp/try.json   # tries the script out

Ready to run, not measured: it was tried out on a CPU with a tiny network and 16 steps (`--tiny`) alone. CUDA
graphs and streams take the place of plain steps on a GPU, and no GPU has run them yet.

A small network's step is bound by launches (28 ms of a step of ResNet-56 on an H100, and twelve processes beside
one another reach 4 steps a second each), so nothing of a step is launched one by one. The images lie on the GPU as
bytes. Order, shifts and mirror images of every step of a seed, and what the dense network says of them, are tables
there, made once for all methods of the seed. Two CUDA graphs hold all of a step of one run: images, augmentation,
forward and backward pass in bfloat16 with channels last, and the update, with the rate from a table. Graphs read
the number of the step on the device, so runs go on side by side, each on a stream of its own, and the CPU only
starts graphs. Every run sees the same batches in the same order, each once, whatever its steps are spent on.

The look at the neurons, the search of ours and all cuts are the product's (`tracks.SEARCH` steps of search, so
that they do not take all of the ten minutes), torch-pruning's pruner as in the ring, in processes on
the CPU. torch-pruning's regularisers are Python and do not go into a graph: they run at every tenth step with ten
times the strength, between the graphs of gradients and update. All recover with the teacher, at one rate; nothing
is tuned.

It stops by its own clock: what is not done is in `--state` (pickled modules of its own; a folder that nobody else
writes to), and the same command goes on. Rows are appended as they come, seed by seed.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "models")]

import dense  # noqa: E402
import torch  # noqa: E402
from book import Book  # noqa: E402
from common import say  # noqa: E402
from methods import recipe  # noqa: E402
from resnet import CifarResNet  # noqa: E402
from rivals import RIVALS  # noqa: E402
from steps import Tables  # noqa: E402
from tasks import TASKS, Bout  # noqa: E402
from tracks import EPOCHS, OURS, TRAINER, Pool, Track  # noqa: E402

import snnprune  # noqa: E402
from snnprune.runs.report import device_name, versions  # noqa: E402

SAVED = 25.0  # seconds kept for saving


def bouts_of(options: argparse.Namespace, seeds: Sequence[int]) -> list[Bout]:
    """The dense network of our own, on the device; the seeds differ in their data's order alone."""
    task, on = TASKS["resnet56"].at(EPOCHS), torch.device(options.device)
    network = task.make()
    if options.tiny:
        torch.manual_seed(0)  # what is not done is of one dense network
        network = CifarResNet(1)
        held = {part: torch.arange(at * 64, (at + 1) * 64) for at, part in enumerate(("train", "val", "test"))}
        task = replace(task, make=partial(CifarResNet, 1), batch=16, steps=16)
    else:
        held = dense.load_(network, dense.place(options.cache, "resnet56"), options.images)
    network = network.to(on).eval()
    found, accuracy = [], None
    for seed in seeds:
        train, val, test = (
            data.on(on) for data in dense.loaders(options.images, held, batch_size=task.batch, seed=seed)
        )
        example = next(iter(val))[0][:2]
        accuracy = snnprune.evaluate(network, test).accuracy if accuracy is None else accuracy
        found.append(Bout(task, seed, network, train, val, test, example, accuracy))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="CIFAR-10 as .npz")
    parser.add_argument("--cache", default=".ring", help="folder with resnet56-dense.pt")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "gpu.json")
    parser.add_argument("--state", type=Path, default=None, help="folder for what is not done; beside the results")
    parser.add_argument("--target", type=float, default=0.47)
    parser.add_argument("--method", nargs="+", default=[*OURS, *RIVALS], choices=[*OURS, *RIVALS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--together", type=int, default=24, help="runs at once")
    parser.add_argument("--workers", type=int, default=12, help="processes for torch-pruning's cuts")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny network for a few steps, on the CPU")
    options = parser.parse_args(arguments)
    if options.tiny:
        options.device, options.workers = "cpu", 0
    end = time.monotonic() + 60 * options.minutes - (0 if options.tiny else SAVED)
    stamp = {"date": datetime.date.today().isoformat(), "versions": versions()}
    book = Book(options.results, {**stamp, "device": device_name(torch.device(options.device))})
    state = options.state or options.results.with_name(f"{options.results.stem}-state")
    pool = Pool(options.workers)
    try:
        left = hold(options, book, state, pool, end)
    finally:
        pool.close()
    say("done" if not left else f"{left} runs are not done: the same command goes on with them")


def hold(options: argparse.Namespace, book: Book, state: Path, pool: Pool, end: float) -> int:
    """All runs, as many at once as may be, until the clock says that it is time; returns how many are left."""
    waiting: list[tuple[Bout, str]] = []
    for bout in bouts_of(options, range(options.seeds)):
        key = {"seed": bout.seed, "target": options.target, "steps": bout.task.steps, "trainer": TRAINER}
        waiting += [
            (bout, method)
            for method in options.method
            if book.find(method=method, recipe=recipe(bout.task, method), **key) is None
        ]
    tables: dict[int, Tables] = {}
    tracks: list[Track] = []
    while (waiting or tracks) and time.monotonic() < end:
        while waiting and len(tracks) < options.together:
            bout, method = waiting.pop(0)
            if bout.seed not in tables:
                tables[bout.seed] = Tables(bout.train, bout.dense, bout.task.steps)
                say("tables of seed", bout.seed)
            place = state / f"{method.replace(' ', '-').replace(',', '')}-{bout.seed}-{options.target:g}.pt"
            tracks.append(Track(method, bout, tables[bout.seed], options.target, bout.task.steps, place))
        began = time.monotonic()
        for track in tracks:
            track.advance(pool)
            if time.monotonic() > end:
                break
        if options.device != "cpu":
            torch.cuda.synchronize()
        for track in tracks:
            track.seconds += (time.monotonic() - began) / len(tracks)
        if all(track.waiting is not None for track in tracks):
            time.sleep(0.05)
        for track in [track for track in tracks if track.ended]:
            tracks.remove(track)
            track.place.unlink(missing_ok=True)
            if track.failed:
                say(track.method, track.bout.seed, "failed:", track.failed)
                continue
            row = track.row()
            book.add(row)
            say({key: row[key] for key in ("method", "seed", "test", "macs", "seconds")})
    for track in tracks:
        track.save()
    return len(waiting) + len(tracks)


if __name__ == "__main__":
    main()
