"""How far what torch-pruning removed is from the network in which nothing sees the removed channels."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .. import layers
from ..draws import Draws
from ..errors import CriterionError
from ..inputs import Inputs, call, tensors_in, to_dtype
from ..proof.difference import relative_difference
from ..shown import cut
from ..surgery import scale_call
from .theirs import failing


@torch.no_grad()
def inexactness(dense: nn.Module, pruned: nn.Module, left: Mapping[str, Sequence[int]], sample: Inputs) -> float:
    """How far a pruned network is from the dense one in which no layer sees the channels that it lost, in float64.

    Largest difference of the outputs over their spread; rounding alone makes about 1e-15.

    Args:
        dense: before the removal.
        pruned: after it, not yet recovered.
        left: which input channels every layer has left.
        sample: real inputs.
    """
    whole, small = (copy.deepcopy(model).double().eval() for model in (dense, pruned))
    x = to_dtype(sample, torch.float64)
    for name, channels in left.items():
        whole.get_submodule(name).register_forward_pre_hook(_Masked(channels), with_kwargs=True)
    with failing("leaves a network that does not run"):
        before, after = Draws().both(lambda: call(whole, x), lambda: call(small, x))
        # how many boxes a detector finds, along the first dimension, is a value and no form
        forms = [[tuple(t.shape[1:]) for t in tensors_in(outputs)] for outputs in (before, after)]
    if forms[0] != forms[1]:
        raise CriterionError(
            f"torch-pruning's pruner changes the form of an input's outputs, from {cut(str(forms[0]), 80)} to "
            f"{cut(str(forms[1]), 80)}. Its order under our surgery does not; or name the layers behind them by "
            "--keep."
        )
    return relative_difference(before, after)


class _Masked:
    """Forward pre-hook: a layer does not see the channels that are not left."""

    def __init__(self, channels: Sequence[int]) -> None:
        self.channels = list(channels)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mask = torch.zeros(layers.in_width(module), dtype=torch.float64)
        mask[self.channels] = 1
        return scale_call(module, args, kwargs, mask)
