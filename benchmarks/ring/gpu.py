"""All methods and seeds of ResNet-56 at 40 epochs, at once on one GPU, in ten minutes at most.

    python benchmarks/ring/gpu.py --images cifar10.npz --cache .ring --results benchmarks/ring/results/gpu.json
    python benchmarks/ring/gpu.py --tiny --images cifar10.npz --results /tmp/try.json   # tries the script out

Ready to run, not measured: it was tried out on a CPU with a tiny network and 16 steps (`--tiny`) alone. CUDA graphs
and streams take the place of plain steps on a GPU, and no GPU has run them yet.

A small network's step is bound by launches (28 ms of a step of ResNet-56 on an H100, and twelve processes beside one
another reach 4 steps a second each), so nothing of a step is launched one by one. The images lie on the GPU as bytes.
Order, shifts and mirror images of every step of a seed, and what the dense network says of them, are tables there,
made once for all methods of the seed. Two CUDA graphs hold all of a step of one run: images, augmentation, forward
and backward pass in bfloat16 with channels last, and the update, with the rate from a table. Graphs read the number
of the step on the device, so runs go on side by side, each on a stream of its own, and the CPU only starts graphs.

The search of ours and all cuts are the product's: `optimize` with all its steps in the search (`SEARCH` of them, so
that they do not take all of the ten minutes), torch-pruning's pruner as in the ring, in processes on the CPU.
torch-pruning's regularisers are Python and do not go into a graph: they run at every tenth step with ten times the
strength, between the graphs of gradients and update. All recover with the teacher, at one rate, and nothing is tuned.

It stops by its own clock: what is not done is in `--state` (pickled modules of its own; a folder that nobody else
writes to), and the same command goes on. Rows are appended as they come, seed by seed.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "models")]

import dense  # noqa: E402
import torch  # noqa: E402
from book import Book  # noqa: E402
from common import say  # noqa: E402
from methods import first_knobs, recipe  # noqa: E402
from resnet import CifarResNet  # noqa: E402
from rivals import GRADIENT_STEPS, LOOKING, RIVALS, cutter, way_of  # noqa: E402
from steps import Run, Tables  # noqa: E402
from tasks import TASKS, Bout  # noqa: E402

import snnprune  # noqa: E402
from snnprune.files import write_atomically  # noqa: E402
from snnprune.metrics import count_macs, count_params  # noqa: E402
from snnprune.rivals.rounds import lengths_of  # noqa: E402
from snnprune.rivals.sparse import GROWTHS  # noqa: E402
from snnprune.runs.report import device_name, versions  # noqa: E402

EPOCHS, SEARCH, RATE, TRAINER = 40, 100, 0.05, "gpu"
OURS: dict[str, dict[str, Any]] = {
    "switcher": {},
    "free scales": {"search": {"scores": "free"}},
    "norm, our threshold": {"search": {"scores": "norm"}},
}
EVERY, CHUNK = 10, 20  # steps between looks of a regulariser, and between looks at the clock
SAVED = 25.0  # seconds kept for saving


def plan_of(method: str, total: int) -> list[tuple[str, float, int]]:
    """Stages of a run: (what is done, kept share of the way or 0, steps); `total` steps together, whatever they do."""
    if method in OURS:
        search = 0 if method.startswith("norm") else min(SEARCH, total // 4)
        return [("search", 0.0, search), ("learn", 0.0, total - search)]
    rival = RIVALS[method]
    rounds = max(1, min(rival.rounds, total // 4))
    sparse = round(rival.share * total)
    looks = GRADIENT_STEPS * rounds if rival.importance in LOOKING else 0
    stages: list[tuple[str, float, int]] = [("sparse", 0.0, sparse)] if sparse else []
    for at, length in enumerate(lengths_of(total - sparse - looks, rounds)):
        stages += [("cut", (at + 1) / rounds, looks // rounds), ("learn", 0.0, length)]
    return stages


def searched(bout: Bout, method: str, share: float, steps: int) -> torch.nn.Module:
    """The network that our search leaves, not recovered: all steps go into the search."""
    options = dict(OURS[method])
    if steps:
        options["search"] = {"share": 1.0, **options.get("search", {})}
    config = snnprune.PruneConfig(
        target={"macs": share},
        epochs=max(1, steps) / len(bout.train),
        lr=RATE if steps else 1e-12,  # a criterion alone takes no step of its own, and a run has at least one
        seed=bout.seed,
        round_to=1,
        **options,
    )
    return snnprune.optimize(bout.dense, bout.train, bout.val, config, device=bout.example.device).model


def cut(
    bout: Bout, method: str, network: torch.nn.Module, share: float, knobs: dict[str, Any], threads: int
) -> torch.nn.Module:
    """torch-pruning's cut, in a process of its own on the CPU."""
    torch.set_num_threads(threads)
    return cutter(bout, method, network, share, knobs)(network, share).requires_grad_(True)


