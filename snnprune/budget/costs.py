"""What each layer costs, as a function of how many of its inputs and outputs stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import layers
from ..errors import ExactnessError
from ..graph import LayerShapes, NeuronGroup, layer_shapes
from ..inputs import Inputs, batch_size
from ..macs import MacCount

Counted = Literal["macs", "params"]  # what is known of every model
Metric = Literal["macs", "params", "latency"]  # the time is known where it was measured
COUNTED: tuple[Counted, Counted] = ("macs", "params")
Kept = Mapping[str, NDArray[np.bool_]]
NOT_CALLED = LayerShapes((), (), 0, 0, 0)
_Parts = list[tuple[str, NDArray[np.int64], NDArray[np.int64]]]


@dataclass(frozen=True, slots=True)
class Columns:
    """The inputs or the outputs of a layer, and which neurons each of them needs.

    Attributes:
        width: columns that arrive.
        parts: (group id, columns, the group's neurons that gate them) of every group that owns some.
        index: which of the arriving columns the layer reads; None for all.
    """

    width: int
    parts: tuple[tuple[str, NDArray[np.int64], NDArray[np.int64]], ...]
    index: NDArray[np.int64] | None = None

    @property
    def read(self) -> int:
        """Columns that the layer reads."""
        return self.width if self.index is None else len(self.index)

    def count(self, kept: Kept) -> int:
        """Columns that stay: all neurons that gate them are kept, or are of groups not named in `kept`."""
        stays = np.ones(self.width, dtype=bool)
        for group, columns, neurons in self.parts:
            if group in kept:
                stays[columns] &= kept[group][neurons]
        return int((stays if self.index is None else stays[self.index]).sum())

    def gates(self, first: Mapping[str, int]) -> NDArray[np.int64]:
        """Neurons that gate every column that is read, as numbers among those of all groups.

        Args:
            first: group id -> number of its first neuron.

        Returns:
            (columns read, most neurons of one), sorted along the rows, with -1 in front where there are fewer.
        """
        every = np.concatenate([columns for _, columns, _ in self.parts] or [np.zeros(0, dtype=np.int64)])
        depth = int(np.bincount(every, minlength=1).max())
        found = np.full((self.width, max(1, depth)), -1, dtype=np.int64)
        used = np.zeros(self.width, dtype=np.int64)
        for group, columns, neurons in self.parts:
            found[columns, used[columns]] = first[group] + neurons
            used[columns] += 1
        found.sort(axis=1)
        found[:, 1:][found[:, 1:] == found[:, :-1]] = -1  # a neuron that is named twice counts once
        found.sort(axis=1)
        return found if self.index is None else found[self.index]


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Cost coefficients of one layer."""

    name: str
    inputs: Columns | None  # None: the cost depends on the outputs alone (depthwise, norms)
    outputs: Columns
    macs: float  # per pair of input and output channel, for one input
    params: float  # per pair
    params_out: float  # per output channel

    def cost(self, metric: Counted, inputs: float, outputs: float) -> float:
        """Cost of the layer with so many inputs and outputs."""
        if metric == "macs":
            return self.macs * inputs * outputs
        return self.params * inputs * outputs + self.params_out * outputs


def layer_costs(
    model: nn.Module, groups: Sequence[NeuronGroup], example_inputs: Inputs, counted: MacCount
) -> list[LayerCost]:
    """Cost coefficients of every convolution, linear and per-channel layer that runs.

    Args:
        model: the network.
        groups: its groups.
        example_inputs: what its forward takes.
        counted: its multiply-adds as they were counted operation by operation.

    Raises:
        ExactnessError: a layer's multiply-adds as counted and as its sizes say differ.
    """
    outs: dict[str, _Parts] = {}
    ins: dict[str, _Parts] = {}
    slices: dict[tuple[str, int], _Parts] = {}
    found: list[LayerCost] = []
    for group in groups:
        if not group.prunable:
            continue
        for member in group.members:
            part = (group.id, np.asarray(member.channels), np.asarray(member.neurons))
            if member.role == "parameter":
                slices.setdefault((member.module, member.dim), []).append(part)
            elif member.role in ("producer", "consumer", "between"):
                (ins if member.role == "consumer" else outs).setdefault(member.module, []).append(part)
        if group.macs:
            every = np.arange(group.size)
            side = Columns(group.size, ((group.id, every, every),))
            found.append(LayerCost(f"{group.id} products", None, side, group.macs, 0.0, 0.0))
    parameters = dict(model.named_parameters())
    seen: set[int] = set()  # a parameter that several layers hold is paid for once

    def size(*tensors: object) -> int:
        new = {id(t): t for t in tensors if isinstance(t, nn.Parameter) and id(t) not in seen}
        seen.update(new)
        return sum(t.numel() for t in new.values())

    for (name, dim), parts in slices.items():
        if name in parameters and size(parameters[name]):  # buffers are not counted
            width = parameters[name].shape[dim]
            each = parameters[name].numel() / width
            found.append(LayerCost(name, None, Columns(width, tuple(parts)), 0.0, 0.0, each))
    batch = batch_size(example_inputs)
    shapes = layer_shapes(model, example_inputs)
    for name, module in model.named_modules():
        shape = shapes.get(name, NOT_CALLED)  # auxiliary heads run in training alone, but have parameters
        linear = isinstance(module, nn.Linear) and not layers.is_own(module)
        if layers.is_conv(module) or linear:
            paid = (size(module.weight), size(module.bias))
            layer = _weighted(name, module, shape, ins.get(name, []), outs.get(name, []), batch, paid)
            found.append(_as_counted(layer, module, counted.layers.get(name, 0.0)))
        elif layers.is_weighted(module):
            sides = (ins.get(name, []), outs.get(name, []))
            found.append(_declared(name, module, *sides, counted.layers.get(name, 0.0), size))
        elif layers.is_reading(module):
            found.append(_read(name, module, ins.get(name, []), counted.layers.get(name, 0.0), size))
        elif layers.is_channelwise(module):
            count = layers.out_width(module)
            params = size(*(getattr(module, own, None) for own in layers.tensors(module, "outputs")))
            side = Columns(count, tuple(outs.get(name, [])))
            found.append(LayerCost(name, None, side, counted.layers.get(name, 0.0) / count, 0.0, params / count))
    return found


def _as_counted(layer: LayerCost, module: nn.Module, counted: float) -> LayerCost:
    """The layer, whose price is what was counted; layers that compute in a way of their own may differ."""
    said = layer.cost("macs", 1 if layer.inputs is None else layer.inputs.read, layer.outputs.width)
    if abs(said - counted) <= 1e-6 * max(1.0, said, counted):
        return layer
    weight = module.weight  # a convolution of complex numbers is made of three of real ones
    own = layers.is_customized(module) or "forward" in module.__dict__
    if (own or (isinstance(weight, Tensor) and weight.is_complex())) and said > 0:
        return replace(layer, macs=layer.macs * counted / said)
    raise ExactnessError(
        f"{layer.name}: {counted:.0f} multiply-adds were counted where its sizes say {said:.0f}, so no target on "
        "MACs could be met. Is it called under vmap? Otherwise please report the model."
    )


def _declared(
    name: str,
    module: nn.Module,
    ins: _Parts,
    outs: _Parts,
    counted: float,
    size: Callable[..., int],
) -> LayerCost:
    """Coefficients of a layer with a rule of the user's own: what was counted, shared out evenly."""
    width, made = layers.in_width(module), layers.out_width(module)
    weights = layers.tensors(module, "inputs")
    pairs = size(*(getattr(module, own) for own in weights))
    rest = size(*(getattr(module, own, None) for own in layers.tensors(module, "outputs") if own not in weights))
    each = width * made
    sides = Columns(width, tuple(ins)), Columns(made, tuple(outs))
    return LayerCost(name, *sides, counted / each, pairs / each, rest / made)


def _read(name: str, module: nn.Module, ins: _Parts, counted: float, size: Callable[..., int]) -> LayerCost:
    """Coefficients of a recurrent layer's input: its share of what was counted."""
    width, every = layers.in_width(module), [p for p in module.parameters(recurse=False) if p.dim() == 2]
    weights = [
        p for own in layers.tensors(module, "inputs") if isinstance(p := getattr(module, own, None), Tensor)
    ]
    share = sum(p.numel() for p in weights) / sum(p.numel() for p in every)
    return LayerCost(name, None, Columns(width, tuple(ins)), counted * share / width, 0.0, size(*weights) / width)


def _weighted(
    name: str,
    module: nn.Module,
    shape: LayerShapes,
    ins: _Parts,
    outs: _Parts,
    batch: int,
    paid: tuple[int, int],
) -> LayerCost:
    """Coefficients of a convolution or a linear layer, over all its calls, for one input.

    `paid` is what its weight and its bias count as parameters: 0 where another layer holds them too.
    """
    out_side = Columns(layers.out_width(module), tuple(outs))
    in_side = Columns(layers.in_width(module), tuple(ins))
    if isinstance(module, nn.Linear):
        transposed, kernel, conv_groups = False, 1, 1
        if isinstance(module, layers.IndexedLinear):
            in_side = Columns(in_side.width, in_side.parts, module.index.cpu().numpy())
    else:
        assert layers.is_conv(module)
        transposed = layers.input_dim(module) == 0
        kernel, conv_groups = int(module.weight[0, 0].numel()), layers.group_count(module)
    # A transposed convolution spends its kernel at every input position, a plain one at every output.
    positions = shape.input_elements / in_side.width if transposed else shape.output_elements / out_side.width
    bias = 1.0 if paid[1] else 0.0
    macs = kernel * positions / batch
    if conv_groups > 1:  # loses whole groups, so that every output keeps its inputs
        inner = in_side.width / conv_groups
        return LayerCost(name, None, out_side, macs * inner, 0.0, (kernel * inner if paid[0] else 0.0) + bias)
    return LayerCost(name, in_side, out_side, macs, kernel if paid[0] else 0.0, bias)
