"""One run of a contest: a method with a seed, from the dense network to a row of the book."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

from torch import nn

from ..errors import (
    CollapsedLayerError,
    ConfigError,
    CriterionError,
    DivergedError,
    ExactnessError,
    MetricError,
    SnnPruneError,
    first_line,
)
from ..loaders import refuse_lost_worker
from ..pipeline.job import Job
from ..pipeline.setting import Setting
from ..runs.places import CHECKPOINT
from ..runs.report import device_name, versions
from ..runs.timer import Timer
from ..runs.times import conditions_of, trial_times
from ..shown import cut
from .bout import Bout, priced
from .entrants import Entrant
from .finish import store_of, trained_on

_FAILURES = (CollapsedLayerError, ConfigError, CriterionError, DivergedError, ExactnessError, MetricError)


def store_place(place: Path, entrant: Entrant, seed: int) -> Path:
    """Folder for the checkpoints of a run.

    Args:
        place: folder of the contest.
        entrant: the method.
        seed: of the run.
    """
    name = hashlib.sha256(f"{entrant.name}\n{entrant.words}".encode()).hexdigest()[:12]
    return place / CHECKPOINT / f"{name}-{seed}"


def _timed(timer: Timer | None, network: nn.Module) -> dict[str, Any] | None:
    """Its time beside the dense model's, and what served both."""
    found = None if timer is None else timer(network)
    return None if found is None else {**trial_times(found), **conditions_of(found)}


def run_of(
    setting: Setting, entrant: Entrant, place: Path | None, at: int, of: int, timer: Timer | None, *, resume: bool
) -> dict[str, Any]:
    """One method with one seed, as a row of the book.

    Args:
        setting: model, data and options, with the seed of this run.
        entrant: the method.
        place: folder of the contest; None keeps no checkpoints.
        at: number of the run, from 1.
        of: how many there are.
        timer: times the result; None where nobody wants that.
        resume: go on from its checkpoint.

    Raises:
        RuntimeError: ours took other steps than it had.
        SnnPruneError: data or folder are of no use to anybody.
    """
    seed, began = setting.config.seed, monotonic()
    row: dict[str, Any] = {
        "method": entrant.name, "words": entrant.words, "rival": entrant.rival, "seed": seed, "value": None,
        "macs": None, "params": None, "steps": {}, "seconds": None, "exact": None, "note": "", "failed": None,
        "date": "", "times": None, "device": device_name(setting.where), "versions": versions(),
    }  # fmt: skip
    said = {"method": entrant.name, "seed": seed}
    setting.tell("entrant", step=at, total=of, **said)
    store, before = None if place is None else store_place(place, entrant, seed), 0.0
    try:
        if not entrant.cuts:
            kept = store_of(setting, entrant, store)
            network, row["steps"] = trained_on(setting, kept, resume=resume)
            before = 0.0 if kept is None else kept.seconds
        elif entrant.scope is not None:
            bout = Bout(setting, entrant, store, resume=resume)
            network = bout.run()
            row |= {"steps": bout.steps, "exact": bout.inexact, "note": bout.note}
            before = 0.0 if bout.store is None else bout.store.seconds
        else:
            options = setting.config
            if entrant.scores is not None:
                options = replace(options, search=replace(options.search, scores=entrant.scores))
            job = Job(setting, options)
            job.open(store, resume=resume)
            network = job.run()
            row |= {"steps": {**asdict(job.steps), "search": job.found.searched}}
            row["exact"], before = max(job.found.exactness.values()), job.seconds
        if sum(row["steps"].values()) != setting.steps(setting.config).total:
            raise RuntimeError(
                f"{entrant.name} took {row['steps']} steps: a mistake in snnprune; please report it"
            )
        measured = setting.measure(network)
        assert measured is not None
        row |= {"date": datetime.now().astimezone().isoformat(timespec="seconds")}
        row |= {
            "value": measured.value,
            "seconds": round(before + monotonic() - began, 1),
            **priced(setting, network),
        }
        row["times"] = _timed(timer, network)
        if timer is not None and row["times"] is None:
            row["note"] = "; ".join(filter(None, [row["note"], f"it could not be timed ({cut(timer.why, 200)})"]))
    except _FAILURES as error:
        row["failed"] = str(error)
    except SnnPruneError:  # of the data or the folder, which all have
        raise
    except Exception as error:
        refuse_lost_worker(error, None, "a loader")
        if not entrant.rival:
            raise
        row["failed"] = f"{type(error).__name__}: {first_line(error)}"
    setting.tell("entrant", step=at, total=of, **said, ended=row)
    return row
