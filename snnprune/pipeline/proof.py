"""The proof that every run gives before its result is used."""

from __future__ import annotations

import copy

import torch

from ..errors import ExactnessError
from ..gates import GatedModel
from ..inputs import Inputs, call, map_tensors, to_dtype
from ..surgery import Difference, fold_, relative_difference, remove_


@torch.no_grad()
def prove_compaction(gated: GatedModel, sample: Inputs) -> dict[str, float]:
    """Gated = folded = removed, in float64 on real inputs.

    Args:
        gated: the gated model at the end of the search.
        sample: real inputs, as the model's forward takes them.

    Returns:
        Relative differences: `fold` (gated against folded) and `remove` (folded against removed).

    Raises:
        ExactnessError: they disagree by more than 1e-10 and more than 10 x the model's noise floor.
    """
    inputs = to_dtype(sample, torch.float64)
    nudged_inputs = map_tensors(lambda x: x * (1 + 1e-15) if x.is_floating_point() else x, inputs)
    model = gated.plain_copy().double().eval()
    scales = {name: scale.double() for name, scale in gated.scales.items()}
    folded = fold_(copy.deepcopy(model), gated.groups, scales)
    removed = remove_(copy.deepcopy(folded), gated.groups, scales)
    with GatedModel(model, gated.groups, cost=gated.cost) as twin:
        twin.set_scales(scales)
        reference = call(twin, inputs)
        nudged = relative_difference(reference, call(twin, nudged_inputs))
    outputs = {"fold": (reference, call(folded, inputs))}
    outputs["remove"] = (outputs["fold"][1], call(removed, inputs))
    found = {}
    for step, (a, b) in outputs.items():
        difference = Difference(relative_difference(a, b), nudged)
        if not difference.exact:
            raise ExactnessError(
                f"the {step} step changed the model's outputs by {difference.relative:.3g} of their spread "
                f"(allowed: {max(1e-10, 10 * nudged):.1g}). No result was written. Please report this model; "
                "`snnprune inspect` lists its groups, and --keep can exclude the one at fault."
            )
        found[step] = difference.relative
    return found
