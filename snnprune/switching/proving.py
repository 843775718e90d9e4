"""The proof that every run gives before its result is used."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import ExactnessError
from ..inputs import Inputs, to_dtype
from ..proof import TOLERANCE, Difference, gated_difference
from ..surgery import Scales, fold_, remove_

if TYPE_CHECKING:
    from .neurons import GatedModel


@torch.no_grad()
def prove_neurons(gated: GatedModel, sample: Inputs) -> dict[str, float]:
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
        found[step] = refuse_inexact(step, _apart(gated, model, other, scales, inputs))
    return found


def _apart(gated: GatedModel, model: nn.Module, other: nn.Module, scales: Scales, inputs: Inputs) -> Difference:
    return gated_difference(model, other, gated.groups, scales, inputs, outputs=gated.outputs)


def refuse_inexact(step: str, difference: Difference) -> float:
    """The relative difference that a step has made.

    Raises:
        ExactnessError: it is more than is allowed.
    """
    if not difference.exact:
        raise ExactnessError(
            f"the {step} step changed the model's outputs by {difference.relative:.3g} of their spread "
            f"(allowed: {max(TOLERANCE, 10 * difference.noise):.1g}). No result was written. Please report "
            "this model; `snnprune inspect` lists its groups, and --keep can exclude the one at fault."
        )
    return difference.relative
