"""What the scales of all neurons mean for the columns of all layers that read them, a few operations for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import layers
from ..surgery import ColumnMap
from .hooks import gated_weights, scaled_weight
from .segments import Gather, Segments, offsets
from .stacks import Stacks


@dataclass(frozen=True, slots=True)
class Stacked:
    """Layers whose weights are scaled together.

    Attributes:
        stack: number of the stack.
        names: of the layers.
        places: of their weights in the stack, ascending.
        shape: of the scales of one layer, to meet its weight.
    """

    stack: int
    names: list[str]
    places: list[int]
    shape: list[int]

    def of(self, whole: Tensor) -> Tensor:
        """These layers' weights out of a stack."""
        first, count = self.places[0], len(self.places)
        if self.places[-1] - first + 1 == count:  # as a rule: consumers are stacked first
            return whole if count == len(whole) else whole.narrow(0, first, count)
        return torch.stack([whole[place] for place in self.places])


class Columns:
    """Where in the scales every column of every consumer looks.

    Columns lie one layer after the other: first those of the layers whose weights are stacked, in the order of
    their stacks, so that one view of the columns' scales meets a whole stack.

    Args:
        model: the network.
        maps: consumer -> how the groups' scales meet its columns.
        segments: the groups' order.
        stacks: of weights, in each of which the consumers' come first.
        device: where the tables lie.
    """

    def __init__(
        self,
        model: nn.Module,
        maps: Mapping[str, ColumnMap],
        segments: Segments,
        stacks: Stacks,
        device: torch.device,
    ) -> None:
        whole = {name: weight for name, weight in gated_weights(model, maps).items() if weight in stacks.place}
        names = sorted(whole, key=lambda name: stacks.place[whole[name]])
        self.stacked: list[Stacked] = []
        for name in names:
            stack, at = stacks.place[whole[name]]
            if not self.stacked or self.stacked[-1].stack != stack:
                weight = model.get_submodule(name).weight
                assert isinstance(weight, Tensor)
                shape = [1] * weight.dim()
                shape[layers.input_dim(model.get_submodule(name))] = maps[name].width
                self.stacked.append(Stacked(stack, [], [], shape))
            self.stacked[-1].names.append(name)
            self.stacked[-1].places.append(at)
        self.stack_of = {name: i for i, one in enumerate(self.stacked) for name in one.names}
        self.names = [*names, *(name for name in maps if name not in self.stack_of)]
        self.widths = [maps[name].width for name in self.names]
        self._blocks = [maps[one.names[0]].width * len(one.names) for one in self.stacked]
        self._singles = self.widths[len(names) :]
        first = dict(zip(segments.names, offsets(segments.sizes), strict=True))
        rounds: list[Tensor] = []  # a column that several groups gate looks several times
        at = 0
        for name, width in zip(self.names, self.widths, strict=True):
            for group, columns, neurons in maps[name].parts:
                for turn in range(len(rounds) + 1):
                    if turn == len(rounds):
                        rounds.append(torch.full((sum(self.widths),), segments.total))
                    if bool((rounds[turn][at + columns] == segments.total).all()):
                        rounds[turn][at + columns] = first[group] + neurons
                        break
            at += width
        self._gathers = [Gather(index, segments.total, device, fill=1.0) for index in rounds]

    def __call__(self, scales: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The scales of every consumer's columns, by layer, and those of whole stacks, ready to be multiplied.

        Args:
            scales: (neurons,), differentiable.
        """
        total = self._gathers[0](scales)
        for gather in self._gathers[1:]:
            total = total * gather(scales)
        parts = total.split([*self._blocks, *self._singles])
        blocks, singles = parts[: len(self._blocks)], parts[len(self._blocks) :]
        found: dict[str, Tensor] = {}
        wide: list[Tensor] = []
        for block, one in zip(blocks, self.stacked, strict=True):
            found.update(zip(one.names, block.split(len(block) // len(one.names)), strict=True))
            wide.append(block.view(len(one.names), *one.shape))
        found.update(zip(self.names[len(found) :], singles, strict=True))
        return found, wide


class Work:
    """What layers multiply with in one pass.

    Args:
        columns: where columns look.
        scales: (neurons,) of this pass.
        model: the network.
        stacks: of its weights.
        stacked: the weights that a scorer has just read; None where none has.

    Attributes:
        factors: layer -> scales of its columns.
        graph: whether gradients were recorded when it was made.
    """

    def __init__(
        self, columns: Columns, scales: Tensor, model: nn.Module, stacks: Stacks, stacked: list[Tensor] | None
    ) -> None:
        self.factors, self._wide = columns(scales)
        self.graph = torch.is_grad_enabled()
        self._columns, self._model, self._stacks = columns, model, stacks
        self._stacked: list[Tensor] | None = None
        self._read: dict[str, tuple[Tensor, int]] = {}  # layer -> its weight and the state in which it was read
        self._scaled: dict[str, Tensor] = {}
        if stacked is not None:
            self._keep(stacked)

    def _keep(self, stacked: list[Tensor]) -> None:
        self._stacked = stacked
        for one in self._columns.stacked:
            for name in one.names:
                weight = self._model.get_submodule(name).weight
                assert isinstance(weight, Tensor)
                self._read[name] = weight, weight._version

    def forget_weights(self) -> None:
        """Read weights anew; the scales stay."""
        self._stacked = None
        self._read, self._scaled = {}, {}

    def weight(self, name: str, layer: nn.Module) -> Tensor:
        """A layer's weight with its columns scaled: made with those of its shape; alone where it has changed."""
        alike = self._columns.stack_of.get(name)
        if alike is None or torch.is_grad_enabled() != self.graph:
            return scaled_weight(layer, self.factors[name])
        if self._stacked is None:
            self._keep(self._stacks(self._model))
        weight, version = self._read[name]
        if layer.weight is not weight or weight._version != version:
            return scaled_weight(layer, self.factors[name])
        if name not in self._scaled:
            assert self._stacked is not None
            one = self._columns.stacked[alike]
            whole = one.of(self._stacked[one.stack])
            scaled = whole * self._wide[alike].to(whole.dtype)
            self._scaled.update(zip(one.names, scaled.unbind(0), strict=True))
        return self._scaled[name]
