"""The last part of a run: the compact model is measured once, and report and result are put together."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from torch import Tensor, nn

from ..budget import demands_of, rounding_step
from ..data import info_of
from ..errors import first_line
from ..macs import MacCount, price
from ..measures import Evaluation
from ..metrics import count_nonzero, count_params
from ..registry import check_finite, recognise
from ..runs.pictures import feature_maps
from ..runs.report import ModelFigures, Report, both_right, device_name, figures_of
from ..runs.result import Result
from ..runs.sparse import stored_bytes
from .delivered import check_delivered
from .found import Found
from .job import Job
from .prospects import count_of
from .setting import Setting

logger = logging.getLogger(__name__)


def result_of(
    job: Job,
    compact: nn.Module,
    began: float,
    data_name: str | None,
    trials: Sequence[dict[str, Any]] = (),
    latency: dict[str, Any] | None = None,
) -> Result:
    """Measure the compact model on what the dense one was measured on, and put the result together.

    Args:
        job: the trial that it came of.
        compact: the model that goes out.
        began: when the run did, by the monotonic clock.
        data_name: for the report.
        trials: what the report says of them.
        latency: times of both models, where they were taken already.

    Raises:
        TargetError: the model is larger than its target allows.
        ModelFileError: a weight is not finite.
    """
    setting, found = job.setting, job.found
    check_finite(compact.state_dict(), "the compact model")
    after = price(compact.eval(), setting.example)
    check_delivered(
        job.config.target, setting.dense, compact, setting.example, sparse=found.sparse, priced=setting.price
    )
    info, measured, split = info_of(setting.train), setting.measure(compact), _split(setting)
    report = Report(
        _figures(setting.dense, setting.reference, setting.price, found),
        _figures(compact, measured, after, found),
        groups=found.counts,
        exactness={**found.exactness, "onnx": None},
        target=setting.config.target,
        seed=setting.config.seed,
        data=data_name or (info.name if info else "given loaders"),
        split=split,
        inputs=_inputs(setting, measured, split),
        both_right=both_right(setting.reference, measured, setting.ranks),
        metric=setting.metric.info,
        seconds=round(time.monotonic() - began, 1),
        device=device_name(setting.where),
        speed=None if job.speed is None else job.speed.to_dict(),
        latency=latency,
        config=setting.config.to_dict(),
        kept_whole=[{"id": g.id, "reason": str(g.reason)} for g in setting.groups if not g.prunable],
        history=found.history,
        curve=found.curve,
        trials=list(trials),
        odd_widths=_odd_widths(job),
        unpriced=list(setting.price.unpriced or after.unpriced),
        stored={"dense": stored_bytes(setting.dense), "compact": stored_bytes(compact, found.sparse)},
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
        steps={**asdict(job.steps), "search": found.searched},
    )
    details: dict[str, Any] = {
        "input_shape": list(setting.sample.shape[1:]) if isinstance(setting.sample, Tensor) else None,
        "kept": found.kept,
        "normalization": {"mean": list(info.mean), "std": list(info.std)} if info else None,
        "crop_ratio": info.crop_ratio if info else None,
        "classes": list(info.classes) if info else None,
        "sparse": found.sparse,
    }
    known = recognise(setting.dense)
    if known is not None:  # so that the run opens again without being told
        details["factory"] = {"arch": known[0], "kwargs": known[1]}
    pictures = _pictures(setting, found)
    setting.dense.cpu()  # where it waits for being timed, without taking a GPU's memory
    return Result(compact, report, setting.sample, details, found.scales, pictures, setting.timer)


def _split(setting: Setting) -> str:
    return "val" if setting.test is None else "test"


def _inputs(setting: Setting, measured: Evaluation | None, split: str) -> dict[str, int]:
    """How many inputs each part has, where it tells."""
    known = {name: count_of(data) for name, data in zip(("train", "val", "test"), setting.given, strict=True)}
    if measured is not None:
        known[split] = measured.count
    return {name: count for name, count in known.items() if count}


def _figures(model: nn.Module, measured: Evaluation | None, priced: MacCount, found: Found) -> ModelFigures:
    return figures_of(measured, priced.total, count_params(model), count_nonzero(model) if found.sparse else None)


def _odd_widths(job: Job) -> dict[str, int]:
    """Groups in which rounding gave way to the target."""
    config = job.config
    if config.target is None or config.granularity == "connection":
        return {}
    kept = {count["id"]: count["kept"] for count in job.found.counts}
    cut = [g for g in job.setting.groups if kept.get(g.id, g.size) < g.size]
    odd = {g.id: kept[g.id] for g in cut if kept[g.id] % rounding_step(g, config.round_to)}
    return {name: count for name, count in odd.items() if not _asked(job, name, count)}


def _asked(job: Job, name: str, count: int) -> bool:
    """Whether a width asks for this number, of this group or of one that is to keep the same."""
    cost, config = job.setting.cost, job.config
    if name not in cost.widths and name not in cost.uniform:
        return False
    bounds = demands_of(cost, "macs", config.floor, config.round_to)[name].bounds
    return count in (bounds.low, bounds.high)


def _pictures(setting: Setting, found: Found) -> dict[str, Tensor]:
    try:
        return feature_maps(setting.dense, setting.groups, found.scales, setting.sample)
    except Exception as error:  # what is only looked at must not cost what was learned
        logger.warning("there are no feature maps to look at (%s)", first_line(error))
        return {}
