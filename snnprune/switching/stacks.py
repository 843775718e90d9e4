"""All weights that a switcher reads or that gates scale, those of one shape in one tensor.

A network repeats few shapes: the 54 weight tensors of a ResNet-50 have about 21. So what is done with every
weight, reading it or scaling its columns, takes one operation per shape instead of one per layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
            side = layers.input_dim(module) if layers.main_weight(module) == name.rpartition(".")[2] else None
            key = (tensor.shape, tensor.dtype, tensor.device, side)
            stack = known.setdefault(key, len(self.names))
            if stack == len(self.names):
                self.names.append([])
            self.place[name] = stack, len(self.names[stack])
            self.names[stack].append(name)

    def __call__(self, model: nn.Module) -> list[Tensor]:
        """One contiguous (members, *shape) tensor per shape, differentiable in the weights.

        Of a single contiguous weight it is a view.
        """
        tensors = [[tensor_of(model, name) for name in names] for names in self.names]
        return list(_Stack.apply([len(some) for some in tensors], *(t for some in tensors for t in some)))  # type: ignore[arg-type]


class _Stack(torch.autograd.Function):
    """All stacks by one copy, and their gradients back by none."""

    @staticmethod
    def forward(ctx: Any, counts: list[int], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.counts = counts
        ctx.set_materialize_grads(False)
        found: list[Tensor | None] = []
        copied: dict[Any, list[Tensor]] = {}  # by type and device
        at = 0
        for count in counts:
            some = tensors[at : at + count]
            at += count
            # what reads a stack takes rows apart, which a weight in channels_last does not let it
            found.append(some[0].detach()[None].contiguous() if count == 1 else None)
            if count > 1:
                copied.setdefault((some[0].dtype, some[0].device), []).extend(some)
        flat = {key: torch.cat([t.reshape(-1) for t in some]) for key, some in copied.items()}
        begin = dict.fromkeys(flat, 0)
        at = 0
        for i, count in enumerate(counts):
            first = tensors[at]
            at += count
            if found[i] is None:
                key = first.dtype, first.device
                size = count * first.numel()
                found[i] = flat[key][begin[key] : begin[key] + size].view(count, *first.shape)
                begin[key] += size
        return tuple(stack for stack in found if stack is not None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        found: list[Tensor | None] = [None]
        for gradient, count in zip(gradients, ctx.counts, strict=True):
            found.extend([None] * count if gradient is None else gradient.unbind(0))
        return tuple(found)


def tensor_of(model: nn.Module, name: str) -> Tensor:
    """A tensor by its dotted name: a parameter, or what a parametrisation makes of one."""
    owner, _, last = name.rpartition(".")
    tensor = getattr(model.get_submodule(owner), last)
    assert isinstance(tensor, Tensor), name
    return tensor
