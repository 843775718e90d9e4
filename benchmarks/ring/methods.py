"""One row of the ring: a method, a target, a seed and the method's knobs in; a measured network out."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import torch
from ablations import ABLATIONS, WITHOUT, without
from rivals import RIVALS, constants, rivals, run_rival
from tasks import Bout
from torch import nn

import snnprune
from snnprune.learner.searching import scorer_pace
from snnprune.metrics import count_macs, count_params

# *Channels only* leaves pixels and flattened units alone, as torch-pruning does; the first layer then has to give
# more than our usual floor allows. The last one learns nothing: our threshold, surgery and recovery over the
# norms alone, pixels included.
OURS: dict[str, dict[str, Any]] = {
    "switcher": {},
    "switcher, channels only": {"input_neurons": False, "floor": 0.05},
    "free scales": {"search": {"scores": "free"}},
    "norm, our threshold": {"search": {"share": 1e-9, "least": 1, "probe": 0, "scores": "free"}},
}
VARIANTS = {**OURS, **{name: {} for name in WITHOUT}, **ABLATIONS}
FINE = {"round_to": 1}  # torch-pruning rounds nothing either
# Options that belong to the row's key, or that a run with a budget and a post-training start does not read.
APART = ("target", "epochs", "lr", "seed", "trials", "granularity", "patience", "decay", "fresh_mean", "fresh_std")
# As it always was, before there was a choice.
BEFORE: dict[str, Any] = {
    "hold": 1, "precision": "auto", "channels_last": "auto", "compile": "auto",
    "width": [], "uniform": [], "outputs": [],
}  # fmt: skip
START_VERSION = 2  # raised when the same options come to mean another start


def methods(task: Any) -> list[str]:
    """Everybody in the ring; a convolutional network without flattening has channels only."""
    flattens = task.data == "mnist"
    return [*rivals(task), *(name for name, own in OURS.items() if flattens or own.get("input_neurons", True))]


def flat(config: snnprune.PruneConfig) -> dict[str, Any]:
    """All options side by side under the names that they had before there were groups, by which rows are known."""
    options = config.to_dict()
    search, recovery = options.pop("search"), options.pop("recovery")
    for name in ("serving", "profile"):  # what a network is timed on changes none of what is learned
        del options[name]
    return {**options, "search": search.pop("share"), **search, **recovery}


def recipe(task: Any, method: str) -> str:
    """Identifies task and options of a method, so that rows of an older default are not taken for today's."""
    options = flat(snnprune.PruneConfig(**FINE | task.common | VARIANTS.get(method, {})))
    if method in RIVALS:  # what rivals share with ours is the recovery
        shared = ("optimizer", "momentum", "weight_decay", "warmup", "clip", "temperature", "freeze_norm")
        options = {**{name: options[name] for name in shared}, "constants": constants(method), **task.common}
    else:
        options = {name: value for name, value in options.items() if name not in APART}
        for name, before in BEFORE.items():
            if options[name] == before:
                del options[name]
        if max(1, round(options["search"] * task.steps)) >= min(options["least"], task.steps // 10):
            del options["least"]  # the search is long enough without
        options["start_version"] = START_VERSION
        config = snnprune.PruneConfig(**VARIANTS.get(method, {}))
        with without(method):
            pace = scorer_pace(config, round(config.search.share * task.steps))
        if pace < 1:
            options["pace"] = pace
    options["task"] = [task.metric, task.batch, task.dense_steps, task.dense_lr, task.steps]
    if task.held:
        options["task"].append(task.held)
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]


def first_knobs(task: Any, method: str) -> dict[str, Any]:
    """Where tuning starts."""
    knobs: dict[str, Any] = {"lr": task.rates[len(task.rates) // 2]}
    rival = RIVALS.get(method)
    if rival is not None:
        knobs |= {"scope": rival.scope, "teacher": False}
    if rival is not None and rival.sparse is not None:
        knobs["reg"] = 5e-4 if rival.sparse == "growing" else 1e-3
    if rival is not None and rival.sparse == "group":
        knobs["normalizer"] = "mean"
    return knobs


def untuned_knobs(task: Any, method: str) -> dict[str, Any]:
    """Knobs without any tuning: where it starts, but distilled, as ours always is."""
    return first_knobs(task, method) | ({"teacher": True} if method in RIVALS else {})


def choices(task: Any, method: str) -> list[tuple[str, list[Any]]]:
    """Knobs in the order in which they are tuned, each with what is tried besides the present value."""
    found: list[tuple[str, list[Any]]] = []
    rival = RIVALS.get(method)
    if rival is not None:
        found += [("scope", ["local", "global"]), ("teacher", [False, True])]
    if rival is not None and rival.sparse is not None:
        found.append(("reg", [1e-4, 5e-4, 1e-3] if rival.sparse == "growing" else [1e-4, 1e-3, 1e-2]))
    if rival is not None and rival.sparse == "group":
        found.append(("normalizer", ["mean", "max"]))
    return [*found, ("lr", list(task.rates))]


def run(bout: Bout, method: str, share: float, knobs: dict[str, Any], *, final: bool) -> dict[str, Any]:
    """Prune and recover; the test data are looked at only in final rows."""
    began = time.monotonic()
    torch.manual_seed(bout.seed)
    row: dict[str, Any] = {}
    if method in VARIANTS:
        config = snnprune.PruneConfig(
            target={bout.task.metric: share},
            epochs=bout.task.steps / len(bout.train),
            lr=knobs["lr"],
            seed=bout.seed,
            **FINE | bout.task.common | VARIANTS[method],
        )
        with without(method):
            result = snnprune.optimize(bout.dense, bout.train, bout.val, config, device=bout.example.device)
        model: nn.Module = result.model
        steps = sum(result.report.steps.values())
        row["exactness"] = result.report.exactness
        row["kept"] = {g["id"]: f"{g['kept']}/{g['size']}" for g in result.report.groups}
    else:
        model, spent = run_rival(bout, method, share, knobs)
        steps = bout.task.steps
        row["before_removal"] = spent
    if steps != bout.task.steps:
        raise RuntimeError(f"{method} took {steps} steps instead of {bout.task.steps}")
    row["seconds"] = round(time.monotonic() - began, 1)
    row["val"] = round(snnprune.evaluate(model, bout.val).accuracy, 5)
    if final:
        row["test"] = round(snnprune.evaluate(model, bout.test).accuracy, 5)
        row["dense_test"] = round(bout.accuracy, 5)
    for metric, count in (("macs", count_macs), ("params", lambda m, _x: count_params(m))):
        row[metric] = round(count(model, bout.example) / count(bout.dense, bout.example), 5)
    row["in_budget"] = bool(abs(row[bout.task.metric] - share) <= 0.01)
    return row
