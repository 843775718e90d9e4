"""trace(): the groups of a model, proved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .. import streams
from ..errors import UnsupportedModelError
from ..graph import NeuronGroup, find_groups
from ..inputs import Inputs, unwrap
from ..options import Names, Paths, checked
from ..plain import plain
from .finite import check_numbers
from .verify import verify_groups


@torch.inference_mode(False)  # a copy that is made inside has no gradients
def trace(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    keep: Sequence[str] = (),
    outputs: Sequence[str] = (),
    input_neurons: bool = True,
    verify: bool = True,
) -> list[NeuronGroup]:
    """Find the groups of neurons that can be pruned exactly, and list the others with the reason.

    Every group that is returned as prunable has passed a numerical proof on a copy of the model:
    with random scales (30 % zeros) and randomised batch-norm statistics, folding alone and folding
    plus removing agree in float64.

    Args:
        model: any network; nothing in it changes. DataParallel, DistributedDataParallel, AveragedModel and
            `torch.compile` wrappers are looked through.
        example_inputs: what its forward takes: a tensor, a tuple of arguments or a dict.
        keep: shell patterns of module names whose channels must stay, such as `layer4.*`. A pattern names a
            module, or one that it lies in: `layer4` does the same.
        outputs: paths of the outputs that matter, such as `0`, `logits` or `aux.0`: keys, names of fields and
            places, or shell patterns of them; a path names all that lies below it. Others keep no neurons, and
            pruning may change them. By default all matter.
        input_neurons: also single inputs of fully connected layers (pixels, flattened units).
        verify: run the numerical proof.

    Raises:
        AttachError: the model has gates attached.
        ConfigError: a pattern of `keep` or `outputs` matches nothing, `model` is no module with values, or
            `example_inputs` hold NaN.
        UnsupportedModelError: the model does not run, or nothing in it can be pruned.

    Example:
        >>> groups = snnprune.trace(torchvision.models.resnet18(), torch.randn(2, 3, 64, 64))
        >>> print(groups[0])
        conv1 (channel, 64 neurons; prunable)
    """
    model, keep = unwrap(plain(model, "trace()")), checked("keep", keep, Names)
    outputs = checked("outputs", outputs, Paths)
    check_numbers(model, example_inputs, "example_inputs")
    input_neurons, verify = checked("input_neurons", input_neurons, bool), checked("verify", verify, bool)
    with streams.kept():  # dropout in a pass in training mode draws
        streams.seed_all(0)  # and which layers such a pass meets must not depend on chance
        groups = find_groups(model, example_inputs, keep=keep, outputs=outputs, input_neurons=input_neurons)
        if verify:
            groups = verify_groups(model, groups, example_inputs, outputs=outputs)
    if not any(group.prunable for group in groups):
        reasons = "; ".join(f"{g.id}: {g.reason}" for g in groups) or "it has no layer with neurons"
        raise UnsupportedModelError(f"nothing in this model can be pruned exactly. {reasons}.")
    return groups
