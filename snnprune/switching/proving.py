"""The proof that every run gives before its result is used."""

from __future__ import annotations

import copy
from typing import Any

import torch

from ..errors import ExactnessError
from ..inputs import Inputs, call, to_dtype
from ..proof import TOLERANCE, Difference, gated_difference, measured
from ..surgery import fold_, remove_
from .connections import ConnectionModel, fold_connections_, weight_of
from .gated import GatedModel


@torch.no_grad()
def prove_compaction(gated: GatedModel, sample: Inputs) -> dict[str, float]:
    """Gated = folded = removed, in float64 on real inputs.

    Args:
        gated: the gated model at the end of the search.
        sample: real inputs, as the model's forward takes them.

    Returns:
        Relative differences: `fold` (gated against folded) and `remove` (gated against removed).

    Raises:
        ExactnessError: they disagree by more than 1e-10 and more than 10 x the model's noise floor.
    """
    inputs = to_dtype(sample, torch.float64)
    model = gated.plain_copy().double().eval()
    scales = {name: scale.double() for name, scale in gated.scales.items()}
    other = fold_(copy.deepcopy(model), gated.groups, scales)
    found: dict[str, float] = {}
    for step in ("fold", "remove"):
        if step == "remove":
            remove_(other, gated.groups, scales)
        found[step] = _checked(step, gated_difference(model, other, gated.groups, scales, inputs))
    return found


@torch.no_grad()
def prove_connections(gated: ConnectionModel, sample: Inputs) -> dict[str, float]:
    """Scaled = folded = removed for single connections, in float64 on real inputs.

    Returns:
        Relative differences: `fold` (weights scaled in the call against stored ones) and `remove` (neurons
        without connections cut out).

    Raises:
        ExactnessError: as for `prove_compaction`.
    """
    inputs = to_dtype(sample, torch.float64)
    model = copy.deepcopy(gated.network).double().eval()
    scales = {name: scale.double() for name, scale in gated.connection_scales().items()}
    other = fold_connections_(copy.deepcopy(model), scales)
    weights = {f"{name}.weight": weight_of(model, name) * scale for name, scale in scales.items()}

    def scaled(*args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(model, weights, args, kwargs, tie_weights=False)

    found: dict[str, float] = {}
    for step in ("fold", "remove"):
        if step == "remove":
            remove_(other, gated.groups, gated.scales)
        found[step] = _checked(step, measured(lambda x: call(scaled, x), lambda x: call(other, x), inputs))
    return found


def _checked(step: str, difference: Difference) -> float:
    if not difference.exact:
        raise ExactnessError(
            f"the {step} step changed the model's outputs by {difference.relative:.3g} of their spread "
            f"(allowed: {max(TOLERANCE, 10 * difference.noise):.1g}). No result was written. Please report "
            "this model; `snnprune inspect` lists its groups, and --keep can exclude the one at fault."
        )
    return difference.relative
