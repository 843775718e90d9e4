"""A network's graph in pieces: a layer with weights, and what follows it up to the next one.

That is what engines fuse: normalisation, activation and the sum behind a convolution run inside it. A piece is
timed by itself, in several copies side by side that read the same inputs, so that what comes once per call
(starting the engine, bringing inputs into its own layout) hardly counts, and what comes with every layer does. Of
maps of features a corner alone is the graph's output: an engine that keeps its own layout between layers, as they
all do, would else have to leave it there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ExportError
from .sides import Rule, Side, Way, divisor, rules_of, way_of, ways_of
from .skeleton import content, digest, is_bare, numbers, renamed, shapes, with_numbers

_ANCHORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_HEAVY = 2**25  # bytes of weights of which one copy is enough: time is spent in them, not around them
_COPIES = ((3e8, 2), (3e7, 4), (0.0, 8))  # of pieces of so many multiply-adds

Varying = Mapping[str, frozenset[Way]]


def split(proto: Any, varying: Varying) -> list[list[int]]:
    """The nodes of every piece, in the order of the graph.

    Args:
        proto: a skeleton.
        varying: tensor -> directions in which its dimensions vary from cut to cut.

    Returns:
        Lists of numbers of nodes. A node follows what it reads into the latest piece, unless the piece would then
        vary in more than two ways.
    """
    made: dict[str, int] = {}
    pieces: list[list[int]] = []
    ways: list[frozenset[tuple[int, ...]]] = []
    for number, node in enumerate(proto.graph.node):
        own = frozenset().union(*(varying.get(name, frozenset()) for name in (*node.input, *node.output)))
        at = max((made[name] for name in node.input if name in made), default=None)
        if at is None or node.op_type in _ANCHORS or len(ways[at] | own) > 2:
            at = len(pieces)
            pieces.append([])
            ways.append(frozenset())
        pieces[at].append(number)
        ways[at] |= own
        made |= dict.fromkeys(node.output, at)
    return pieces


def kind_of(proto: Any, nodes: Sequence[int]) -> str:
    """What a piece is by its anchor: pieces of one kind are as far from their time in a network as each other."""
    node, known = proto.graph.node[nodes[0]], shapes(proto)
    if node.op_type not in _ANCHORS:
        return "other"
    if node.op_type in ("Gemm", "MatMul"):
        return "matmul"
    weight = known[node.input[1]][1]
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if groups > 1:
        return "depthwise" if weight[1] == 1 else "grouped"
    return "pointwise" if int(np.prod(weight[2:])) == 1 else "spatial"


def extract(proto: Any, nodes: Sequence[int], copies: int) -> Any:
    """A piece as a skeleton of its own, with names that do not tell where it comes from.

    Args:
        proto: skeleton of the network, which states the shape of every tensor.
        nodes: numbers of the piece's nodes.
        copies: of the piece in it.

    Raises:
        ExportError: the network's skeleton does not state a shape.
    """
    import onnx

    graph, known = proto.graph, shapes(proto)
    unknown = [n for i in nodes for n in (*graph.node[i].input, *graph.node[i].output) if n and n not in known]
    if unknown:
        raise ExportError(
            f"the shape of {unknown[0]} in the exported graph is not known, so its layers cannot be timed one by "
            "one. Ask for macs=... or params=... instead."
        )
    mine = [graph.node[i] for i in nodes]
    inside = {name for node in mine for name in node.output}
    used = list(dict.fromkeys(name for node in mine for name in node.input if name))
    weights = {w.name: w for w in graph.initializer}
    given = [name for name in used if name not in weights and name not in inside]
    outside = Counter(n for i, node in enumerate(graph.node) if i not in set(nodes) for n in node.input)
    ends = {value.name for value in graph.output}
    outputs = [n for node in mine for n in node.output if n and (outside[n] or n in ends)]
    heavy = [name for name in used if name in weights and is_bare(weights[name])]

    found = onnx.ModelProto()
    found.ir_version = proto.ir_version
    found.opset_import.extend(proto.opset_import)
    found.functions.extend(proto.functions)
    found.graph.name = "g"
    # Copies without weights of their own would be one to an engine that looks for equal ones.
    own = set(heavy) if heavy else set(given)
    for name in used:
        for copy in range(copies) if name in own else (None,):
            if name in weights:
                tensor = found.graph.initializer.add()
                tensor.CopyFrom(weights[name])
                tensor.name = _alias(name, copy)
            elif name in given:
                found.graph.input.append(_value(_alias(name, copy), *known[name]))
    for copy in range(copies):
        aliases = {n: _alias(n, copy) for n in (*inside, *own)}
        for node in mine:
            clone = found.graph.node.add()
            clone.CopyFrom(node)
            clone.input[:] = [aliases.get(n, n) for n in clone.input]
            clone.output[:] = [aliases.get(n, n) for n in clone.output]
        for name in outputs:
            _end(found.graph, aliases[name], *known[name])
    return _anonymous(found)


def _alias(name: str, copy: int | None) -> str:
    return name if copy is None else f"{name} copy {copy}"  # like no name that a graph has


def _value(name: str, element: int, dims: Sequence[int]) -> Any:
    import onnx

    return onnx.helper.make_tensor_value_info(name, element, list(dims))


def _end(graph: Any, name: str, element: int, dims: Sequence[int]) -> None:
    """Make a tensor an output; of maps of features a corner."""
    import onnx

    if element in (1, 10) and len(dims) == 4 and dims[2] * dims[3] > 1:
        far = onnx.helper.make_node(
            "MaxPool", [name], [f"corner.{name}"], kernel_shape=[1, 1], strides=list(dims[2:])
        )
        graph.node.append(far)
        name, dims = f"corner.{name}", [*dims[:2], 1, 1]
    graph.output.append(_value(name, element, dims))


def _anonymous(piece: Any) -> Any:
    """The piece with tensors named by their order, in place."""
    graph = piece.graph
    names = {value.name: f"x{i}" for i, value in enumerate(graph.input)}
    names |= {weight.name: f"w{i}" for i, weight in enumerate(graph.initializer)}
    inside = [name for node in graph.node for name in node.output if name]
    names |= {name: f"v{i}" for i, name in enumerate(inside)}
    return renamed(names, piece)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the network that is timed by itself, at any widths.

    Attributes:
        name: of its layer, or of its first operation.
        kind: what it is, see `kind_of`.
        sides: columns that its time depends on, at most two; none where it never changes.
        roles: what each side is to the anchor, `in` or `out`.
        skeleton: the piece in the first cut.
        copies: of it in the skeleton.
        rules: by which numbers of the skeleton follow the sides; None where some follow none that is known, so
            that it can be timed as it was cut alone.
        family: the same for pieces that take the same time at the same counts.
    """

    name: str
    kind: str
    sides: tuple[Side, ...]
    roles: tuple[str, ...]
    skeleton: Any
    copies: int
    rules: tuple[Rule, ...] | None
    family: str

    def at(self, counts: Sequence[int]) -> Any:
        """The skeleton with so many columns on every side."""
        if not self.rules:
            return self.skeleton
        values = numbers(self.skeleton)
        for rule in self.rules:
            values[rule.place] = int(rule.factor * counts[rule.side])
        return with_numbers(self.skeleton, values)

    @property
    def full(self) -> tuple[int, ...]:
        """Columns of every side in the whole network."""
        return tuple(side.full for side in self.sides)

    @property
    def units(self) -> tuple[int, ...]:
        """Counts of every side are multiples of these."""
        return tuple(divisor(self.rules or (), side) for side in range(len(self.sides)))


