"""What a run would do: the cut it would start from, its steps, time and memory. Only copies learn a few steps."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import streams
from ..budget import COUNTED, Counted, Metric, parse_drop, parse_latency
from ..carried import kept_carried
from ..inputs import Inputs, device_of, map_tensors, split_batch, tensors_in
from ..learner import PruneConfig
from ..learner.loop import first_batches
from ..learner.recovering import RecoverStage
from ..learner.searching import SearchStage
from ..metrics import count_macs, count_params
from ..pipeline.arguments import check_timed
from ..pipeline.attaching import working_copy
from ..pipeline.job import Job
from ..pipeline.setting import Setting
from .foretold import foretold

_TIMED = 3  # steps of each stage


@dataclass(frozen=True, slots=True)
class Plan:
    """A run before it is one.

    Attributes:
        target: as asked for.
        at: the target that the figures are for; of a `drop` one that keeps half, of a time the share of it by the
            times of the layers, or where those are not known yet the same share of the MACs.
        least: metric -> smallest share of the dense cost that floors and rounding allow.
        start: `macs` and `params` kept as shares, by the cut from which the search starts; `latency` where the
            times of the layers are known.
        widths: group id -> (size, kept) of that cut; the search moves it.
        steps: training steps by stage, of one trial.
        trials: runs of so many steps.
        seconds: estimate, by stage and in all, from a few steps on this machine.
        step_seconds: of one step, by stage.
        memory: peak bytes of a search step: weights, gradients, optimisers, and what is kept for the backward
            pass (on a GPU: as its allocator counts them).
        device: where it was measured.
        notes: sentences on what the figures leave open.
    """

    target: dict[str, float | str] | None
    at: dict[str, float] | None
    least: dict[str, float]
    start: dict[str, float]
    widths: dict[str, tuple[int, int]]
    steps: dict[str, int]
    trials: int
    seconds: dict[str, float]
    step_seconds: dict[str, float]
    memory: int
    device: str
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def plan(
    model: nn.Module,
    train: Iterable[Any],
    val: Iterable[Any] | None = None,
    config: PruneConfig | None = None,
    *,
    example_inputs: Inputs | None = None,
    device: torch.device | str | None = None,
) -> Plan:
    """Do a few steps of every stage on copies, and say what a whole run would take.

    The copies learn in these steps and are thrown away; the caller's model stays as it is, and nothing is written.

    Args:
        model: a trained network.
        train: batches of (inputs, labels).
        val: validation batches.
        config: options of the run.
        example_inputs: what the model's forward takes; by default the first inputs of `train`.
        device: where to learn; by default where the model is.

    Returns:
        The cut that the search would start from, and estimates of steps, time and memory. Times are those of this
        machine, as busy as it is.

    Raises:
        ConfigError: the model does not run in the memory format that was asked for, or options of time have no
            meaning together.
        TargetError: the target is below what the floors allow.
        TimingError: the profile is none, or of another network.
        UnsupportedModelError: nothing can be pruned exactly.
        DataError: the data do not fit the model.
    """
    config = config or PruneConfig()
    check_timed(config)
    where = torch.device(device) if device is not None else device_of(model)
    dense = working_copy(model, where, config)
    drop, latency = parse_drop(config.target), parse_latency(config.target)
    notes = []
    at: dict[str, Any] | None = None if config.target is None else dict(config.target)
    if drop is not None:
        at = {"params" if config.granularity == "connection" else "macs": 0.5}
        notes.append(f"drop={drop:g} is found by trials; the figures are for one that keeps half")
    elif latency is not None:
        at = {"macs": latency.share or 0.5}  # until more is known
    if config.compile is True:
        notes.append("times are those without --compile")
    with streams.kept(), kept_carried([loader for loader in (train, val) if loader is not None]):
        options = replace(config, target=at, compile=False)
        setting = Setting(dense, train, val, None, options, where, example_inputs=example_inputs)
        timed = None if latency is None else foretold(setting, config, latency)
        if timed is not None:
            notes.append(timed.note)
            if timed.share is not None:
                at = {"latency": timed.share}
                options = replace(options, target=at)
        notes += setting.doubts(config, measured=False)
        job = Job(setting, options)
        if setting.loss.teaching is not None:
            setting.loss.teaching.keep(0)  # a look at a few steps need not ask it about all data
        known: list[Metric] = [*_metrics(config), *(["latency"] if at is not None and "latency" in at else [])]
        least = {metric: setting.least_share(metric) for metric in known}
        batches = [
            map_tensors(lambda x: x.to(where), b)
            for b in first_batches(setting.train, config.seed, "plan", _TIMED)
        ]
        with job.attach(copy.deepcopy(dense)) as gated:
            stage = SearchStage(
                gated,
                setting.loss,
                options,
                total=job.steps.search,
                per_epoch=setting.per_epoch,
                val=None,
                extra={},
            )
            gated.set_budget(at)
            cut = gated.compact()
            predicted = gated.predicted()
            counts = {c.id: (c.size, c.kept) for c in gated.counts()}
            search = _timed(stage.train_step, batches)
            memory = _memory(lambda: stage.train_step(batches[0]), _lasting(stage, setting, gated), where)
        recovery = RecoverStage(cut, setting.loss, options, total=1, val=None, extra={}, sparse=())
        recover = _timed(recovery.train_step, batches)
        check = 0.0 if val is None else _looking(cut, setting.val, where)
    steps = asdict(job.steps)
    trials = config.trials if drop is not None else 1
    each = {"probe": search, "search": search, "recover": recover}
    seconds = {name: each[name] * count for name, count in steps.items()}
    seconds["validation"] = check * job.steps.total / setting.per_epoch
    seconds = {name: trials * value for name, value in seconds.items()}
    start = {
        "macs": count_macs(cut, setting.example) / setting.price.total,
        "params": count_params(cut) / count_params(dense),
    }
    if "latency" in predicted:
        start["latency"] = predicted["latency"][0] / predicted["latency"][1]
    return Plan(
        None if config.target is None else dict(config.target),
        at,
        least,
        start,
        counts,
        steps,
        trials,
        {**seconds, "in all": sum(seconds.values())},
        {"search": search, "recover": recover},
        memory,
        str(where),
        notes,
    )


def _metrics(config: PruneConfig) -> tuple[Counted, ...]:
    return ("params",) if config.granularity == "connection" else COUNTED


def _timed(step: Callable[[Any], Any], batches: list[Any]) -> float:
    """Seconds of the fastest step; the first one pays for what is set up once."""
    found = []
    for batch in [batches[0], *batches]:
        _wait()
        began = time.perf_counter()
        step(batch)
        _wait()
        found.append(time.perf_counter() - began)
    return min(found)


def _wait() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@torch.no_grad()
def _looking(model: nn.Module, val: Any, where: torch.device) -> float:
    """Seconds of one pass over the validation data."""
    batch = map_tensors(lambda x: x.to(where), next(iter(val)))
    model.eval()
    return _timed(lambda b: model(split_batch(b)[0]), [batch]) * len(val) if hasattr(val, "__len__") else 0.0


def _lasting(stage: SearchStage, setting: Setting, gated: Any) -> list[Any]:
    """What lives between steps."""
    teacher = [] if setting.loss.teacher is None else [setting.loss.teacher.state_dict()]
    scorer = {} if gated.scorer is None else gated.scorer.state_dict()
    optimizers = [o.state_dict() for o in (stage.optimizer, stage.scorer_optimizer) if o is not None]
    gradients = [p.grad for p in [*gated.network_parameters(), *gated.scorer_parameters()] if p.grad is not None]
    return [gated.model.state_dict(), scorer, teacher, optimizers, gradients]


def _memory(step: Callable[[], Any], lasting: list[Any], where: torch.device) -> int:
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
        step()
        return torch.cuda.max_memory_allocated(where)
    known = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_in(lasting)}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(known.values()) + sum(saved.values())