class Track:
    """One method of one seed on its way through its stages."""

    def __init__(self, method: str, bout: Bout, tables: Tables, share: float, total: int, place: Path) -> None:
        self.method, self.bout, self.tables, self.share, self.place = method, bout, tables, share, place
        self.stages = plan_of(method, total)
        self.knobs = {**first_knobs(bout.task, method), "lr": RATE}
        if method in RIVALS:
            self.knobs["teacher"] = True
        self.at, self.done, self.seconds = 0, 0, 0.0
        self.network: torch.nn.Module = copy.deepcopy(bout.dense)
        self.run: Run | None = None
        self.waiting: Future[torch.nn.Module] | None = None
        self.pruner: Any = None
        self.saved: dict[str, Any] | None = None
        if place.exists():
            self.saved = torch.load(place, weights_only=False, map_location=bout.example.device)
            self.at, self.done, self.network = self.saved["at"], self.saved["done"], self.saved["network"]
            self.seconds = self.saved["seconds"]

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.at == len(self.stages)

    def save(self) -> None:
        """What is needed to go on. A cut that is on its way, and sparse learning's growth, begin again."""
        content: dict[str, Any] = {"at": self.at, "done": self.done, "network": self.network.cpu(), "run": None}
        content["seconds"] = self.seconds
        if self.run is not None:
            content["run"] = self.run.state()
        self.place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.place, lambda path: torch.save(content, path))

    def advance(self, pool: ProcessPoolExecutor) -> None:
        """Begin or go on with the present stage, by at most `CHUNK` steps; does not wait for the GPU."""
        kind, way, steps = self.stages[self.at]
        if kind == "search":
            self.network = searched(self.bout, self.method, self.share, steps).requires_grad_(True)
            self._next(steps)
        elif kind == "cut":
            self._cut(pool, way, steps)
        elif self.run is None:
            rate = RATE / 2 if kind == "sparse" else RATE
            start = self.done
            self.run = Run(
                self.network, self.tables, start, steps, rate,
                decay=0.0 if kind == "sparse" else 5e-4, taught=kind != "sparse",
            )  # fmt: skip
            if self.saved is not None and self.saved["run"] is not None:
                self.run.load(self.saved["run"])
            self.saved = None
            if kind == "sparse":
                self.pruner = way_of(self.bout, self.method, self.network, self.knobs).pruner(
                    self.network, self.bout.example, (0.5, 0.5, 0)
                )
                self.pruner.reg *= EVERY
                if RIVALS[self.method].sparse == "growing":
                    self.pruner.delta_reg *= EVERY
                    self.pruner.update_regularizer()
        else:
            for _ in range(min(CHUNK, steps - self.run.step)):
                self.run.go(self._regularise if kind == "sparse" else None)
            if self.run.step == steps:
                self.network, self.run, self.pruner = self.run.finished(), None, None
                self._next(steps)

    def _next(self, steps: int) -> None:
        self.at, self.done = self.at + 1, self.done + steps

    def _cut(self, pool: ProcessPoolExecutor, way: float, steps: int) -> None:
        if self.waiting is None:
            bout = copy.copy(self.bout)
            bout.dense, bout.example = copy.deepcopy(bout.dense).cpu(), bout.example.cpu()
            bout.train = bout.train.on(torch.device("cpu"))
            bout.val = bout.test = None
            network = copy.deepcopy(self.network).cpu()
            kept = 1 - (1 - self.share) * way
            self.waiting = pool.submit(cut, bout, self.method, network, kept, self.knobs, 1)
        elif self.waiting.done():
            self.network = self.waiting.result().to(self.bout.example.device)
            self.waiting = None
            self._next(steps)

    def _regularise(self, step: int, steps: int) -> None:
        """torch-pruning's regulariser on the gradients that the graph has left, at every tenth step."""
        if step % EVERY == 0:
            self.pruner.regularize(self.network)
        if RIVALS[self.method].sparse == "growing":
            for _ in range(step * GROWTHS // steps, (step + 1) * GROWTHS // steps):
                self.pruner.update_reg()

    def row(self) -> dict[str, Any]:
        """As the ring's other rows; the test data are looked at now."""
        bout, network = self.bout, self.network.to(self.bout.example.device).eval()
        task = bout.task
        found: dict[str, Any] = {
            "task": "resnet56", "target": self.share, "method": self.method, "seed": bout.seed,
            "knobs": self.knobs, "kind": "final", "steps": task.steps, "recipe": recipe(task, self.method),
            "epochs": task.epochs, "trainer": TRAINER, "stages": self.stages, "seconds": round(self.seconds, 1),
            "val": round(snnprune.evaluate(network, bout.val).accuracy, 5),
            "test": round(snnprune.evaluate(network, bout.test).accuracy, 5),
            "dense_test": round(bout.accuracy, 5),
        }  # fmt: skip
        found["macs"] = round(count_macs(network, bout.example) / count_macs(bout.dense, bout.example), 5)
        found["params"] = round(count_params(network) / count_params(bout.dense), 5)
        found["in_budget"] = bool(abs(found["macs"] - self.share) <= 0.01)
        return found


def bouts_of(options: argparse.Namespace, seeds: Sequence[int]) -> list[Bout]:
    """The dense network of our own, on the device; the seeds differ in their data's order alone."""
    task, on = TASKS["resnet56"].at(EPOCHS), torch.device(options.device)
    network = task.make()
    if options.tiny:
        from dataclasses import replace

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
        options.device, options.workers = "cpu", 1
    end = time.monotonic() + 60 * options.minutes - (0 if options.tiny else SAVED)
    stamp = {"date": datetime.date.today().isoformat(), "versions": versions()}
    book = Book(options.results, {**stamp, "device": device_name(torch.device(options.device))})
    state = options.state or options.results.with_name(f"{options.results.stem}-state")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        left = hold(options, book, state, pool, end)
        pool.shutdown(wait=False, cancel_futures=True)
    say("done" if not left else f"{left} runs are not done: the same command goes on with them")


def hold(options: argparse.Namespace, book: Book, state: Path, pool: ProcessPoolExecutor, end: float) -> int:
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
            row = track.row()
            book.add(row)
            track.place.unlink(missing_ok=True)
            say({key: row[key] for key in ("method", "seed", "test", "macs", "seconds")})
    for track in tracks:
        track.save()
        if track.waiting is not None:
            track.waiting.cancel()
    return len(waiting) + len(tracks)


if __name__ == "__main__":
    main()
