"""A layer's features: the gradient written by hand is the formula's, whatever the size of the pieces."""

from __future__ import annotations

import pytest
import torch
from conftest import make_network
from torch import Tensor, nn
from torch.nn import functional as F

import snnprune
from snnprune.layers import weight_columns, weight_rows
from snnprune.switching.encoding import patches
from snnprune.switching.encoding.patches import Extractor
from snnprune.switching.encoding.sources import sources_of


def every_source(name: str):
    _, model, x = make_network(name)
    model.float()
    groups = snnprune.trace(model, x.float())
    return model, [source for group in groups if group.prunable for source in sources_of(model, group)]


def by_formula(extractor: Extractor, model) -> tuple[Tensor, Tensor]:
    """Sorted, padded, cut, convolved; left to autograd."""
    rows = extractor.source.rows(model)
    scale = rows.detach().square().mean().sqrt()
    unit = extractor.source.unit
    units = rows.detach().view(len(rows), -1, unit)
    order = extractor.order(rows.detach())
    if order is not None:
        norms = units.square().sum((0, 2)).sqrt()[order]
        assert bool((norms[1:] <= norms[:-1] * (1 + 1e-5)).all()), "ties may fall either way"
        moved = rows.view(len(rows), -1, unit)[:, order].flatten(1)
    else:
        moved = rows
    padded = F.pad(moved, (0, extractor.kernel * extractor.width - rows.shape[1]))
    features = padded.view(len(rows), extractor.width, extractor.kernel) @ extractor.weight / scale
    return features.flatten(1), rows.square().mean(1) / scale.square()


@pytest.mark.parametrize("piece", [1, 1000, 2**30])
@pytest.mark.parametrize("name", ["digits_cnn", "resnet20", "mlp"])
def test_features_and_gradients(name, piece, monkeypatch):
    monkeypatch.setattr(patches, "_PIECE", {"cpu": piece})
    torch.manual_seed(0)
    model, sources = every_source(name)
    assert sources
    for source in sources:
        extractor = Extractor(source, 4, 16, sort=True)
        learned = [source.weight(model), extractor.weight]
        found = []
        for features, energy in (extractor(model), by_formula(extractor, model)):
            pull = torch.linspace(-1, 1, features.numel()).view_as(features)
            total = (features * pull).sum() + (energy * torch.linspace(1, 2, len(energy))).sum()
            found.append((features, energy, *torch.autograd.grad(total, learned)))
        for ours, formula in zip(*found, strict=True):
            assert torch.allclose(ours, formula, rtol=1e-4, atol=1e-5 * float(formula.detach().abs().max()))


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
    model = torch.nn.Sequential(torch.nn.Linear(3000, 2000), torch.nn.ReLU(), torch.nn.Linear(2000, 10))
    groups = snnprune.trace(model, torch.randn(2, 3000))
    (source,) = [s for s in sources_of(model, next(g for g in groups if g.id == "0")) if s.module == "0"]
    extractor = Extractor(source, 4, 16, sort=True)
    largest = 4 * 3000 * 2000

    def step():
        features, energy = extractor(model)
        (features.sum() + energy.sum()).backward()

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
    assert peak < 2 * largest, "the gradient, and pieces"


@pytest.mark.parametrize("granularity", ["neuron", "connection"])
def test_a_layer_of_zeros_has_values_and_gradients(granularity):
    """Some heads start at zero; nothing may be divided by their size."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    )
    torch.nn.init.zeros_(model[3].weight)
    train, val, _ = snnprune.load_data("digits", batch_size=64)
    config = snnprune.PruneConfig(
        target={"params": 0.5},
        epochs=2,
        distill=0.0,
        granularity=granularity,
        lr=0.1,
        search=snnprune.SearchOptions(share=0.5),
    )
    result = snnprune.optimize(model, train, val, config)
    assert all(bool(p.isfinite().all()) for p in result.model.parameters())
    assert result.report.compact.accuracy > 0.6
