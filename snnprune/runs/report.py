"""Report: what a run did, as a table, as JSON, and as a comparison of two models."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..errors import RunError, first_line
from ..files import read_json, write_json
from ..forms import malformed, with_value
from ..measures import ACCURACY, LOSS, Evaluation, MetricInfo
from ..options import path_of
from ..ranks import Ranks
from ..shown import cut
from .text import text_of
from .times import time_rows

_PACKAGES = ("snnprune", "torch", "torchvision", "torch-pruning", "onnx", "onnxruntime", "onnxruntime-gpu")
_NAME = 100  # characters of a name in a table


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """Quality and cost of one model.

    Attributes:
        accuracy: fraction in [0, 1]; None when nothing was evaluated, or by another metric.
        loss: mean cross-entropy, or the mean of a loss of the user's own; None beside a metric of the user's own.
        macs: multiply-adds for one input.
        params: number of parameters.
        nonzero: those that are not 0, where connections were switched; None elsewhere.
        value: of the report's metric, which is the accuracy where no other was asked for.
    """

    accuracy: float | None
    loss: float | None
    macs: int
    params: int
    nonzero: int | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        """Accuracy is a metric too."""
        if self.value is None and self.accuracy is not None:
            object.__setattr__(self, "value", self.accuracy)


@dataclass(slots=True)
class Report:
    """Everything that is known at the end of a run.

    Attributes:
        dense: the model that came in.
        compact: the model that goes out.
        groups: per group id (per weight, where connections were switched), size, kept, weakened (< 1) and
            strengthened (>= 1) at compaction.
        kept_whole: groups that were not pruned, with the reason.
        exactness: relative differences `fold` and `remove` (float64, at compaction, on real inputs)
            and `onnx` (float32, final model); None where not checked.
        target: as it was asked for, such as `{"macs": 0.5}` or `{"latency": "3ms"}`; None is the free mode.
        seed: of everything random.
        data: name of the data set.
        split: which data the figures of `metric` and the losses are of: `test` or `val`.
        inputs: how many inputs each part has, `train`, `val` and `test`, where it is known; of `split`, on how
            many the figures were measured.
        both_right: how many of those both models got right; None where the metric is not the accuracy, or where
            the data did not come twice in the same order.
        metric: what both models and every epoch were judged by: its `name`, `higher_is_better`, and `percent`.
        seconds: from the first look at the model to the last evaluation; the export is not in it, and the time
            up to the last checkpoint is where the run was gone on with.
        device: on which the run learned.
        config: all options, as `PruneConfig.to_dict()` gives them.
        history: validation figures per epoch; in the search also, per group, how many neurons were kept,
            weakened and strengthened.
        steps: training steps by stage.
        odd_widths: group id -> kept, of groups that keep no multiple of `round_to` channels (or of the smaller
            number that narrow groups are rounded to), because the target would else be missed by more than 0.01.
        stored: bytes of both models' tensors, `dense` and `compact`, each as `save` writes them; empty in reports
            of older versions.
        curve: loss, and in the search the cost under the budget, at about fifty steps of each stage.
        unpriced: operations that take weights and whose multiply-adds are not in `macs`, as `operation (module)`.
        speed: what the recovery computed in: `precision`, `channels_last`, `compile`, and `measured`, seconds of a
            step by candidate; None where there was no recovery.
        latency: times of both models beside each other, as they will be served, in the form of
            `timing.compared.Compared.to_dict()`; None where nothing was timed.
        command: the command line that made the run; empty where there was none.
        trials: under a `drop` target, what each trial kept, and how much of the metric it lost on validation data;
            under a `latency` target, what each cut kept and took, and last the final model.
        date: when both models had been measured, in the form of ISO 8601 with the offset from UTC, such as
            `2026-11-27T13:45:00+00:00`; empty where there was no run, and in reports of older versions.
        versions: of Python and of the packages that matter.

    Example:
        >>> report = snnprune.compare(model, model, example_inputs=images)
        >>> report.compact.macs / report.dense.macs
        1.0
    """

    dense: ModelFigures
    compact: ModelFigures
    groups: list[dict[str, Any]]
    exactness: dict[str, float | None]
    target: Mapping[str, float | str] | None
    seed: int
    data: str
    split: str
    seconds: float
    device: str
    config: dict[str, Any] = field(default_factory=dict)
    kept_whole: list[dict[str, str]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    odd_widths: dict[str, int] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    unpriced: list[str] = field(default_factory=list)
    command: str = ""
    inputs: dict[str, int] = field(default_factory=dict)
    both_right: int | None = None
    stored: dict[str, int] = field(default_factory=dict)
    metric: MetricInfo = ACCURACY
    speed: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    date: str = ""
    versions: dict[str, str] = field(default_factory=lambda: versions())

    def to_dict(self) -> dict[str, Any]:
        """Plain values in the form of `report.json`."""
        content = {field.name: _copied(getattr(self, field.name)) for field in fields(self)}
        content |= {"dense": asdict(self.dense), "compact": asdict(self.compact), "metric": self.metric.to_dict()}
        for model in ("dense", "compact"):
            if content[model]["nonzero"] is None:
                del content[model]["nonzero"]  # only where connections were switched
        return content

    def to_json(self, path: str | Path) -> None:
        """Write `report.json` atomically; a loss that is not finite becomes null.

        Args:
            path: of the file; it is replaced if it is there.

        Raises:
            ConfigError: `path` is none.
        RunError: it cannot be written.
        """
        write_json(path_of("path", path), finite(self.to_dict()))

    @classmethod
    def read(cls, path: str | Path) -> Report:
        """Read what `to_json` wrote.

        Args:
            path: of the file.

        Raises:
            RunError: the file is missing or of another form.
        """
        content = read_json(path_of("path", path))
        try:
            figures = {key: ModelFigures(**content.pop(key)) for key in ("dense", "compact")}
            known = {field.name for field in fields(cls)}  # a newer version may tell more
            content = {key: value for key, value in content.items() if key in known}
            if "metric" in content:  # before there was a choice it was the accuracy
                content["metric"] = MetricInfo.read(content["metric"])
            for name in ("history", "trials"):
                if isinstance(content.get(name), list):
                    content[name] = [with_value(entry) for entry in content[name]]
            found = cls(**figures, **content)
            wrong = malformed(found)
        except (TypeError, AttributeError, KeyError) as error:
            raise RunError(f"{path} is no report of this version ({first_line(error)}).") from error
        if wrong:
            raise RunError(
                f"{path} is no report of this version: its {wrong} is malformed, so it cannot be drawn or "
                "compared. Take it as the run wrote it."
            )
        return found

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(what, dense, compact, change) for tables, times first, then the metric."""
        found = [] if self.latency is None else time_rows(self.latency)
        a, b, split = self.dense, self.compact, cut(self.split, _NAME)
        metric, below = self.metric, a.loss is not None and self.metric == LOSS  # which has a row of its own
        if a.value is not None and b.value is not None and not below:
            name, change = f"{cut(metric.name, _NAME)} ({split})", metric.change(a.value, b.value)
            found.append((name, metric.text(a.value), metric.text(b.value), change))
        if a.loss is not None and b.loss is not None:
            found.append((f"loss ({split})", f"{a.loss:.4f}", f"{b.loss:.4f}", f"{b.loss - a.loss:+.4f}"))
        macs = "MACs (in part)" if self.unpriced else "MACs"
        for name, x, y in ((macs, a.macs, b.macs), ("parameters", a.params, b.params)):
            found.append((name, human(x), human(y), f"{y / x:.1%} kept"))
        if a.nonzero and b.nonzero is not None:
            kept = f"{b.nonzero / a.params:.1%} of all"
            found.append(("parameters that are not 0", human(a.nonzero), human(b.nonzero), kept))
        if self.stored:
            x, y = self.stored["dense"], self.stored["compact"]
            found.append(("weights as stored", size_of(x), size_of(y), f"{y / x:.1%} kept"))
        return found

    def __str__(self) -> str:
        return text_of(self)


