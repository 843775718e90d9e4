"""contest(): every method and seed a run of its own, at equal steps and recovery."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import streams
from ..budget import COUNTED, Budget, parse_target
from ..carried import kept_carried
from ..data import BatchLoader, info_of
from ..errors import (
    ConfigError,
    RunError,
    TargetError,
)
from ..inputs import Inputs
from ..learner import Callback, LossFunction, PruneConfig, Speed, check_same_run, settled
from ..loaders import lost_workers
from ..metrics import count_params
from ..options import Count, checked, path_of
from ..pipeline.arguments import checked_arguments
from ..pipeline.attaching import working_copy
from ..pipeline.setting import Setting
from ..ranks import current
from ..runs.lock import locked
from ..runs.places import CHECKPOINT, remove_checkpoint
from ..runs.report import device_name, versions
from ..shown import brief_repr
from ..switching import alike
from .book import BOOK, PAGE, Contest, read_book
from .entrants import DEFAULT, SEARCHING, Entrant, Ways, entrants
from .page import write_page
from .single import run_of, store_place

logger = logging.getLogger(__name__)


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
    configs = [replace(config, seed=seed) for seed in range(config.seed, config.seed + count)]
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
        rows, speed = _known(place, identity, chosen, resume=resume)
        found = Contest(command=command, rows=rows, speed=speed)
        setting.prepare(searches=any(one.name in SEARCHING for one in chosen))
        setting.cost.select(
            budget.metric, budget.share, alike(setting.cost), floor=config.floor, round_to=config.round_to
        )
        _describe(found, setting, budget, data_name)
        setting.speed = found.speed = _speed(found, setting)
        if place is not None and found.speed is not None:  # for who goes on after a stop in the first run
            found.write(place, identity)
        runs = [(entrant, own) for own in configs for entrant in chosen]
        here: Setting | None = None
        timer = setting.timer if time else None
        for at, (entrant, own) in enumerate(runs):
            seed = own.seed
            if found.find(entrant.name, entrant.words, seed) is not None:
                continue
            if here is None or here.config.seed != seed:
                here = setting.sibling(own, _ordered(train, seed - config.seed))
            found.put(run_of(here, entrant, place, at + 1, len(runs), timer, resume=resume))
            if place is not None:
                found.write(place, identity)
                remove_checkpoint(store_place(place, entrant, seed))
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
) -> tuple[list[dict[str, Any]], Speed | None]:
    """Rows on file, and what their recoveries computed in.

    Raises:
        RunError: they are of another contest or of another function, or there are some and nobody asked for them.
    """
    if place is None or not (place / BOOK).exists():
        return [], None
    if not resume:
        raise RunError(f"{place} holds a contest. Go on with it by --resume, or choose another folder.")
    before, rows, speed = read_book(place / BOOK)
    check_same_run(place / BOOK, before, identity)
    now = {entrant.name: entrant.words for entrant in chosen}
    # a run that failed has no figures: its method may have been mended
    rows = [row for row in rows if row["failed"] is None or now.get(row["method"], row["words"]) == row["words"]]
    for row in rows:
        if now.get(row["method"], row["words"]) != row["words"]:
            raise RunError(
                f"{place / BOOK} holds runs of another {row['method']}: it was {row['words']}, and is "
                f"{now[row['method']]}; the last word stands for code and values. Give it another name, as a pair "
                "(name, function), or choose another folder."
            )
    return rows, speed


def _speed(found: Contest, setting: Setting) -> Speed | None:
    """What all recoveries compute in: as those on file, where they were made on this kind of device."""
    if found.speed is not None and all(row["device"] == found.device for row in found.rows):
        return found.speed
    config = setting.config
    return settled(setting.dense, setting.train, setting.loss, config, total=setting.steps(config).recover)


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
    done = [row for row in found.rows if row["failed"] is None]
    others = sum((row["device"], row["versions"]) != (found.device, found.versions) for row in done)
    if others:
        logger.warning("%d of the runs on file were made with another device or other versions", others)
    found.config = setting.config.to_dict()
