"""What is timed to know what any cut of a network takes: its pieces at several widths, and a few whole cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..budget import CostModel
from ..errors import CollapsedLayerError, ExportError
from ..graph import NeuronGroup
from ..inputs import Inputs
from .cuts import Cut, cut, skeleton_of
from .grid import Point, points
from .pieces import Piece, take_apart
from .serving import Serving
from .sides import ambiguous, random_cuts, sides_of
from .skeleton import content, digest, weight_bytes

_SHARES = ((0.55, 1.0), (0.3, 0.8), (0.15, 0.55))  # of a group's neurons that the cuts keep
_TRIES = 8


@dataclass(frozen=True, slots=True)
class Question:
    """A graph that is to be timed.

    Attributes:
        name: that says what it is: a digest of its content.
        weights: bytes of its weights.
        data: its content, whose weights lie in a file of random numbers beside it.
    """

    name: str
    weights: int
    data: bytes

    @staticmethod
    def of(skeleton: Any) -> Question:
        """The question of a skeleton."""
        data = content(skeleton)
        return Question(digest(data), weight_bytes(skeleton)[0], data)


@dataclass(frozen=True, slots=True)
class Questions:
    """All graphs of one network that are to be timed.

    Attributes:
        pieces: of the network, in its order.
        points: family of pieces -> counts -> the question's name.
        cuts: whole networks: as it is, then cut.
        names: of their questions.
        nothing: name of the question of a graph that does next to nothing, for what every call takes.
        families: questions by what is timed in turn: first the whole networks, then the pieces of every family.
    """

    pieces: list[Piece]
    points: dict[str, dict[Point, str]]
    cuts: list[Cut]
    names: list[str]
    nothing: str
    families: list[list[Question]]

    @property
    def graphs(self) -> dict[str, Question]:
        """All of them by name."""
        return {question.name: question for family in self.families for question in family}


def ask(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    cost: CostModel,
    example_inputs: Inputs,
    serving: Serving,
    *,
    seed: int = 0,
) -> Questions:
    """The questions of a network; it is exported four times for that.

    Args:
        model: the network.
        groups: its groups.
        cost: what they cost.
        example_inputs: what its forward takes, at least two.
        serving: how it will be served.
        seed: of the cuts.

    Raises:
        ExportError: it cannot be exported.
    """
    form = {"batch": serving.batch, "fp16": serving.precision == "fp16"}
    whole = Cut({}, skeleton_of(model, example_inputs, **form))
    cuts = [
        Cut(kept, skeleton_of(small, example_inputs, **form))
        for kept, small in draw_cuts(model, groups, cost, _SHARES, seed=seed)
    ]
    if len({tuple(node.op_type for node in one.skeleton.graph.node) for one in cuts}) > 1:
        raise ExportError(
            "the network is exported to other operations by the widths that it is cut to, so the time of its "
            "layers cannot be told apart. Ask for macs=... or params=... instead."
        )
    masks = [one.kept for one in cuts]
    unclear = ambiguous(cost.layers, masks)
    sides = {way: side for way, side in sides_of(cost.layers, masks).items() if way not in unclear}
    pieces = take_apart([one.skeleton for one in cuts], sides)
    first = [Question.of(one.skeleton) for one in (whole, *cuts)]
    nothing = Question.of(_nothing(whole.skeleton))
    families, named = [[*first, nothing]], {}
    for piece in pieces:
        if piece.family in named:
            continue
        asked = {at: Question.of(piece.at(at)) for at in points(piece.full, piece.units)}
        named[piece.family] = {at: question.name for at, question in asked.items()}
        families.append(list(asked.values()))
    return Questions(pieces, named, [whole, *cuts], [q.name for q in first], nothing.name, families)


def draw_cuts(
    model: nn.Module,
    groups: Sequence[NeuronGroup],
    cost: CostModel,
    shares: Sequence[tuple[float, float]],
    *,
    seed: int = 0,
) -> list[tuple[Mapping[str, Any], nn.Module]]:
    """A few cuts of the network, as what they keep and what is left; single inputs of its layers stay.

    Args:
        model: the network.
        groups: its groups.
        cost: what they cost.
        shares: of every cut, least and largest share of a group that it keeps.
        seed: of the draw.
    """
    sizes = {name: group.size for name, group in cost.groups.items() if group.kind == "channel"}
    for attempt in range(_TRIES):
        try:
            drawn = random_cuts(sizes, shares, seed=seed + 1000 * attempt)
            if ambiguous(cost.layers, drawn) and attempt + 1 < _TRIES:
                continue
            return [(kept, cut(model, groups, kept)) for kept in drawn]
        except CollapsedLayerError:  # of a layer that holds a few of a group's neurons, all were drawn to go
            if attempt + 1 == _TRIES:
                raise
    raise AssertionError


def _nothing(like: Any) -> Any:
    """A graph of one operation on one number."""
    import onnx

    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    return onnx.helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)
