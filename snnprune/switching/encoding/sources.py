"""Where the rows come from: the weights that belong to each neuron of a group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from ... import layers
from ...graph import Member, NeuronGroup
from ..stacks import tensor_of

Side = Literal["incoming", "outgoing"]
_ZERO = 1e-30


@dataclass(frozen=True, slots=True)
class Source:
    """One weight tensor that describes the neurons of a group, and how to cut it into rows.

    Attributes:
        module: name of the layer, or of a matrix outside layers.
        side: `incoming` for the neurons' own weights, `outgoing` for the columns that read them.
        channels: channels of the layer in the order of the neurons, (neurons * per_neuron,).
        per_neuron: channels per neuron (16 behind a flattened 4x4 map).
        length: weights per neuron.
        unit: weights that belong together (a kernel position is meaningful, an input channel's
            place is not), so that columns are sorted in units of this many.
        matrix: the weights are a parameter outside layers, such as the projection in `nn.MultiheadAttention`.
        own: name of the weight in its layer.
    """

    module: str
    side: Side
    channels: Tensor
    per_neuron: int
    length: int
    unit: int
    matrix: bool = False
    own: str = "weight"
    _indices: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Of the whole tensor in the model."""
        return self.module if self.matrix else f"{self.module}.{self.own}"

    def weight(self, model: nn.Module) -> Tensor:
        """The whole tensor."""
        return tensor_of(model, self.name)

    def cut(self, weight: Tensor, model: nn.Module) -> Tensor:
        """A weight of the layer's shape as (neurons, length), by differentiable indexing alone."""
        if self.matrix:
            return self._in_order(weight).reshape(-1, self.length)
        module = model.get_submodule(self.module)
        if isinstance(module, layers.IndexedLinear) and self.side == "outgoing":
            full = weight.new_zeros(module.out_features, module.source_features)
            matrix = full.index_copy(1, module.index, weight).t()
        else:
            cut = layers.weight_columns if self.side == "outgoing" else layers.weight_rows
            matrix = cut(module, weight)
        return self._in_order(matrix).reshape(-1, self.length)

    def _in_order(self, matrix: Tensor) -> Tensor:
        """Rows of the neurons. Whether these are all rows in order is asked once: a GPU would be waited for."""
        if matrix.device not in self._indices:
            whole = torch.equal(self.channels.cpu(), torch.arange(len(matrix)))
            chosen = self.channels[:0] if whole else self.channels
            with torch.inference_mode(False):  # training steps use it too
                self._indices[matrix.device] = chosen.to(matrix.device)
        chosen = self._indices[matrix.device]
        return matrix.index_select(0, chosen) if len(chosen) else matrix

    def rows(self, model: nn.Module) -> Tensor:
        """The weights, (neurons, length)."""
        return self.cut(self.weight(model), model)


def sources_of(model: nn.Module, group: NeuronGroup) -> list[Source]:
    """Every source whose neurons are all there: producers, depthwise layers and consumers."""
    found = []
    seen: set[tuple[int, str]] = set()  # a weight that several layers hold is read once
    parameters = dict(model.named_parameters())
    for member in group.members:
        if member.role == "parameter" and not group.producers and member.module in parameters:
            source = _matrix(parameters[member.module], member, group.size)
            if source is not None:
                found.append(source)
        if member.role not in ("producer", "consumer", "between"):
            continue
        module = model.get_submodule(member.module)
        own = layers.main_weight(module)
        if own is None:
            continue
        weight = getattr(module, own)
        side: Side = "outgoing" if member.role == "consumer" else "incoming"
        if (id(weight), side) in seen:
            continue
        seen.add((id(weight), side))
        source = _source(module, member, side, group.size, own)
        if source is not None:
            found.append(source)
    return found


def _matrix(parameter: Tensor, member: Member, size: int) -> Source | None:
    """Rows of a parameter outside layers that is multiplied like a layer's weight."""
    if parameter.dim() != 2 or member.dim != 0:
        return None
    cut = _channels(member, size)
    if cut is None:
        return None
    each = len(cut) // size
    return Source(member.module, "incoming", cut, each, parameter.shape[1] * each, 1, matrix=True)


def _channels(member: Member, size: int) -> Tensor | None:
    """Channels in the order of the neurons, or None when neurons own different numbers of them."""
    per_neuron, rest = divmod(len(member.channels), size)
    order = sorted(range(len(member.neurons)), key=lambda i: (member.neurons[i], member.channels[i]))
    neurons = [member.neurons[i] for i in order]
    if rest or neurons != [n for n in range(size) for _ in range(per_neuron)]:
        return None  # some neurons have no weights here: no common row length
    return torch.tensor([member.channels[i] for i in order])


def _source(module: nn.Module, member: Member, side: Side, size: int, own: str) -> Source | None:
    channels = _channels(member, size)
    if channels is None:
        return None
    per_neuron = len(channels) // size
    weight = getattr(module, own)
    assert isinstance(weight, Tensor)
    if side == "outgoing":
        if isinstance(module, layers.IndexedLinear):
            each = module.out_features
        else:
            each = weight.numel() // layers.in_width(module)
    else:
        each = weight.numel() // layers.out_width(module)
    kernel = 1 if isinstance(module, nn.Linear) else int(weight[0, 0].numel())
    return Source(member.module, side, channels, per_neuron, each * per_neuron, kernel, own=own)


def over_rms(rows: Tensor) -> Tensor:
    """Rows over the (detached) root mean square of the whole matrix.

    Without it the switcher sees values around 0.03, answers with its bias, and gives every neuron of
    a layer the same scale.
    """
    return rows / root(rows.detach().square().mean())


def root(mean_square: Tensor) -> Tensor:
    """Root mean square of a tensor, its unit; 1 for a tensor of zeros (a head that starts so), which has none."""
    return torch.where(mean_square > _ZERO, mean_square.sqrt(), 1.0)


def z_scores(values: Tensor) -> Tensor:
    """Zero mean and unit variance over the neurons (both detached); zeros where all are equal."""
    spread = values.detach().std(correction=0)
    return (values - values.detach().mean()) / (spread + 1e-6)
