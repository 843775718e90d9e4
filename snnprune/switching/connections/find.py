"""Which layers have connections that can be switched one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn

from ...errors import UnsupportedModelError
from ...graph import named_by
from ...layers import IndexedLinear


def switched_layers(model: nn.Module, keep: Sequence[str] = ()) -> list[str]:
    """Names of the fully connected layers whose weights are their own, in the order of the model.

    Args:
        model: the network.
        keep: shell patterns of module names that stay whole, see `named_by`.

    Raises:
        UnsupportedModelError: there is none.
    """
    shared = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    found = [
        name
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, IndexedLinear)
        and shared[id(module.weight)] == 1
        and int(
            torch.count_nonzero(module.get_parameter("weight"))
        )  # of nothing but zeros there is nothing to choose from
        and not named_by(name, keep)
    ]
    if not found:
        raise UnsupportedModelError(
            "the model has no fully connected layer whose connections could be switched. Switch neurons instead "
            "(granularity neuron), or check --keep."
        )
    return found