def ways_in(protos: Sequence[Any]) -> dict[str, frozenset[Way]]:
    """Tensor of the first graph -> the ways in which its dimensions shrink over all of them.

    Tensors are compared by their place: a number in the exporter's names may be another in another cut.
    """
    known = []
    for proto in protos:
        own, placed = shapes(proto), {}
        for node, like in zip(proto.graph.node, protos[0].graph.node, strict=True):
            for mine, theirs in ((node.input, like.input), (node.output, like.output)):
                placed |= {name: own[n] for n, name in zip(mine, theirs, strict=False) if n in own}
        known.append(placed)
    return ways_of(known)


def take_apart(protos: Sequence[Any], sides: Mapping[Way, Side]) -> list[Piece]:
    """All pieces of a network.

    Args:
        protos: skeletons of the network's cuts, which have the same operations.
        sides: way in which something shrinks over the cuts -> its columns.
    """
    varying = ways_in(protos)
    found: list[Piece] = []
    for nodes in split(protos[0], varying):
        names = [n for i in nodes for n in (*protos[0].graph.node[i].input, *protos[0].graph.node[i].output)]
        ways = list(dict.fromkeys(way for name in names for way in sorted(varying.get(name, ()))))
        known = tuple(sides[way] for way in ways if way in sides)
        single = _piece(protos, nodes, known, varying, 1)
        copies = _copies(single.at(single.full) if single.rules is not None else single.skeleton)
        found.append(single if copies == 1 else _piece(protos, nodes, known, varying, copies))
    return found


