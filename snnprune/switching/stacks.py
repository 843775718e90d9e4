"""All weights that a switcher reads or that gates scale, those of one shape in one tensor.

A network repeats few shapes: the 54 weight tensors of a ResNet-50 have about 21. So what is done with every
weight, reading it or scaling its columns, takes one operation per shape instead of one per layer.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .. import layers


class Stacks:
    """Weights by shape.

    Args:
        model: the network.
        names: of the tensors, such as `conv1.weight`, in the order in which they come in their stacks; each may be
            a parameter or what a parametrisation computes.

    Attributes:
        place: name -> (stack, position in it).
        names: of each stack's tensors, in order.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self.place: dict[str, tuple[int, int]] = {}
        self.names: list[list[str]] = []
        known: dict[object, int] = {}
        for name in dict.fromkeys(names):
            tensor = tensor_of(model, name)
            module = model.get_submodule(name.rpartition(".")[0])
            side = layers.input_dim(module) if layers.is_conv(module) or isinstance(module, nn.Linear) else None
            key = (tensor.shape, tensor.dtype, tensor.device, side)
            stack = known.setdefault(key, len(self.names))
            if stack == len(self.names):
                self.names.append([])
            self.place[name] = stack, len(self.names[stack])
            self.names[stack].append(name)

    def __call__(self, model: nn.Module) -> list[Tensor]:
        """One (members, *shape) tensor per shape, differentiable in the weights; of a single one a view."""
        found = []
        for names in self.names:
            tensors = [tensor_of(model, name) for name in names]
            found.append(tensors[0][None] if len(tensors) == 1 else torch.stack(tensors))
        return found


def tensor_of(model: nn.Module, name: str) -> Tensor:
    """A tensor by its dotted name: a parameter, or what a parametrisation makes of one."""
    owner, _, last = name.rpartition(".")
    tensor = getattr(model.get_submodule(owner), last)
    assert isinstance(tensor, Tensor), name
    return tensor
