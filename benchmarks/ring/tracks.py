"""The runs of `gpu.py`: stages of a method, and where a run is on its way through them."""

from __future__ import annotations

import copy
import json
import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from methods import first_knobs, recipe
from rivals import LOOKING, RIVALS, cutter, looks_of, rounds_of, way_of
from steps import Run, Tables
from tasks import Bout

import snnprune
from snnprune.errors import CriterionError
from snnprune.files import write_atomically
from snnprune.metrics import count_macs, count_params
from snnprune.pipeline.job import Job
from snnprune.pipeline.setting import Setting, Steps
from snnprune.rivals.rounds import lengths_of
from snnprune.rivals.sparse import GROWTHS

EPOCHS, SEARCH, RATE, TRAINER = 40, 100, 0.05, "gpu"
LOOKS = snnprune.SearchOptions().probe  # batches of our look at the neurons, before the search
OURS: dict[str, dict[str, Any]] = {
    "switcher": {},
    "free scales": {"search": {"scores": "free"}},
    "norm, our threshold": {"search": {"scores": "norm"}},
}
EVERY, CHUNK = 10, 20  # steps between looks of a regulariser, and between looks at the clock


def plan_of(method: str, total: int) -> list[tuple[str, float, int]]:
    """Stages of a run: (what is done, share of the way to the target or 0, steps), of `total` steps together."""
    if method in OURS:
        search = 0 if method.startswith("norm") else min(LOOKS + SEARCH, total // 4)
        return [("search", 0.0, search), ("learn", 0.0, total - search)]
    rival = RIVALS[method]
    rounds = rounds_of(method, total)
    sparse = round(rival.share * total)
    looks = rounds * looks_of(method, total)
    stages: list[tuple[str, float, int]] = [("sparse", 0.0, sparse)] if sparse else []
    for at, length in enumerate(lengths_of(total - sparse - looks, rounds)):
        stages.append(("cut", (at + 1) / rounds, looks // rounds))
        if length:
            stages.append(("learn", 0.0, length))
    return stages


def searched(bout: Bout, method: str, share: float, steps: int) -> torch.nn.Module:
    """The network that our look at the neurons and our search leave, not recovered; they take `steps` together."""
    config = snnprune.PruneConfig(
        target={"macs": share}, epochs=bout.task.epochs, lr=RATE, seed=bout.seed, round_to=1, **OURS[method]
    )
    job = Job(Setting(bout.dense, bout.train, bout.val, None, config, bout.example.device), config)
    looks = min(config.search.probe, steps)
    job.steps = Steps(looks, steps - looks, 0)
    return job.run()


def cut(
    bout: Bout, method: str, network: torch.nn.Module, share: float, knobs: dict[str, Any], threads: int
) -> torch.nn.Module:
    """torch-pruning's cut, in a process of its own on the CPU."""
    torch.set_num_threads(threads)
    return cutter(bout, method, network, share, knobs)(network, share).requires_grad_(True)


class Pool:
    """Processes for cuts; none are cuts made at once, where they are asked for."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.processes = ProcessPoolExecutor(workers, mp_context=context) if workers else None

    def submit(self, *work: Any) -> Future[torch.nn.Module]:
        """A function and its arguments, to be called in one of them."""
        if self.processes is not None:
            return self.processes.submit(*work)
        found: Future[torch.nn.Module] = Future()
        try:
            found.set_result(work[0](*work[1:]))
        except CriterionError as error:
            found.set_exception(error)
        return found

    def close(self) -> None:
        """End them, whatever they are doing: the clock does not wait for cuts."""
        if self.processes is not None:
            children = list((self.processes._processes or {}).values())
            self.processes.shutdown(wait=False, cancel_futures=True)
            for child in children:
                child.terminate()


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
        self.failed = ""
        self.saved: dict[str, Any] | None = None
        origin = {**bout.origin, "recipe": recipe(bout.task, method), "stages": self.stages, "share": share}
        self.origin = json.dumps(origin, sort_keys=True)
        if place.exists():
            self.saved = torch.load(place, weights_only=False, map_location=bout.example.device)
            if self.saved.get("origin") != self.origin:
                raise SystemExit(
                    f"{place} is of other data, steps or options. Remove it, or give another --state."
                )
            self.at, self.done, self.network = self.saved["at"], self.saved["done"], self.saved["network"]
            self.seconds = self.saved["seconds"]

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return bool(self.failed) or self.at == len(self.stages)

    def save(self) -> None:
        """What is needed to go on; a cut that is on its way begins again."""
        content: dict[str, Any] = {"at": self.at, "done": self.done, "network": self.network.cpu(), "run": None}
        content |= {"seconds": self.seconds, "origin": self.origin}
        if self.run is not None:
            content["run"] = self.run.state()
        self.place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.place, lambda path: torch.save(content, path))

    def advance(self, pool: Pool) -> None:
        """Begin or go on with the present stage, by at most `CHUNK` steps; does not wait for the GPU."""
        kind, way, steps = self.stages[self.at]
        if kind == "search":
            self.network = searched(self.bout, self.method, self.share, steps).requires_grad_(True)
            self._next(steps)
        elif kind == "cut":
            self._cut(pool, way, steps)
        elif self.run is None:
            if kind == "sparse":
                self.pruner = self._regulariser()  # before the network is set to learn, which it undoes
            self.run = Run(
                self.network, self.tables, self.done, steps, RATE / 2 if kind == "sparse" else RATE,
                decay=0.0 if kind == "sparse" else 5e-4, taught=kind != "sparse",
            )  # fmt: skip
            if self.saved is not None and self.saved["run"] is not None:
                self.run.load(self.saved["run"])
                self._grow(0, self.run.step, steps)
            self.saved = None
        else:
            for _ in range(min(CHUNK, steps - self.run.step)):
                self.run.go(self._regularise if kind == "sparse" else None)
            if self.run.step == steps:
                self.network, self.run, self.pruner = self.run.finished(), None, None
                self._next(steps)

    def _next(self, steps: int) -> None:
        self.at, self.done = self.at + 1, self.done + steps

    def _cut(self, pool: Pool, way: float, steps: int) -> None:
        if self.waiting is None:
            bout = copy.copy(self.bout)
            bout.dense, bout.example = copy.deepcopy(bout.dense).cpu(), bout.example.cpu()
            looking = RIVALS[self.method].importance in LOOKING
            bout.train = bout.train.on(torch.device("cpu")) if looking else None
            bout.val = bout.test = None
            network = copy.deepcopy(self.network).cpu()
            kept = 1 - (1 - self.share) * way
            self.waiting = pool.submit(cut, bout, self.method, network, kept, self.knobs, 1)
        elif self.waiting.done():
            try:
                self.network = self.waiting.result().to(self.bout.example.device)
                self._next(steps)
            except CriterionError as error:
                self.failed = str(error)
            self.waiting = None

    def _regulariser(self) -> Any:
        """torch-pruning's pruner, its regulariser as much stronger as it comes more seldom."""
        knobs = {**self.knobs, "reg": EVERY * self.knobs["reg"]}
        way = way_of(self.bout, self.method, self.network, knobs)
        pruner = way.pruner(self.network, self.bout.example, (0.5, 0.5, 0))
        if way.sparse == "growing":
            pruner.delta_reg *= EVERY
        return pruner

    def _regularise(self, step: int, steps: int) -> None:
        """torch-pruning's regulariser on the gradients that the graph has left, at every tenth step."""
        if step % EVERY == 0:
            self.pruner.regularize(self.network)
        self._grow(step, step + 1, steps)

    def _grow(self, start: int, end: int, steps: int) -> None:
        if self.pruner is not None and RIVALS[self.method].sparse == "growing":
            for _ in range(start * GROWTHS // steps, end * GROWTHS // steps):
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
            **bout.origin,
        }  # fmt: skip
        found["macs"] = round(count_macs(network, bout.example) / count_macs(bout.dense, bout.example), 5)
        found["params"] = round(count_params(network) / count_params(bout.dense), 5)
        found["in_budget"] = bool(abs(found["macs"] - self.share) <= 0.01)
        return found
