"""Our groups in the form that torch-pruning's importances take: pairs of a dependency and channel indices.

Its own dependency graph is not needed for that. So its criteria judge every network whose groups are found here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from .. import layers
from ..graph import Member, NeuronGroup

_BETWEEN = (
    (_BatchNorm, "prune_batchnorm_out_channels"),
    (nn.LayerNorm, "prune_layernorm_out_channels"),
    (nn.GroupNorm, "prune_groupnorm_out_channels"),
    (_InstanceNorm, "prune_instancenorm_out_channels"),
    (nn.PReLU, "prune_prelu_out_channels"),
)


class Item(tuple[Any, Any]):
    """A dependency and the channels of its layer; `root_idxs` says which neuron each of them belongs to."""

    root_idxs: list[int]

    def __new__(cls, dep: Any, idxs: list[int], root_idxs: list[int]) -> Item:
        """One layer's part in a group."""
        made = super().__new__(cls, (dep, idxs))
        made.root_idxs = root_idxs
        return made

    @property
    def dep(self) -> Any:
        """The dependency: its layer, and the function that would prune it."""
        return self[0]

    @property
    def idxs(self) -> list[int]:
        """Channels of the layer, in ascending order."""
        return self[1]


class Group(list[Item]):
    """All layers that hold channels of a group's neurons; one that has one channel of every neuron comes first."""

    @property
    def items(self) -> list[Item]:
        """The group itself, under the name that torch-pruning's own has."""
        return self


def stand_in(model: nn.Module, group: NeuronGroup, functions: Any) -> Group:
    """A group as torch-pruning would give it to an importance.

    Layers of other classes than PyTorch's convolutions and linear layers, transposed convolutions in groups,
    weights that are computed, and the projections inside attention come as linear layers with the same weights
    and gradients.

    Args:
        model: the network.
        group: one of its groups.
        functions: torch-pruning's pruning functions.
    """
    items, whole = [], []
    for layer, function, member, channels in _parts(model, group):
        pairs = sorted(zip(channels, member.neurons, strict=True))
        idxs, roots = [c for c, _ in pairs], [n for _, n in pairs]
        node = SimpleNamespace(module=layer, name=member.module)
        handler = getattr(functions, function)
        dep = SimpleNamespace(
            layer=layer, target=node, source=node, handler=handler, pruning_fn=handler, trigger=handler
        )
        items.append(Item(dep, idxs, roots))
        whole.append(member.one_to_one and len(roots) == group.size)
    first = sorted(range(len(items)), key=lambda at: not whole[at])  # its order else stays
    return Group(items[at] for at in first)


def _parts(model: nn.Module, group: NeuronGroup) -> Iterator[tuple[nn.Module, str, Member, Sequence[int]]]:
    """(layer, name of its pruning function, member, channels as the layer's weight counts them), makers first."""
    order = {"producer": 0, "parameter": 1, "between": 2, "consumer": 3}
    tensors = dict(model.named_parameters())
    for member in sorted(
        (m for m in group.members if m.role in order and m.channels), key=lambda m: order[m.role]
    ):
        if member.role == "parameter":  # a projection; tables of position biases stand beside layers that say more
            matrix = tensors.get(member.module)
            if matrix is not None and matrix.dim() == 2 and member.dim == 0 and not group.producers:
                yield _linear(matrix, matrix.grad), "prune_linear_out_channels", member, member.channels
            continue
        module = model.get_submodule(member.module)
        channels: Sequence[int] = member.channels
        if isinstance(module, layers.IndexedLinear) and member.role == "consumer":
            place = {source: column for column, source in enumerate(module.index.tolist())}
            channels = [place[c] for c in channels]
        side = "in" if member.role == "consumer" else "out"
        if isinstance(module, (_ConvNd, nn.Linear)) and not (layers.is_computed(module) or _is_split(module)):
            kind = "linear"
            if isinstance(module, _ConvNd):
                depthwise = 1 < module.groups == module.in_channels == module.out_channels
                kind = "depthwise_conv" if depthwise else "conv"
            yield module, f"prune_{kind}_{side}_channels", member, channels
            continue
        function = next((name for cls, name in _BETWEEN if isinstance(module, cls)), None)
        if function is not None:
            yield module, function, member, channels
        elif (own := _weight_of(module)) is not None:
            yield _as_linear(module, getattr(module, own), side), f"prune_linear_{side}_channels", member, channels


def _is_split(module: nn.Module) -> bool:
    """A transposed convolution in groups: its weight has rows for the outputs of one group alone."""
    return isinstance(module, _ConvNd) and module.transposed and module.groups > 1


def _weight_of(module: nn.Module) -> str | None:
    """Name of a weight over inputs and outputs in its first two dimensions, also of a user's own layer."""
    if not layers.is_weighted(module):
        return None
    name = next(iter(layers.tensors(module, "inputs")), None)
    return name if name and {layers.input_dim(module), layers.output_dim(module)} == {0, 1} else None


def _as_linear(module: nn.Module, weight: Tensor, side: str) -> nn.Module:
    """A layer with one row (or column) per channel, whatever the class of the one that it stands for."""

    def seen(tensor: Tensor) -> Tensor:
        return layers.weight_columns(module, tensor).t() if side == "in" else layers.weight_rows(module, tensor)

    gradient = weight.grad if weight.is_leaf else None
    return _linear(seen(weight.detach()), None if gradient is None else seen(gradient))


def _linear(weight: Tensor, gradient: Tensor | None) -> nn.Module:
    with torch.device("meta"):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    made.weight = nn.Parameter(weight.detach(), requires_grad=False)
    made.weight.grad = gradient
    return made
