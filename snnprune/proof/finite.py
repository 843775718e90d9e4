"""Inputs that are no numbers: refused where the model makes none of them either."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import streams
from ..errors import ConfigError, SnnPruneError
from ..inputs import Inputs, call, tensors_in
from ..resting import evaluating


def check_numbers(model: nn.Module, inputs: Inputs, name: str, error: type[SnnPruneError] = ConfigError) -> None:
    """Refuse inputs that are not finite where outputs are not either.

    Some models make numbers of them: NaN may stand for a missing value, minus infinity for what attention must not
    see. So it is the model that is asked.

    Args:
        model: the network; it runs in evaluation mode, and only if inputs are not finite.
        inputs: what its forward takes.
        name: what they are, for the message.
        error: what is raised.

    Raises:
        SnnPruneError: they hold NaN or infinity, and some output is NaN or plus infinity.
    """
    floats = [x for x in tensors_in(inputs) if x.is_floating_point() and x.layout == torch.strided]
    count = sum(int((~_wide(x).isfinite()).sum()) for x in floats)
    if not count:
        return
    try:
        with streams.kept(), evaluating(model):
            outputs = [x for x in tensors_in(call(model, inputs)) if x.is_floating_point()]
    except Exception:  # it is told where the model runs next
        return
    if any(bool((x.isnan() | (x == torch.inf)).any()) for x in map(_wide, outputs)):
        raise error(
            f"{count} values of {name} are NaN or infinite, and so is what the model makes of them. Mend or leave "
            "out those inputs."
        )


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.element_size() == 1 else x  # of eight bits isnan knows nothing