def goal(target: Mapping[str, float | str] | None) -> str:
    """A target as on the command line."""
    if target is None:
        return "free"
    values = {k: cut(v, _NAME) if isinstance(v, str) else f"{v:g}" for k, v in target.items()}
    return ", ".join(f"{cut(k, _NAME)}={v}" for k, v in values.items())


def human(number: float) -> str:
    """3 significant digits with k, M or G."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}" if number / limit < 1000 else f"{number / limit:.0f}{unit}"
    return f"{number:.0f}"


def size_of(count: float) -> str:
    """Bytes with their unit, such as `218 kB`."""
    text = human(count)
    return f"{text} B" if text[-1].isdigit() else f"{text[:-1]} {text[-1]}B"


def versions() -> dict[str, str]:
    """Versions of what matters, those that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """What a reader needs to know about the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type} ({platform.machine()}, {threads} thread{'s' * (threads != 1)})"


def figures_of(measured: Evaluation | None, macs: int, params: int, nonzero: int | None) -> ModelFigures:
    """Quality, where it was measured, and costs of a model."""
    if measured is None:
        return ModelFigures(None, None, macs, params, nonzero)
    return ModelFigures(measured.accuracy, measured.loss, macs, params, nonzero, measured.value)


def both_right(before: Evaluation | None, after: Evaluation | None, ranks: Ranks) -> int | None:
    """How many inputs two models both got right; None where nobody knows."""
    if before is None or after is None or before.answers is None:
        return None
    return before.answers.both(after.answers, ranks)


def _copied(value: Any) -> Any:
    """Plain values in lists and dicts of their own; of what a file holds, `copy.deepcopy` would take minutes."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, (list, tuple)) else value


def finite(value: Any) -> Any:
    """Plain values for JSON: a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
