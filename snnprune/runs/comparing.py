"""Two models side by side, without a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import nn

from ..graph import layer_shapes
from ..inputs import Inputs, device_of
from ..loaders import reread
from ..losses import LossFunction
from ..macs import count_macs, price
from ..measures import ACCURACY, measure_of
from ..metrics import count_nonzero, count_params, evaluate
from ..plain import plain
from ..ranks import Ranks
from .report import Report, both_right, device_name, figures_of
from .sparse import stored_bytes


def compare(
    dense: nn.Module,
    compact: nn.Module,
    data: Iterable[Any] | None = None,
    *,
    example_inputs: Inputs,
    metric: Any = None,
    loss_fn: LossFunction | None = None,
) -> Report:
    """Two models side by side: accuracy and loss on `data`, or a metric of your own, MACs and params.

    Args:
        dense: the model before.
        compact: the model after.
        data: batches of (images, labels); None compares the costs alone.
        example_inputs: what both take, a batch of any size: a tensor, a tuple of arguments or a dict. MACs are
            those of one input.
        metric: instead of the accuracy, as `evaluate` takes it.
        loss_fn: `loss_fn(model, batch)`, whose mean is the figure where there is no metric.

    Returns:
        A report with figures alone: no groups, no exactness, `split` is `given`.

    Raises:
        AttachError: a model has gates attached; compare what `compact()` gives.
        ConfigError: a model is no module with values.
        DataError: `data` is empty, an iterator, without labels, or has one that is none of the model's classes.
        MetricError: the metric fails, or gives no finite number.
        UnsupportedModelError: a model does not run on `example_inputs`.

    Example:
        >>> report = snnprune.compare(model, small, test, example_inputs=images)
        >>> 0 <= report.compact.accuracy <= 1
        True
    """
    dense, compact = plain(dense, "compare()"), plain(compact, "compare()")
    data = None if data is None else reread(data, "compare()'s data")
    for model in (dense, compact):
        layer_shapes(model, example_inputs)  # which says so where it does not run
    measure = measure_of(metric, loss_fn)
    found = [
        None if data is None else evaluate(model, data, metric=measure, loss_fn=loss_fn)
        for model in (dense, compact)
    ]
    before, after = (
        figures_of(
            measured,
            count_macs(model, example_inputs),
            count_params(model),
            count_nonzero(model),
        )
        for model, measured in zip((dense, compact), found, strict=True)
    )
    if after.nonzero is not None and after.nonzero > 0.95 * after.params:  # a few zeros are chance
        before, after = replace(before, nonzero=None), replace(after, nonzero=None)
    device = device_of(dense)
    return Report(
        before,
        after,
        groups=[],
        exactness={"fold": None, "remove": None, "onnx": None},
        target=None,
        seed=0,
        data="",
        split="given",
        inputs={} if found[0] is None else {"given": found[0].count},
        both_right=both_right(found[0], found[1], Ranks()),
        metric=ACCURACY if measure is None else measure.info,
        seconds=0.0,
        device=device_name(device),
        unpriced=list(price(dense, example_inputs).unpriced),
        stored={"dense": stored_bytes(dense), "compact": stored_bytes(compact)},
    )
