"""Features and norms of all layers at once are those of the formula, layer by layer, and so are the gradients."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import make_network
from torch import Tensor, nn

import snnprune
from snnprune.layers import weight_columns, weight_rows
from snnprune.switching.encoding import Scorer, encode, tensors
from snnprune.switching.encoding.rows import StackedRows
from snnprune.switching.encoding.sources import Source
from snnprune.switching.encoding.tensors import buckets

CHANNELS, WIDTH = 4, 16


class Flat(nn.Module):
    """Units behind a flattened map: a neuron has nine columns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.out = nn.Conv2d(2, 6, 3), nn.Linear(54, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(self.conv(x).relu().flatten(1)).relu())


class Joined(nn.Module):
    """A concatenation: each group is a part of what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 5, 3), nn.Conv2d(2, 7, 3), nn.Conv2d(12, 4, 1)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.a(x).relu(), self.b(x).relu()], 1)
        return self.out(self.c(both).relu().mean((2, 3)))


def grouped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 2),
        nn.ReLU(),
        nn.Conv2d(6, 12, 1, groups=3),
        nn.ReLU(),
        nn.Conv2d(12, 4, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def indexed() -> nn.Module:
    layer = snnprune.IndexedLinear(10, 9, source_features=16, index=torch.randperm(16)[:10])
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), layer, nn.ReLU(), nn.Linear(9, 3))


MODELS = {
    "flat": (Flat, (2, 5, 5)),
    "joined": (Joined, (2, 6, 6)),
    "grouped": (grouped, (2, 7, 7)),
    "indexed": (indexed, (5,)),
}


def built(name: str) -> tuple[nn.Module, Scorer]:
    torch.manual_seed(0)
    if name in MODELS:
        make, shape = MODELS[name]
        model, x = make(), torch.randn(2, *shape)
    else:
        _, model, x = make_network(name)
        model, x = model.float(), x.float()
    scorer = Scorer(model, snnprune.trace(model, x))
    assert scorer.rows is not None
    return model, scorer


def kernels(rows: StackedRows) -> list[Tensor]:
    lengths = [max(1, math.ceil(source.length / WIDTH)) for source in rows.parts_of]
    return list(rows.columns.weight.split(lengths))


def by_formula(source: Source, kernel: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Sorted, padded, cut, convolved; left to autograd."""
    rows = source.rows(model)
    mean_square = rows.detach().square().mean()
    units = rows.view(len(rows), -1, source.unit)
    order = units.detach().double().square().sum((0, 2)).argsort(descending=True, stable=True)
    moved = units[:, order].flatten(1)
    padded = torch.nn.functional.pad(moved, (0, len(kernel) * WIDTH - moved.shape[1]))
    features = padded.view(len(rows), WIDTH, len(kernel)) @ kernel / mean_square.sqrt()
    return features, rows.square().mean(1) / mean_square


def expected(rows: StackedRows, model: nn.Module, groups_of: list[int]) -> tuple[Tensor, Tensor]:
    """(neurons, 2, channels, width) means of the features, and (neurons, 4) statistics."""
    shape = rows.neurons, 2, CHANNELS, WIDTH
    features, energy, terms = torch.zeros(shape), torch.zeros(rows.neurons, 2), torch.zeros(rows.neurons, 2)
    starts = [sum(rows.sizes[:i]) for i in range(len(rows.sizes))]
    for source, kernel, group in zip(rows.parts_of, kernels(rows), groups_of, strict=True):
        found, square = by_formula(source, kernel, model)
        side = int(source.side == "outgoing")
        at = torch.arange(starts[group], starts[group] + rows.sizes[group]), torch.tensor(side)
        features = features.index_put(at, found.transpose(1, 2), accumulate=True)
        energy = energy.index_put(at, square, accumulate=True)
        terms = terms.index_put(at, torch.ones(()), accumulate=True)
    features = features / terms.clamp_min(1)[:, :, None, None]
    norm = (energy.sum(1) / terms.sum(1).clamp_min(1) + 1e-12).sqrt()
    logs = 0.5 * torch.log(energy / terms.clamp_min(1) + 1e-8)
    relative, scores = [], []
    for some, log, term in zip(*(t.split(rows.sizes) for t in (norm, logs, terms)), strict=True):
        relative.append(some / some.detach().mean() - 1)
        centred = log - log.detach().mean(0)
        scores.append(torch.where(term > 0, centred / (centred.detach().std(0, correction=0) + 1e-6), 0.0))
    joint = torch.cat(relative)
    joint = joint / (joint.detach().std(correction=0) + 1e-6)
    return features, torch.cat([joint[:, None], torch.cat(scores), torch.zeros(rows.neurons, 1)], 1)


