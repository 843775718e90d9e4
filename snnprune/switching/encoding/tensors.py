"""How the weights are laid out to be read: as few tensors, each of which holds the rows of many layers.

A source is a matrix: one row per neuron, columns in units of weights that belong together. Sources of small
tensors are gathered, padded, into a few tables, whatever their layout in the layer. Large tensors are read where
they lie, those of one shape in one stack, along both of their dimensions. What is large and laid out otherwise
(the 49 positions behind a flattened channel) is copied into a matrix of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ... import layers
from ..stacks import Stacks
from .sources import Source

LARGE = 2**17  # weights; up to here, launching an operation costs more than copying the weights
FEW, LONG = 64, 2**15  # rows, and weights in each: heads of attention; see `Part.by_norms`
_SPARE = 2**16  # padding that may always be added, where it saves operations
_WASTE = 0.5  # padding, as a share of the weights that are gathered


@dataclass
class Part:
    """Weights that are read at once, seen as (members, rows, units, unit).

    Attributes:
        shape: see above.
        stack: the stack that it is, or the one that `source` is a member of; None for a table.
        member: of the stack, where one source is copied out of it.
        source: what is copied.
        index: places in the flat vector of small weights, where it is a table.
        sources: (number of the source, member, whether its neurons are the units) that are read.
        name: of the buffer that holds `index`.
    """

    shape: tuple[int, int, int, int]
    stack: int | None = None
    member: int = 0
    source: Source | None = None
    index: Tensor | None = None
    sources: list[tuple[int, int, bool]] = field(default_factory=list)
    name: str = ""

    @property
    def by_norms(self) -> bool:
        """Whether only the norms of its rows are read: of few rows, each of very many weights, as of heads.

        The kernel of such a row has as many entries as the row has weights, and lays out as many columns:
        several times more memory and time than the weights themselves, for a dozen rows.
        """
        _, rows, units, unit = self.shape
        return self.source is not None and rows < FEW and units * unit > LONG

    @property
    def sides(self) -> list[bool]:
        """Along which dimensions there are neurons: False for rows, True for units."""
        return sorted({turned for _, _, turned in self.sources})


@dataclass
class Layout:
    """All parts of a network, and the flat vector of what is gathered.

    Attributes:
        parts: tables first.
        flat: stacks that the flat vector is made of, in order.
        length: of the flat vector, without the zero at its end.
    """

    parts: list[Part]
    flat: list[int]
    length: int


def lay_out(model: nn.Module, sources: Sequence[Source], stacks: Stacks, shapes: Sequence[torch.Size]) -> Layout:
    """Decide for every source how it is read.

    Args:
        model: the network.
        sources: of all groups.
        stacks: that hold the sources' tensors.
        shapes: of the stacks.
    """
    parts: dict[int, Part] = {}
    alone: list[Part] = []
    taken: set[tuple[int, int, bool]] = set()
    gathered: list[int] = []
    for number, source in enumerate(sources):
        stack, member = stacks.place[source.name]
        size = shapes[stack][1:].numel()
        turned = _side(model, source, shapes[stack])
        if size > LARGE and turned is not None and (stack, member, turned) not in taken:
            taken.add((stack, member, turned))
            whole = shapes[stack]
            part = parts.setdefault(stack, Part((whole[0], whole[1], whole[2], whole[3:].numel()), stack))
            part.sources.append((number, member, turned))
        elif len(source.channels) // source.per_neuron * source.length > LARGE:
            part = Part(_shape(source), stack, member, source, sources=[(number, 0, False)])
            part.shape = (1, *part.shape[1:])
            alone.append(part)
        else:
            gathered.append(number)
    flat = sorted({stacks.place[sources[number].name][0] for number in gathered})
    starts, at = {}, 0
    for stack in flat:
        starts[stack], at = at, at + shapes[stack].numel()
    tables = []
    for bucket in buckets([_shape(sources[number])[1:] for number in gathered]):
        chosen = [gathered[i] for i in bucket]
        tables.append(_table(model, [(n, sources[n]) for n in chosen], stacks, shapes, starts, at))
    return Layout([*tables, *parts.values(), *alone], flat, at)


def _shape(source: Source) -> tuple[int, int, int, int]:
    neurons = len(source.channels) // source.per_neuron
    return 1, neurons, source.length // source.unit, source.unit


def _side(model: nn.Module, source: Source, shape: torch.Size) -> bool | None:
    """Whether a source's neurons run over the tensor's second dimension; None where it is laid out otherwise."""
    if source.per_neuron != 1 or len(shape) < 3:
        return None
    outgoing = source.side == "outgoing"
    if source.matrix:
        turned = False
    else:
        module = model.get_submodule(source.module)
        if isinstance(module, layers.IndexedLinear) or (layers.is_conv(module) and module.groups > 1):
            return None
        turned = bool(layers.input_dim(module) if outgoing else layers.output_dim(module))
    whole = torch.equal(source.channels, torch.arange(shape[2 if turned else 1]))
    return turned if whole else None


def _table(
    model: nn.Module,
    chosen: Sequence[tuple[int, Source]],
    stacks: Stacks,
    shapes: Sequence[torch.Size],
    starts: dict[int, int],
    none: int,
) -> Part:
    """Sources beside each other, each padded to the largest."""
    every = [_shape(source) for _, source in chosen]
    rows, units, unit = (max(shape[i] for shape in every) for i in (1, 2, 3))
    index = torch.full((len(chosen), rows, units, unit), none, dtype=torch.int32)
    for place, ((_, source), shape) in enumerate(zip(chosen, every, strict=True)):
        stack, member = stacks.place[source.name]
        each = shapes[stack][1:]
        first = starts[stack] + member * each.numel()
        numbers = torch.arange(1, each.numel() + 1).view(each)  # 0 is what an indexed layer does not hold
        cut = source.cut(numbers, model).reshape(shape[1:])
        index[place, : shape[1], : shape[2], : shape[3]] = torch.where(cut > 0, first + cut - 1, none).int()
    sources = [(number, place, False) for place, (number, _) in enumerate(chosen)]
    return Part((len(chosen), rows, units, unit), index=index, sources=sources)


def buckets(shapes: Sequence[tuple[int, int, int]]) -> list[list[int]]:
    """Shapes that are padded to a common one, so that little is added.

    Shapes are merged two by two, the cheapest first, as long as all that was added stays small against the whole.

    Args:
        shapes: (rows, units, unit) of every source.

    Returns:
        Numbers of the sources by bucket, in order.
    """
    members: dict[tuple[int, int, int], list[int]] = {}
    for number, shape in enumerate(shapes):
        members.setdefault(shape, []).append(number)
    found = sorted(members.items())
    spare = max(_SPARE, _WASTE * sum(_volume(shape) for shape in shapes))
    while len(found) > 1:
        best = None
        for i, (one, mine) in enumerate(found):
            for j, (other, theirs) in enumerate(found[:i]):
                both = tuple(map(max, one, other))
                added = (len(mine) + len(theirs)) * _volume(both) - len(mine) * _volume(one)
                added -= len(theirs) * _volume(other)
                if best is None or added < best[0]:
                    best = added, i, j, both
        assert best is not None
        added, i, j, both = best
        if added > spare:
            break
        spare -= added
        joined = both, [*found[j][1], *found[i][1]]
        found = [*(pair for n, pair in enumerate(found) if n not in (i, j)), joined]
    return sorted(sorted(numbers) for _, numbers in found)


def _volume(shape: Sequence[int]) -> int:
    return shape[0] * shape[1] * shape[2]
