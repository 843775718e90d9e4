"""Groups of neurons as frozen records of names and integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["producer", "consumer", "between", "parameter", "heads", "size", "call"]


@dataclass(frozen=True, slots=True)
class Member:
    """One layer's part in a group.

    `channels[i]` of the layer belongs to neuron `neurons[i]` of the group. A consumer's channels are
    columns of its *input*; a producer's are its outputs; a layer in between (batch norm, depthwise or
    grouped convolution, PReLU) has both alike, numbered by its outputs. A parameter or buffer outside
    these layers (a table of position biases, the projection inside `nn.MultiheadAttention`) has
    slices along one dimension; an attention module has heads. A number of the network's own counts channels:
    an attribute (`size`), or a size that a call in the code takes (`call`).

    Attributes:
        module: dotted name of the layer in the model; of the tensor for a parameter.
        role: what the layer does with the group's channels.
        channels: channel indices of the layer, each once.
        neurons: for every channel the neuron of the group it belongs to, in [0, size).
        dim: for a parameter, the dimension over which its slices run.
        place: for a number, the path of the attribute within the module (`unflattened_size.0`), or where the
            call stands in its code.
        width: for a number, what it is with all neurons; -1 for a size that is left open.
    """

    module: str
    role: Role
    channels: tuple[int, ...]
    neurons: tuple[int, ...]
    dim: int = 0
    place: str = ""
    width: int = 0

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.neurons):
            raise ValueError(f"{self.module}: {len(self.channels)} channels, {len(self.neurons)} neurons")

    @property
    def one_to_one(self) -> bool:
        """True when every neuron owns at most one channel here."""
        return len(set(self.neurons)) == len(self.neurons)


@dataclass(frozen=True, slots=True)
class NeuronGroup:
    """Neurons that live or die together: one scale each.

    Attributes:
        id: name of the first producer, or `<layer>:in` for input neurons.
        kind: `channel` for outputs of layers, `input` for single inputs of a fully connected layer.
        size: number of neurons.
        members: every layer that the group touches.
        reason: why the group is kept whole; None when it can be pruned exactly.
        note: anything else a user should know, such as channels left out of the group.
        macs: multiply-adds per neuron, for one input, in products of activations (attention) and with
            parameters outside layers.
        doubt: the reason that the group has if the proof fails; empty where nothing is doubted.
        rules: what the rules of the user's own that it rests on are for: classes of layers, and operations.
    """

    id: str
    kind: Literal["channel", "input"]
    size: int
    members: tuple[Member, ...]
    reason: str | None = None
    note: str = ""
    macs: float = 0.0
    rules: tuple[str, ...] = ()
    doubt: str = ""

    @property
    def prunable(self) -> bool:
        """True when removing neurons of this group is exact."""
        return self.reason is None

    @property
    def producers(self) -> tuple[Member, ...]:
        """Layers whose output channels the group holds."""
        return tuple(m for m in self.members if m.role == "producer")

    @property
    def consumers(self) -> tuple[Member, ...]:
        """Layers whose input columns the group holds: where the gates sit."""
        return tuple(m for m in self.members if m.role == "consumer")

    @property
    def partial(self) -> tuple[Member, ...]:
        """Layers and tensors that hold only some of the neurons, as the branches of a concatenation do."""
        return tuple(m for m in self.members if m.neurons and len(set(m.neurons)) < self.size)

    @property
    def per_neuron(self) -> int:
        """Channels that a neuron has in the layer that makes it: 1, or those of a head or convolution group."""
        makers = [m for role in ("producer", "between", "parameter") for m in self.members if m.role == role]
        return max(1, len(makers[0].channels) // self.size) if makers and self.size else 1

    @property
    def heads(self) -> tuple[Member, ...]:
        """Attention modules of which the group's neurons are the heads."""
        return tuple(m for m in self.members if m.role == "heads")

    @property
    def between(self) -> tuple[Member, ...]:
        """Per-channel layers between producers and consumers."""
        return tuple(m for m in self.members if m.role == "between")

    def __str__(self) -> str:
        state = "prunable" if self.prunable else f"kept: {self.reason}"
        what = "heads" if self.heads else "neurons"
        return f"{self.id} ({self.kind}, {self.size} {what}; {state})"
