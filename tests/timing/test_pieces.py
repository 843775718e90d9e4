"""Pieces of a network: at the widths of any cut they are what the export of that cut is made of."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snnprune.errors import ExportError
from snnprune.timing.pieces import extract, split, take_apart, ways_in
from snnprune.timing.questions import Questions
from snnprune.timing.sides import sides_of
from snnprune.timing.skeleton import content, numbers, renamed
from timing.conftest import _made, residual_, tiny_


class Attention(nn.Module):
    """A block of a transformer with heads, and a ConvNeXt block before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 4, 4)
        self.deep, self.norm = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.LayerNorm(24)
        self.up, self.down = nn.Linear(24, 80), nn.Linear(80, 24)
        self.gamma = nn.Parameter(torch.ones(24))
        self.qkv, self.out, self.heads = nn.Linear(24, 72), nn.Linear(24, 24), 4
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        x = x.permute(0, 2, 3, 1) + self.gamma * self.down(nn.functional.gelu(self.up(y)))
        x = x.flatten(1, 2)
        b, n, _c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        return self.head((x + self.out(y)).mean(1))


class Dense(nn.Module):
    """Norms before activations over a concatenation, a grouped convolution, a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 12, 3, padding=1)
        self.norm, self.grow = nn.BatchNorm2d(12), nn.Conv2d(12, 20, 3, padding=1)
        self.last, self.mix = nn.BatchNorm2d(32), nn.Conv2d(32, 36, 1)
        self.grouped = nn.Conv2d(36, 36, 3, padding=1, groups=3)
        self.twice = nn.Conv2d(36, 36, 1)
        self.head = nn.Linear(37, 2)

    def forward(self, images: Tensor, other: Tensor) -> Tensor:
        x = self.stem(images)
        x = torch.cat([x, self.grow(self.norm(x).relu())], 1)
        x = self.grouped(self.mix(self.last(x).relu()).relu()).relu()
        x = self.twice(self.twice(x).relu()).relu().mean((2, 3))
        return self.head(torch.cat([x, other], 1))


@functools.cache
def asked(name: str) -> Questions:
    torch.manual_seed(1)
    if name == "attention":
        return _made(Attention(), torch.randn(2, 3, 16, 16)).questions
    if name == "dense":
        return _made(Dense(), {"images": torch.randn(2, 2, 6, 6), "other": torch.randn(2, 1)}).questions
    return (residual_() if name == "residual" else tiny_()).questions


def nodes_of(questions: Questions) -> list[list[int]]:
    protos = [cut.skeleton for cut in questions.cuts[1:]]
    return split(protos[0], ways_in(protos))


@pytest.mark.parametrize("name", ["tiny", "residual", "attention", "dense"])
def test_a_piece_at_the_widths_of_a_cut_is_the_piece_of_its_export(name):
    """Also of the whole network, by which no rule was found."""
    questions = asked(name)
    every = nodes_of(questions)
    assert len(every) == len(questions.pieces)
    for piece, nodes in zip(questions.pieces, every, strict=True):
        for cut in questions.cuts:
            if piece.rules is None:
                continue
            counts = [side.columns.count(cut.kept) for side in piece.sides]
            made, real = piece.at(counts), extract(cut.skeleton, nodes, piece.copies)
            assert numbers(made) == numbers(real), piece.name
            assert content(made) == content(real), piece.name


@pytest.mark.parametrize("name", ["tiny", "residual", "attention", "dense"])
def test_every_node_is_in_one_piece_and_pieces_have_rules(name):
    questions = asked(name)
    graph = questions.cuts[1].skeleton.graph
    assert sorted(number for nodes in nodes_of(questions) for number in nodes) == list(range(len(graph.node)))
    anchors = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert sum(piece.kind != "other" for piece in questions.pieces) == len(anchors)
    without = [piece.name for piece in questions.pieces if piece.rules is None and piece.kind != "other"]
    assert not without
    assert all(len(piece.sides) <= 2 for piece in questions.pieces)


def test_kinds_names_and_roles(residual):
    pieces = {piece.name: piece for piece in residual.questions.pieces}
    assert {n: p.kind for n, p in pieces.items() if p.kind != "other"} == {
        "stem": "spatial",
        "up": "pointwise",
        "deep": "depthwise",
        "squeeze": "pointwise",
        "excite": "pointwise",
        "down": "pointwise",
        "more": "spatial",
        "head": "matmul",
    }
    assert pieces["stem"].roles == ("out",)
    assert set(pieces["up"].roles) == {"in", "out"}
    assert pieces["up"].full == tuple(64 if role == "in" else 96 for role in pieces["up"].roles)
    assert pieces["head"].full == (88,)  # of the concatenation, which is two groups


def test_a_piece_has_copies_that_are_no_copies_to_an_engine(residual):
    piece = next(p for p in residual.questions.pieces if p.name == "up")
    graph = piece.at(piece.full).graph
    convs = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convs) == piece.copies == 8
    assert len({node.input[0] for node in convs}) == 1
    assert len({node.input[1] for node in convs}) == piece.copies
    assert len(graph.output) == piece.copies


def test_pieces_of_the_same_shape_are_one_family():
    pieces = {p.name: p for p in asked("dense").pieces}
    same = [p for n, p in pieces.items() if n.startswith("twice") or p.name == "twice"]
    assert len({p.family for p in same}) == 1
    names = [p.name for p in asked("dense").pieces]
    assert names.count("twice") == 2


def test_columns_that_nobody_knows_make_a_constant(residual):
    """Rules are not guessed: without sides a piece that varies has none, and is timed as it was cut."""
    protos = [cut.skeleton for cut in residual.questions.cuts[1:]]
    pieces = take_apart(protos, {})
    assert all(piece.rules is None for piece in pieces if piece.kind != "other")
    for piece in pieces:
        assert piece.full == ()
        assert piece.at(()) is piece.skeleton


def test_names_do_not_matter(residual):
    import copy

    protos = [copy.deepcopy(cut.skeleton) for cut in residual.questions.cuts[1:]]
    names = {name: f"other {i}" for i, node in enumerate(protos[1].graph.node) for name in node.output}
    renamed(names, protos[1])
    masks = [cut.kept for cut in residual.questions.cuts[1:]]
    pieces = take_apart(protos, sides_of(residual.cost.layers, masks))
    assert [p.family for p in pieces] == [p.family for p in residual.questions.pieces]


def test_what_is_no_number_and_differs_leaves_no_rule(residual):
    import copy

    protos = [copy.deepcopy(cut.skeleton) for cut in residual.questions.cuts[1:]]
    for attribute in next(n for n in protos[1].graph.node if n.op_type == "Conv").attribute:
        attribute.name = attribute.name.replace("pads", "shifted")
    masks = [cut.kept for cut in residual.questions.cuts[1:]]
    pieces = {p.name: p for p in take_apart(protos, sides_of(residual.cost.layers, masks))}
    assert pieces["stem"].rules is None
    assert pieces["up"].rules is not None


def test_a_shape_that_is_not_stated_is_named(residual):
    import copy

    proto = copy.deepcopy(residual.questions.cuts[1].skeleton)
    lost = proto.graph.node[0].output[0]
    kept = [value for value in proto.graph.value_info if value.name != lost]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)
    with pytest.raises(ExportError, match=f"shape of {lost}"):
        extract(proto, [0], 1)


@pytest.mark.parametrize("name", ["tiny", "residual", "attention", "dense"])
def test_an_engine_runs_every_piece_at_every_width(name, tmp_path):
    from snnprune.timing.portable import open_graph, write_weights

    questions = asked(name)
    write_weights(tmp_path, max(q.weights for q in questions.graphs.values()) + 4096 * 64)
    for family in [list(points.values()) for points in questions.points.values()]:
        for one in dict.fromkeys([family[0], family[-1], family[len(family) // 2]]):
            open_graph(questions.graphs[one].data, tmp_path, [("CPUExecutionProvider", {})], 1)
    for one in questions.names:
        open_graph(questions.graphs[one].data, tmp_path, [("CPUExecutionProvider", {})], 1)


def test_weights_do_not_tell(tiny):
    """Another training of the same network asks the same questions, so that its times are known."""
    again = np.random.default_rng(5)
    with torch.no_grad():
        other = [
            torch.from_numpy(again.standard_normal(p.shape).astype(np.float32)) for p in tiny.model.parameters()
        ]
    model = nn.Sequential(
        nn.Linear(5, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 2)
    )
    with torch.no_grad():
        for own, new in zip(model.parameters(), other, strict=True):
            own.copy_(new)
    assert _made(model, tiny.example).questions.graphs.keys() == tiny.questions.graphs.keys()