def _piece(
    protos: Sequence[Any], nodes: Sequence[int], known: Sequence[Side], varying: Varying, copies: int
) -> Piece:
    """The piece of these nodes, with the rules by which its numbers follow the sides that they know."""
    parts = [extract(proto, nodes, copies) for proto in protos]
    values = [numbers(part) for part in parts]
    rules = rules_of(values, known) if len({_rest(part) for part in parts}) == 1 else None
    used = sorted({rule.side for rule in rules or ()})
    if len(used) > 2:  # a sum of several, as a concatenation is: not by itself the cause of much
        rules, used = None, []
    mine = tuple(known[i] for i in used)
    if rules is not None:
        rules = [replace(rule, side=used.index(rule.side)) for rule in rules]
    graph = protos[0].graph
    first, weights = graph.node[nodes[0]], {weight.name for weight in graph.initializer}
    weight = next((name for name in first.input[1:2] if name in weights and "." in name), None)
    read = varying.get(first.input[0], frozenset()) if first.input else frozenset()
    return Piece(
        name=first.output[0] if weight is None else weight.removesuffix(".weight"),
        kind=kind_of(protos[0], nodes),
        sides=mine,
        roles=tuple("in" if way_of(side.counts) in read else "out" for side in mine),
        skeleton=parts[0],
        copies=copies,
        rules=None if rules is None else tuple(rules),
        family=_family(parts[0], rules, mine),
    )


def _rest(part: Any) -> bytes:
    """All of a piece but its numbers, in which alone its cuts may differ."""
    return content(with_numbers(part, [0] * len(numbers(part))))


def _copies(whole: Any) -> int:
    """Copies that a piece is timed with, by what one of the whole piece has to do."""
    weights = sum(int(np.prod(w.dims)) for w in whole.graph.initializer if is_bare(w))
    if 4 * weights > _HEAVY:
        return 1
    entries = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in whole.graph.input]
    positions = max((int(np.prod(dims)) for dims in entries), default=1) / max(
        1, max((dims[1] if len(dims) == 4 else dims[-1] for dims in entries if dims), default=1)
    )
    return next(copies for least, copies in _COPIES if weights * positions >= least)


def _family(skeleton: Any, rules: Sequence[Rule] | None, sides: Sequence[Side]) -> str:
    values = numbers(skeleton)
    for rule in rules or ():
        values[rule.place] = 0
    told = [(rule.place, rule.side, str(rule.factor)) for rule in rules or ()]
    nothing = content(with_numbers(skeleton, values) if rules else skeleton)
    return digest(nothing + repr((values, told, [s.full for s in sides] if rules else None)).encode())
