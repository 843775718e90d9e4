"""A target is checked on what is delivered: counted on the compact model, not as it was predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .. import layers
from ..budget import SLACK, Counted, Metric, Target, parse_target
from ..errors import ExactnessError, TargetError
from ..inputs import Inputs
from ..macs import MacCount, price
from ..metrics import count_params
from ..switching.connections import weight_of

_CURE = (
    "This is a mistake in snnprune; please report the model. `snnprune inspect` lists its groups, and --keep can "
    "exclude the one at fault."
)


def check_delivered(
    target: Target | None,
    dense: nn.Module,
    compact: nn.Module,
    example: Inputs,
    *,
    sparse: Sequence[str] = (),
    priced: MacCount | None = None,
) -> str | None:
    """Refuse a compact model that is larger than its target allows.

    Args:
        target: `{"macs": share}` or `{"params": share}`; None, the free mode, allows everything, and so does
            a target of time, which is no matter of counting.
        dense: the model that came in.
        compact: the one that goes out.
        example: what their forward takes.
        sparse: names of weights of which single connections were switched: those that are 0 do not count.
        priced: what the dense model costs, if that is known.

    Returns:
        Where it is smaller than was asked by more than 0.01 of the dense cost, that in words; else None.

    Raises:
        TargetError: the target is missed by more than 0.01 of the dense cost.
    """
    budget = parse_target(target)
    if budget is None or budget.metric == "latency":
        return None
    whole: float
    left: float
    if budget.metric == "macs":
        whole, left = _macs(dense, compact, example, priced)
    else:
        whole, left = (count_params(m) - _absent(m, sparse) for m in (dense, compact))
    if left > (budget.share + SLACK) * whole:
        share = left / whole
        raise TargetError(
            f"{budget.metric}={budget.share:g} was asked for, but the compact model has {share:.3f} of the "
            f"dense {budget.metric} ({left:.0f} of {whole:.0f}), {share - budget.share:.3f} too many. No result "
            f"was written. {_CURE}"
        )
    if left < (budget.share - SLACK) * whole:
        return (
            f"{budget.metric}={budget.share:g} was asked for, and the compact model keeps {left / whole:.3f}: no "
            "block of neurons more fits beside those that stay. A smaller round_to (--round-to 1), floor or width "
            "may come nearer"
        )
    return None


def check_predicted(
    predicted: Mapping[Metric, tuple[float, float]],
    dense: nn.Module,
    compact: nn.Module,
    example: Inputs,
    *,
    priced: MacCount | None = None,
) -> None:
    """Refuse a compact model that does not cost what the threshold was chosen by.

    Args:
        predicted: metric -> cost of the compact model and of the dense one, by which neurons were chosen; empty
            where nothing was predicted. A time that is among them is passed over: only a clock can tell.
        dense: the model that came in, from which costs were predicted.
        compact: what the gated model was compacted to.
        example: what their forward takes.
        priced: what the dense model costs, if that is known.

    Raises:
        ExactnessError: MACs or params as counted and as predicted differ by more than 0.01 of the dense cost.
    """
    if not predicted:
        return
    counted: dict[Counted, float] = {
        "macs": _macs(dense, compact, example, priced)[1],
        "params": count_params(compact),
    }
    for metric, (said, whole) in predicted.items():
        if metric == "latency":
            continue
        left = counted[metric]
        if abs(said - left) > SLACK * whole:
            raise ExactnessError(
                f"the compact model has {left:.0f} {metric}, where {said:.0f} were predicted, so the target would "
                f"be missed without a word. {_CURE}"
            )


def _macs(dense: nn.Module, compact: nn.Module, example: Inputs, priced: MacCount | None) -> tuple[float, float]:
    """Multiply-adds of both models, counted, for the same work.

    How often a layer is at work may depend on what the network computes: a detector's second stage sees as many
    boxes as the first one finds, and another network finds others. Layers of the compact model are therefore taken
    at as many places as those of the dense one.
    """
    whole, left = priced or price(dense, example), price(compact, example)
    total = float(left.total)
    for name, before in whole.layers.items():
        if name in left.layers and not layers.is_customized(dense.get_submodule(name)):
            places = before / _weights(dense, name)  # a place or time step costs as many as there are weights
            total += places * _weights(compact, name) - left.layers[name]
    return float(whole.total), total


def _weights(model: nn.Module, layer: str) -> int:
    module = model.get_submodule(layer)
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor):
        return weight.numel()
    return sum(p.numel() for p in module.parameters(recurse=False) if p.dim() > 1)  # of a recurrent layer several


def _absent(model: nn.Module, sparse: Sequence[str]) -> int:
    """Weights that are exact zeros in layers whose connections were switched."""
    weights = [weight_of(model, name.removesuffix(".weight")) for name in sparse]
    return sum(weight.numel() - int(weight.count_nonzero()) for weight in weights)