def exact_norms(rows: StackedRows, weights: list[Tensor], like: Tensor) -> Tensor:
    """In double precision, so that near ties fall the same way on both sides."""
    norms = like.new_empty(rows.norms)
    for place, weight in zip(rows.layout, weights, strict=True):
        squares = weight.double().square()
        norms[place.row_norms] = squares.sum((2, 3)).sqrt().float().flatten()
        norms[place.unit_norms] = squares.sum((1, 3)).sqrt().float().flatten()
    return norms


@pytest.mark.parametrize("large", [0, 400, 2**17])  # all in stacks and copies, some, all in tables
@pytest.mark.parametrize("name", [*MODELS, "digits_cnn", "resnet20", "mlp", "mobilenet_v1_025"])
def test_features_and_gradients(name, large, monkeypatch):
    monkeypatch.setattr(tensors, "LARGE", large)
    monkeypatch.setattr(encode, "norms_of", exact_norms)
    model, scorer = built(name)
    rows = scorer.rows
    assert rows is not None
    tables = [part.index is not None for part in rows.parts]
    assert all(tables) if large == 2**17 and name in MODELS else large or not any(tables)
    groups_of = []
    neurons = rows.neuron
    for number in range(len(rows.parts_of)):
        first = int(neurons[(rows.source == number) & (rows.energy_weight > 0)].min())
        groups_of.append(int(torch.tensor(rows.sizes).cumsum(0).gt(first).nonzero()[0]))

    learned = [rows.columns.weight, *{id(p): p for p in model.parameters() if p.dim() > 1}.values()]
    encoded = rows(model, scorer.stacks(model))
    matrix = encoded.matrix[0].index_select(1, encoded.places)  # (channels, neurons, width)
    ours = matrix[: 2 * CHANNELS].transpose(0, 1).unflatten(1, (2, CHANNELS))
    features, statistics = expected(rows, model, groups_of)
    assert torch.equal(matrix[2 * CHANNELS :], encoded.statistics.t()[:, :, None].expand(-1, -1, WIDTH))
    found = []
    for some, other in ((ours, encoded.statistics), (features, statistics)):
        pull = torch.linspace(-1, 1, some.numel()).view_as(some)
        total = (some * pull).sum() + (other * torch.linspace(-1, 2, other.numel()).view_as(other)).sum()
        found.append((some, other, *torch.autograd.grad(total, learned, allow_unused=True)))
    for mine, formula in zip(*found, strict=True):
        if mine is None or formula is None:
            assert all(g is None or not g.any() for g in (mine, formula))
            continue
        assert torch.allclose(mine, formula, rtol=1e-3, atol=1e-4 * float(formula.detach().abs().max()))


def test_every_row_of_the_matrix_is_a_neuron_or_a_gap():
    _, scorer = built("resnet20")
    rows = scorer.rows
    assert rows is not None
    strength = torch.rand(rows.neurons)
    places, neurons = rows.place(strength)
    assert torch.equal(neurons[places], torch.arange(rows.neurons))
    assert int((neurons == rows.neurons).sum()) == rows.height - rows.neurons
    first = 0
    for size in rows.sizes:
        mine = places[first : first + size]
        assert int(mine.min()) % 4 == 0
        assert torch.equal(mine - mine.min(), strength[first : first + size].argsort(descending=True).argsort())
        first += size


