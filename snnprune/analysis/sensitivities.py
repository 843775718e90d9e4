"""The metric against the kept share, before any recovery: group by group, and for the whole model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn

from ..budget import COUNTED, ROUND_TO, CostModel, Counted, read_widths
from ..errors import ConfigError, TargetError
from ..inputs import Inputs, device_of, first_images, map_tensors, unwrap
from ..learner import LossFunction, TaskLoss
from ..loaders import loader_of, reread
from ..losses import check_loss
from ..macs import price
from ..measures import ACCURACY, Accuracy, Evaluation, MetricInfo, measure_of
from ..metrics import evaluate
from ..options import Count, Names, Part, Paths, Share, checked, each
from ..plain import copied, plain
from ..proof.tracing import trace
from ..runs.timer import Timer
from ..runs.times import conditions_of, trial_times
from ..shown import brief_repr
from ..switching import Options, first_scores, switch_neurons
from ..timing.serving import Serving

SHARES = (0.75, 0.5, 0.25)
TARGETS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How fast the metric gets worse when neurons go and nothing recovers.

    Attributes:
        value: of the metric, of the model as it is.
        count: inputs it was measured on.
        groups: per group `id`, `size`, and `points`: for every share of its neurons the `kept` number, the
            model's `macs` and `params` as shares of the dense ones, and the `value` (where the metric is the
            accuracy also as `accuracy`).
        whole: for every target that floors allow the `target`, `macs`, `params`, and `value` of one cut
            through all groups; where they were timed also `latency` (share of the dense model's time), `dense_ms`,
            `compact_ms` and `spread`, and `refused`, the reason why one of them is None.
        cost: of the targets, `macs` or `params`.
        metric: what was measured: its `name`, `higher_is_better`, and `percent`.
        served: what they were timed on: `engine`, `version`, `device`, `batch`, `precision`, `threads`; None where
            nothing was timed.
    """

    value: float
    count: int
    groups: list[dict[str, Any]]
    whole: list[dict[str, Any]]
    cost: str
    metric: MetricInfo = ACCURACY
    served: dict[str, Any] | None = None

    @property
    def accuracy(self) -> float | None:
        """The value where the metric is the accuracy, a fraction in [0, 1]; else None."""
        return Evaluation(self.value, None, self.count, self.metric).accuracy

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `accuracy` only where the metric is that."""
        accuracy = {} if self.accuracy is None else {"accuracy": self.accuracy}
        return {**asdict(self), **accuracy}


@torch.inference_mode(False)
def sensitivity(
    model: nn.Module,
    data: Iterable[Any],
    *,
    example_inputs: Inputs | None = None,
    shares: Sequence[float] = SHARES,
    targets: Sequence[float] = TARGETS,
    cost: Counted = "macs",
    metric: Any = None,
    keep: Sequence[str] = (),
    outputs: Sequence[str] = (),
    width: Sequence[str] | Mapping[str, float | str] = (),
    uniform: Sequence[str] = (),
    floor: float = 0.1,
    round_to: int = ROUND_TO,
    batches: Iterable[Any] | None = None,
    loss_fn: LossFunction | None = None,
    time: bool = False,
    serving: Serving | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Sensitivity:
    """Remove the weakest neurons of one group after the other, and of all at once, and look at the metric.

    Nothing is trained: a fall here says where the model is tender, not where a run ends, because the
    recovery regains most of it.

    Args:
        model: a trained network; it stays as it is.
        data: batches of (inputs, labels), or what a metric or a loss of your own takes; validation data, not the
            test's.
        example_inputs: what the model's forward takes; by default the first inputs of `data`.
        shares: of a group's neurons, each in (0, 1).
        targets: shares of the dense cost for the whole model, each in (0, 1).
        cost: `macs` or `params`. (It was called `metric`; both words are still taken there, until 0.3.)
        metric: what is measured, as `evaluate` takes it; by default the accuracy, with a `loss_fn` its mean.
        keep: shell patterns of module names whose channels must stay, as for `trace`.
        outputs: paths of the outputs that matter, as for `trace`.
        width: shares or numbers of neurons that stay in a cut through all, as for `PruneConfig`.
        uniform: patterns whose groups keep the same share in such a cut, as for `PruneConfig`.
        floor: least kept share of every group in a cut through all.
        round_to: keep multiples of this many channels in such a cut, as a run does; 1 keeps any number.
        batches: training batches by which neurons are ordered as at the start of a run; without them by the
            norms of their weights.
        loss_fn: `loss_fn(model, batch)` for those, instead of cross-entropy, and to measure by.
        time: also time every cut through all groups beside the model as it is, for seconds each. A model that
            cannot be timed goes without, with a warning.
        serving: what serves them then; by default ONNX Runtime, one input a call.
        on_step: told (evaluations done, in all).

    Raises:
        AttachError: the model has gates attached.
        ConfigError: an option makes no sense, or the model is none.
        UnsupportedModelError: nothing can be pruned exactly.
        DataError: the data do not fit the model.
        MetricError: the metric fails, or gives no finite number.

    Example:
        >>> found = snnprune.sensitivity(model, val, targets=[0.5])
        >>> found.whole[0]["macs"] <= 0.5
        True
    """
    model, data = plain(model, "sensitivity()"), reread(data, "sensitivity()'s data")
    if isinstance(metric, str) and metric in COUNTED:
        told = f"sensitivity(metric={metric!r}) is now cost={metric!r}; until 0.3 it is taken as before."
        warnings.warn(told, DeprecationWarning, stacklevel=2)
        cost, metric = metric, None
    cost, floor = checked("cost", cost, Counted), checked("floor", floor, Share)
    outputs = checked("outputs", outputs, Paths)
    shares, targets = each("shares", shares, Part), each("targets", targets, Part)
    round_to, time = checked("round_to", round_to, Count), checked("time", time, bool)
    if not isinstance(serving, (Serving, NoneType)):
        raise ConfigError(f"serving={brief_repr(serving)} must be a snnprune.Serving, or None.")
    if batches is not None:
        loader_of(batches, "sensitivity()'s batches")
    if on_step is not None and not callable(on_step):
        raise ConfigError(f"on_step={brief_repr(on_step)} must be a function of (done, in all), or None.")
    check_loss(loss_fn)
    measure = measure_of(metric, loss_fn) or Accuracy()
    where = device_of(model)
    network = copied(unwrap(model)).eval()
    example = map_tensors(
        lambda x: x.to(where), first_images(data, 2) if example_inputs is None else example_inputs
    )
    groups = trace(network, example, keep=keep, outputs=outputs)
    uniform = checked("uniform", uniform, Names)
    costs = CostModel(network, groups, example, width=read_widths(width), uniform=uniform)
    hard = TaskLoss(None, distill=0.0, temperature=1.0, loss_fn=loss_fn).hard
    look = None if batches is None else lambda: batches
    scores = first_scores(network, groups, costs, Options(metric=cost), look=look, loss=hard)
    cuts: list[tuple[dict[str, Any], dict[str, Tensor]]] = []  # where the value goes, and what is kept
    table: list[dict[str, Any]] = []
    for group in costs.groups.values():
        points: list[dict[str, Any]] = []
        for share in shares:
            count = max(1, math.ceil(share * group.size))
            mask = torch.zeros(group.size, dtype=torch.bool)
            mask[torch.from_numpy(scores[group.id]).argsort(descending=True, stable=True)[:count]] = True
            points.append({"kept": count})
            cuts.append((points[-1], {group.id: mask}))
        table.append({"id": group.id, "size": group.size, "points": points})
    whole: list[dict[str, Any]] = []
    for share in targets:
        try:
            kept = costs.select(cost, share, scores, floor=floor, round_to=round_to).kept
        except TargetError:
            continue  # below what the floors allow
        whole.append({"target": share})
        cuts.append((whole[-1], {n: torch.from_numpy(m) for n, m in kept.items()}))
    served: dict[str, Any] | None = None
    timer = Timer(model, example, serving or Serving(), price(network, example).total) if time else None
    with switch_neurons(network, groups, costs, Options(scores=None, outputs=outputs)) as gated:
        before = evaluate(gated, data, metric=measure)
        for done, (entry, masks) in enumerate(cuts, 1):
            every = {n: torch.ones(g.size) for n, g in costs.groups.items()}
            gated.set_scales({**every, **{n: m.float() for n, m in masks.items()}})
            chosen = {n: m.numpy() for n, m in masks.items()}
            entry |= {m: costs.share(m, chosen) for m in COUNTED}
            found = evaluate(gated, data, metric=measure)
            entry |= {"value": found.value} | ({} if found.accuracy is None else {"accuracy": found.accuracy})
            times = timer(gated.compact()) if timer is not None and "target" in entry else None
            if times is not None:
                entry |= trial_times(times)
                served = conditions_of(times)
            if on_step is not None:
                on_step(done, len(cuts))
    return Sensitivity(before.value, before.count, table, whole, cost, measure.info, served)
