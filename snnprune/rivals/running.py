"""contest(): every method and seed a run of its own, at equal steps and recovery."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import nn

from .. import streams
from ..budget import COUNTED, Budget, parse_target
from ..carried import kept_carried
from ..data import BatchLoader, info_of
from ..errors import (
    CollapsedLayerError,
    ConfigError,
    CriterionError,
    DivergedError,
    ExactnessError,
    MetricError,
    RunError,
    SnnPruneError,
    TargetError,
    first_line,
)
from ..inputs import Inputs
from ..learner import Callback, LossFunction, PruneConfig, check_same_run
from ..loaders import lost_workers, refuse_lost_worker
from ..metrics import count_params
from ..options import Count, checked, path_of
from ..pipeline.arguments import checked_arguments
from ..pipeline.attaching import working_copy
from ..pipeline.job import Job
from ..pipeline.setting import Setting
from ..ranks import current
from ..runs.lock import locked
from ..runs.places import CHECKPOINT, remove_checkpoint
from ..runs.report import device_name, versions
from ..runs.timer import Timer
from ..runs.times import conditions_of, trial_times
from ..shown import brief_repr, cut
from ..switching import alike
from .book import BOOK, PAGE, Contest, read_rows
from .bout import Bout, priced
from .entrants import DEFAULT, SEARCHING, Entrant, Ways, entrants
from .finish import store_of, trained_on
from .page import write_page

_FAILURES = (CollapsedLayerError, ConfigError, CriterionError, DivergedError, ExactnessError, MetricError)


@torch.inference_mode(False)
@torch.enable_grad()
def contest(
    model: nn.Module,
    train: Iterable[Any],
    val: Iterable[Any] | None = None,
    config: PruneConfig | None = None,
    *,
    methods: Sequence[Any] = DEFAULT,
    ways: Ways = "our-surgery",
    seeds: int = 3,
    test: Iterable[Any] | None = None,
    example_inputs: Inputs | None = None,
    loss_fn: LossFunction | None = None,
    metric: Any = None,
    time: bool = False,
    device: torch.device | str | None = None,
    callbacks: Iterable[Callback] = (),
    folder: str | Path | None = None,
    resume: bool = False,
    data_name: str | None = None,
    command: str = "",
) -> Contest:
    """Prune one model by several methods, each with several seeds, at equal steps and with the same recovery.

    Every run starts from the same weights, sees the same batches in the same order as the others of its seed,
    takes `epochs` worth of training steps in all, and meets the same target. What a method spends before the
    removal (a probe, a search, sparse learning) is taken off its recovery. The test data are looked at once per
    run, and nothing is chosen by them.

    Args:
        model: a trained network, which stays as it is.
        train: batches to learn from; a loader that shuffles draws another order for every seed.
        val: validation batches, for progress; values are of them where there are no test data.
        config: options of all runs; its `search.scores` are those of `ours`. The target has to be one of `macs` or
            `params`, which all can meet.
        methods: names of `rivals.METHODS`, `all`, importances of torch-pruning, or functions of (model, groups);
            `lamp:global` and `l2:local` are its own pruner in one of its two scopes. An importance or a function
            may come as a pair, `("mine", function)`, with its name in the table.
        ways: of torch-pruning's criteria: `our-surgery` takes their order under our threshold and surgery, on
            every network that is traced; `as-they-are` its own pruner, where that can build the network; `both`.
        seeds: how many, from `config.seed` on.
        test: test batches.
        example_inputs: as of `optimize`; so are the arguments that follow.
        loss_fn: the user's own loss.
        metric: what is compared.
        time: also time every result beside the dense model, as `config.serving` says, for seconds each.
        device: where to learn.
        callbacks: told about progress; of every run by an event `entrant`.
        folder: for `contest.json`, checkpoints and `contest.html`; None keeps nothing.
        resume: go on with what lies there: runs that are in the book are not made again but for failed ones, an
            interrupted one goes on from its checkpoint. Methods and seeds may be added; a function or an
            importance that is not what it was needs another name.
        data_name: for the table.
        command: that made it, for the page.

    Returns:
        All rows, with the table, what can be said of it, and its page.

    Raises:
        ConfigError: an argument makes no sense, or a method is unknown.
        TargetError: the target is none of macs or params, or cannot be reached.
        RunError: the folder is in use, holds another contest, or cannot be written.
        KeyboardInterrupt: Ctrl-C; what was done is on file.

    Example:
        >>> config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=1)
        >>> found = snnprune.contest(model, train, val, config, methods=["ours", "lamp"], seeds=2, test=test)
        >>> sorted({row["method"] for row in found.rows})
        ['lamp', 'ours']
    """
    config = PruneConfig() if config is None else config
    where, observers = checked_arguments(model, train, val, test, config, loss_fn, metric, callbacks, device)
    budget = _budget(config)
    chosen, count = entrants(_listed(methods), checked("ways", ways, Ways)), checked("seeds", seeds, Count)
    time = checked("time", time, bool)
    if current().world > 1:
        raise ConfigError("a contest runs in one process; start it without torchrun.")
    if val is None and test is None:
        raise ConfigError("a contest compares values on test or validation data: give `test`, or `val`.")
    place = None if folder is None else path_of("folder", folder)
    dense = working_copy(model, where, config)
    loaders = [loader for loader in (train, val, test) if loader is not None]
    told = {"the training loader": train, "the validation loader": val, "the test loader": test}
    with streams.kept(), kept_carried(loaders), locked(place), lost_workers(told):
        setting = Setting(
            dense, train, val, test, config, where,
            loss_fn=loss_fn, metric=metric, callbacks=observers, example_inputs=example_inputs,
        )  # fmt: skip
        identity = setting.identity(config)
        found = Contest(command=command, rows=_known(place, identity, chosen, resume=resume))
        setting.prepare(searches=any(one.name in SEARCHING for one in chosen))
        setting.cost.select(
            budget.metric, budget.share, alike(setting.cost), floor=config.floor, round_to=config.round_to
        )
        _describe(found, setting, budget, data_name)
        runs = [(entrant, seed) for seed in range(config.seed, config.seed + count) for entrant in chosen]
        here: Setting | None = None
        timer = setting.timer if time else None
        for at, (entrant, seed) in enumerate(runs):
            if found.find(entrant.name, entrant.words, seed) is not None:
                continue
            if here is None or here.config.seed != seed:
                here = setting.sibling(replace(config, seed=seed), _ordered(train, seed - config.seed))
            found.put(_run(here, entrant, place, at + 1, len(runs), timer, resume=resume))
            if place is not None:
                found.write(place, identity)
                remove_checkpoint(_store(place, entrant, seed))
        if place is not None:
            found.write(place, identity)
            remove_checkpoint(place / CHECKPOINT)
            found.page = write_page(found, place / PAGE)
    return found


def _budget(config: PruneConfig) -> Budget:
    """The target of all runs.

    Raises:
        TargetError: it is not a cost that every method can meet.
    """
    named = next(iter(config.target), None) if config.target is not None else "free"
    if named not in COUNTED or config.granularity != "neuron":
        what = "single connections" if config.granularity != "neuron" else f"target {named}"
        raise TargetError(
            f"a contest does not offer {what}: all methods must meet one cost that can be counted. Give macs=0.5 "
            "or params=0.5."
        )
    found = parse_target(config.target)
    assert found is not None
    return found


def _ordered(train: Iterable[Any], number: int) -> Iterable[Any]:
    """The training data in the order of a seed; loaders of others draw from streams that are set by the seed."""
    return train.moved_on(number) if number and isinstance(train, BatchLoader) else train


def _listed(methods: Any) -> list[Any]:
    """What takes part, one by one; a pair of a name and a function is one.

    Raises:
        ConfigError: it is no list.
    """
    pair = isinstance(methods, tuple) and len(methods) == 2 and callable(methods[1])
    if isinstance(methods, str) or callable(methods) or pair:
        return [methods]
    if not isinstance(methods, Iterable):
        raise ConfigError(f"methods is {brief_repr(methods, 60)}; give a list, such as ['ours', 'lamp'].")
    return list(methods)


def _known(
    place: Path | None, identity: dict[str, Any], chosen: Sequence[Entrant], *, resume: bool
) -> list[dict[str, Any]]:
    """Rows on file.

    Raises:
        RunError: they are of another contest or of another function, or there are some and nobody asked for them.
    """
    if place is None or not (place / BOOK).exists():
        return []
    if not resume:
        raise RunError(f"{place} holds a contest. Go on with it by --resume, or choose another folder.")
    before, rows = read_rows(place / BOOK)
    check_same_run(place / BOOK, before, identity)
    now = {entrant.name: entrant.words for entrant in chosen}
    for row in rows:
        if now.get(row["method"], row["words"]) != row["words"]:
            raise RunError(
                f"{place / BOOK} holds runs of another {row['method']}: it was {row['words']}, and is "
                f"{now[row['method']]}; the last word stands for code and values. Give it another name, as a pair "
                "(name, function), or choose another folder."
            )
    return rows


def _describe(found: Contest, setting: Setting, budget: Budget, data_name: str | None) -> None:
    info = info_of(setting.train)
    reference = setting.reference
    assert reference is not None
    found.dense = {
        "value": reference.value,
        "macs": setting.price.total,
        "params": count_params(setting.dense),
    }
    found.metric, found.target = setting.metric.info, {budget.metric: budget.share}
    found.steps = setting.steps(setting.config).total
    found.split = "val" if setting.test is None else "test"
    found.data = data_name or (info.name if info else "given loaders")
    found.device, found.versions = device_name(setting.where), versions()
    found.config = setting.config.to_dict()


def _store(place: Path, entrant: Entrant, seed: int) -> Path:
    """Folder for the checkpoints of a run."""
    name = hashlib.sha256(f"{entrant.name}\n{entrant.words}".encode()).hexdigest()[:12]
    return place / CHECKPOINT / f"{name}-{seed}"


def _timed(timer: Timer | None, network: nn.Module) -> dict[str, Any] | None:
    """Its time beside the dense model's, and what served both."""
    found = None if timer is None else timer(network)
    return None if found is None else {**trial_times(found), **conditions_of(found)}


def _run(
    setting: Setting, entrant: Entrant, place: Path | None, at: int, of: int, timer: Timer | None, *, resume: bool
) -> dict[str, Any]:
    """One method with one seed, as a row."""
    seed, began = setting.config.seed, monotonic()
    row: dict[str, Any] = {
        "method": entrant.name, "words": entrant.words, "rival": entrant.rival, "seed": seed, "value": None,
        "macs": None, "params": None, "steps": {}, "seconds": None, "exact": None, "note": "", "failed": None,
        "date": "", "times": None,
    }  # fmt: skip
    said = {"method": entrant.name, "seed": seed}
    setting.tell("entrant", step=at, total=of, **said)
    store, before = None if place is None else _store(place, entrant, seed), 0.0
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
