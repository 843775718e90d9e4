"""The proof that every run gives before its result is used."""

from __future__ import annotations

import copy

import torch

from ..errors import ExactnessError
from ..gates import GatedModel
from ..inputs import Inputs, to_dtype
from ..surgery import TOLERANCE, fold_, gated_difference, remove_


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
        difference = gated_difference(model, other, gated.groups, scales, inputs)
        if not difference.exact:
            raise ExactnessError(
                f"the {step} step changed the model's outputs by {difference.relative:.3g} of their spread "
                f"(allowed: {max(TOLERANCE, 10 * difference.floor):.1g}). No result was written. Please report "
                "this model; `snnprune inspect` lists its groups, and --keep can exclude the one at fault."
            )
        found[step] = difference.relative
    return found
