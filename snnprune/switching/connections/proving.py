"""The proof that every run which switches connections gives before its result is used."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from ...inputs import Inputs, call, to_dtype
from ...proof import measured
from ...surgery import remove_
from ..proving import refuse_inexact
from .weights import fold_connections_, weight_of

if TYPE_CHECKING:
    from .model import ConnectionModel


@torch.no_grad()
def prove_connections(gated: ConnectionModel, sample: Inputs) -> dict[str, float]:
    """Scaled = folded = removed for single connections, in float64 on real inputs.

    Returns:
        Relative differences: `fold` (weights scaled in the call against stored ones) and `remove` (neurons
        without connections cut out).

    Raises:
        ExactnessError: as for `prove_neurons`.
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
        found[step] = refuse_inexact(step, measured(lambda x: call(scaled, x), lambda x: call(other, x), inputs))
    return found