def test_two_passes_give_the_same_bits():
    model, scorer = built("mobilenet_v1_025")
    assert scorer.switcher is not None
    nn.init.normal_(scorer.switcher.head.weight)
    found = []
    for _ in range(2):
        values = scorer(model)
        found.append(
            (values, *torch.autograd.grad(values.square().sum(), list(model.parameters()), allow_unused=True))
        )
    for one, other in zip(*found, strict=True):
        assert one is other is None or torch.equal(one, other)


def test_weights_are_not_touched():
    """A source that is copied out of its layer may lie there as it is."""
    for name in ("grouped", "flat"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tensors, "LARGE", 0)
            model, scorer = built(name)
        before = [p.detach().clone() for p in model.parameters()]
        scorer(model).sum().backward()
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_only_what_learns_gets_a_gradient():
    model, scorer = built("digits_cnn")
    assert scorer.switcher is not None
    nn.init.normal_(scorer.switcher.head.weight)
    model.requires_grad_(False)
    scorer(model).square().sum().backward()
    assert all(p.grad is None for p in model.parameters())
    assert scorer.rows is not None
    assert scorer.rows.columns.weight.grad is not None


def test_buckets_hold_every_shape_once_and_add_little():
    shapes = [(64, 64, 9)] * 5 + [(64, 60, 9)] * 4 + [(10, 64, 1), (2000, 70, 1), (70, 2000, 1)]
    found = buckets(shapes)
    assert sorted(number for some in found for number in some) == list(range(len(shapes)))
    assert any({0, 5} <= set(some) for some in found), "alike, so together"
    assert not any({10, 11} <= set(some) for some in found), "padding would be most of it"
    assert buckets([]) == []


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d])
def test_rows_and_columns_hold_the_weights_of_their_channel(kind, parts):
    """A weight that changes one channel alone is in that channel's row, one that reads one alone in its column."""
    torch.manual_seed(0)
    layer = kind(4, 8, 2, groups=parts, bias=False)
    x = torch.randn(1, 4, *[3] * (layer.weight.dim() - 2))
    (of_out,) = torch.autograd.grad(layer(x)[:, 5].sum(), layer.weight)
    (of_in,) = torch.autograd.grad(
        layer(x * (torch.arange(4) == 3).view(1, -1, *[1] * (x.dim() - 2))).sum(), layer.weight
    )
    for gradient, cut, channel, count in ((of_out, weight_rows, 5, 8), (of_in, weight_columns, 3, 4)):
        found = cut(layer, gradient)
        assert found.shape == (count, layer.weight.numel() // count)
        assert bool((found[channel] != 0).all())
        assert int((found != 0).sum()) == found.shape[1], "and in no other"


def test_a_large_layer_is_never_there_several_times():
    model = nn.Sequential(nn.Linear(3000, 2000), nn.ReLU(), nn.Linear(2000, 10))
    scorer = Scorer(model, snnprune.trace(model, torch.randn(2, 3000)))
    largest = 4 * 3000 * 2000

    def step() -> None:
        scorer(model).square().sum().backward()

    step()  # gradients are there
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as seen:
        step()
    sizes = [e.nbytes() for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    running = peak = 0
    for size in sizes:
        running += size
        peak = max(peak, running)
    assert peak < 2 * largest, "the gradient, and little more"


@pytest.mark.parametrize("granularity", ["neuron", "connection"])
def test_a_layer_of_zeros_has_values_and_gradients(granularity):
    """Some heads start at zero; nothing may be divided by their size."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    nn.init.zeros_(model[3].weight)
    train, val, _ = snnprune.load_data("digits", batch_size=64)
    config = snnprune.PruneConfig(
        target={"params": 0.5}, epochs=2, search={"share": 0.5}, distill=0.0, granularity=granularity, lr=0.1
    )
    result = snnprune.optimize(model, train, val, config)
    assert all(bool(p.isfinite().all()) for p in result.model.parameters())
    assert result.report.compact.accuracy > 0.6
