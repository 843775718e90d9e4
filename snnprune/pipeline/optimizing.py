"""optimize(): from a trained model to a proved smaller one, in one call."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import nn

from .. import streams
from ..budget import parse_drop, parse_latency
from ..carried import kept_carried
from ..errors import ConfigError, RunError
from ..inputs import Inputs
from ..learner import Callback, LossFunction, PruneConfig
from ..loaders import lost_workers
from ..options import path_of
from ..ranks import current
from ..runs.lock import locked
from ..runs.places import BOOK
from ..runs.result import Result
from ..shown import brief_repr
from .arguments import checked_arguments
from .attaching import working_copy
from .contents import why_not_again
from .drop import DropSearch
from .job import Job
from .latency import LatencySearch
from .reporting import result_of
from .setting import Setting

logger = logging.getLogger(__name__)


@torch.inference_mode(False)
@torch.enable_grad()
def optimize(
    model: nn.Module,
    train: Iterable[Any],
    val: Iterable[Any] | None = None,
    config: PruneConfig | None = None,
    *,
    test: Iterable[Any] | None = None,
    example_inputs: Inputs | None = None,
    loss_fn: LossFunction | None = None,
    metric: Any = None,
    device: torch.device | str | None = None,
    callbacks: Iterable[Callback] = (),
    checkpoint: str | Path | None = None,
    resume: bool = False,
    data_name: str | None = None,
) -> Result:
    """Prune a trained model: learn scales and weights together, cut, and let the rest recover.

    The caller's model is copied and stays as it is. The compact model is returned only after the
    proof, on real inputs in float64, that gated, folded and removed models agree. Everything random is set by
    `config.seed`: the generators of PyTorch, Python and NumPy are seeded, and put back for the caller afterwards.

    Args:
        model: a trained network.
        train: batches of (inputs, labels); a loader that can be iterated many times.
        val: validation batches, for every decision and for progress.
        config: options; the defaults are the post-training recipe with `macs=0.5`.
        test: test batches, for the report alone: the dense model is measured on them before anything is learned,
            the compact one at the end. Without them the report's figures are on `val`.
        example_inputs: what the model's forward takes; by default the first inputs of `train`.
        loss_fn: `loss_fn(model, batch)` instead of cross-entropy with distillation.
        metric: what decides and is reported: a `Metric`, a function of (model, loader) that returns a number, or
            an object of `torchmetrics`. By default the accuracy; with a `loss_fn` its mean, of which less is
            better, and without labels the loss by which the original model teaches.
        device: where to learn; by default where the model is.
        callbacks: told about progress.
        checkpoint: folder for checkpoints; none are written without it.
        resume: go on from the checkpoint in that folder, if there is one.
        data_name: for the report.

    Returns:
        The compact model in eval mode, on `device`, with its report; `result.save(folder)` writes it.

    Raises:
        AttachError: the model has gates attached.
        ConfigError: an argument is of the wrong type, or `drop` without validation data.
        UnsupportedModelError: nothing can be pruned exactly.
        TargetError: the target is below what the floors allow, or no trial kept within a `drop`.
        DataError: the data do not fit the model.
        DivergedError: the learning diverged.
        CompilerError: `torch.compile` failed; a run that had begun goes on without it.
        MetricError: the metric fails, or gives no finite number.
        ExactnessError: the compact model does not compute what was learned.
        RunError: the checkpoint cannot be written or read, belongs to another run, or is in use by one.
        KeyboardInterrupt: Ctrl-C, after a checkpoint was written.

    Example:
        >>> config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=1)
        >>> result = snnprune.optimize(model, train, val, config, test=test)
        >>> result.report.compact.macs <= 0.5 * result.report.dense.macs
        True
        >>> folder = result.save("runs/digits")
    """
    config = PruneConfig() if config is None else config
    where, callbacks = checked_arguments(model, train, val, test, config, loss_fn, metric, callbacks, device)
    began = time.monotonic()
    dense = working_copy(model, where, config)
    remedy = "Load the same file in each of them, or set the seed before the model is built."
    current().check_equal(dense.state_dict(), "models to begin with", remedy)
    place = None if checkpoint is None else path_of("checkpoint", checkpoint)
    if not isinstance(data_name, (str, NoneType)):
        raise ConfigError(f"data_name={brief_repr(data_name)} must be a text for the report, or None.")
    loaders = [loader for loader in (train, val, test) if loader is not None]
    named = {"the training loader": train, "the validation loader": val, "the test loader": test}
    with streams.kept(), kept_carried(loaders), locked(place), lost_workers(named):
        if place is not None:
            _warn_of_other_epochs(train)
        setting = Setting(
            dense,
            train,
            val,
            test,
            config,
            where,
            loss_fn=loss_fn,
            metric=metric,
            callbacks=callbacks,
            example_inputs=example_inputs,
        )
        drop, wanted = parse_drop(config.target), parse_latency(config.target)
        if drop is not None:
            trials = DropSearch(setting, drop, place, resume=resume)
            job, compact = trials.run()
            return result_of(job, compact, began, data_name, trials.trials)
        if place is not None and resume and (place / BOOK).exists():
            raise RunError(
                f"{place} holds the trials of a run with a target drop=.... Repeat the command of the "
                "interrupted run, or remove its folder to start anew."
            )
        timer = None if wanted is None else LatencySearch(setting, wanted, place, resume=resume)
        options = config if timer is None else replace(config, target={"latency": timer.share})
        job = Job(setting, options, timer)
        job.open(place, resume=resume)
        setting.prepare()
        compact = job.run()
        if timer is not None:
            timer.note(compact)
        told = () if timer is None else timer.trials
        times = None if timer is None or timer.final is None else timer.final.to_dict()
        return result_of(job, compact, began - job.seconds, data_name, told, times)


def _warn_of_other_epochs(train: Iterable[Any]) -> None:
    why = why_not_again(train)
    if why is not None:
        logger.warning(
            "the training loader cannot draw an epoch again: %s. The run can be resumed, but will not end with "
            "the same bits as one that nothing has stopped",
            why,
        )
