"""Fold and remove, layer by layer, and the self-test that guards them."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_network
from torch import nn

import snnprune
from snnprune.errors import CollapsedLayerError, StructureError
from snnprune.graph import find_groups
from snnprune.layers import IndexedLinear
from snnprune.proof import random_scales, relative_difference, removal_difference, verify_groups
from snnprune.surgery import fold_, remove_, select_


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Sequential(nn.Conv1d(3, 10, 3), nn.BatchNorm1d(10), nn.ReLU(), nn.Conv1d(10, 4, 3)), (3, 12)),
        (
            lambda: nn.Sequential(nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6), nn.SiLU(), nn.Conv3d(6, 4, 1)),
            (2, 5, 5, 5),
        ),
        (
            lambda: nn.Sequential(
                nn.ConvTranspose2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.GELU(), nn.ConvTranspose2d(8, 4, 2)
            ),
            (3, 5, 5),
        ),
        (
            lambda: nn.Sequential(
                nn.Conv2d(3, 8, 1),
                nn.Conv2d(8, 8, 3, groups=8),
                nn.PReLU(8),
                nn.Conv2d(8, 8, 1),
                nn.Conv2d(8, 2, 1),
            ),
            (3, 6, 6),
        ),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5, bias=False)), (3, 2, 2)),
    ],
    ids=["conv1d", "conv3d", "transposed", "depthwise", "linear"],
)
def test_every_kind_of_layer(make, shape, seed):
    torch.manual_seed(seed)
    model = snnprune.proof.randomize_norms_(make().double().eval(), torch.Generator().manual_seed(seed))
    x = torch.randn(3, *shape, dtype=torch.float64)
    groups = find_groups(model, x)
    assert [g for g in groups if g.prunable]
    scales = random_scales(groups, torch.Generator().manual_seed(seed))
    difference = removal_difference(model, groups, scales, x)
    assert difference.relative <= 1e-10
    folded = fold_(copy.deepcopy(model), groups, scales)
    assert relative_difference(model(x), folded(x)) > 1e-3
    removed = remove_(copy.deepcopy(folded), groups, scales)
    assert sum(p.numel() for p in removed.parameters()) < sum(p.numel() for p in model.parameters())


def test_self_test_finds_the_group_at_fault():
    """A record that lies about its columns is found among good ones, and only it is excluded."""
    import dataclasses

    _, model, x = make_network("resnet20")
    groups = find_groups(model, x)
    index = next(i for i, g in enumerate(groups) if g.id == "layer2.1.conv1")
    group = groups[index]
    members = tuple(
        dataclasses.replace(m, neurons=m.neurons[::-1]) if m.role == "consumer" else m for m in group.members
    )
    groups[index] = dataclasses.replace(group, members=members)
    checked = {g.id: g for g in verify_groups(model, groups, x)}
    assert not checked["layer2.1.conv1"].prunable
    assert "removal changes" in str(checked["layer2.1.conv1"].reason)
    assert sum(g.prunable for g in checked.values()) == sum(g.prunable for g in groups) - 1


def test_self_test_needs_random_norm_statistics():
    """Why the batch norms are randomised: a fresh norm hides a channel that is forgotten."""
    model = nn.Sequential(nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)).double().eval()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    zeroed = copy.deepcopy(model)
    with torch.no_grad():
        zeroed[0].weight[0] = 0  # "masking" before the norm
    removed = copy.deepcopy(model)
    keep = torch.arange(1, 6)
    select_(removed, "0", outputs=keep)
    select_(removed, "1", outputs=keep)
    select_(removed, "2", inputs=keep)
    assert relative_difference(zeroed(x), removed(x)) < 1e-12
    with torch.no_grad():
        for m in (zeroed[1], removed[1]):
            m.bias.fill_(0.5)
    assert relative_difference(zeroed(x), removed(x)) > 1e-2


def test_a_layer_without_inputs_is_refused():
    _, model, x = make_network("lenet5_caffe")
    groups = find_groups(model, x)
    channels, units = torch.ones(50).double(), torch.ones(800).double()
    channels[:25] = 0
    units[25 * 16 :] = 0
    with pytest.raises(CollapsedLayerError, match="fc1"):
        remove_(model, groups, {"conv2": channels, "fc1:in": units})


def test_index_selection_comes_and_goes():
    _, model, x = make_network("mlp")
    groups = find_groups(model, x)
    pixels = torch.ones(784).double()
    pixels[::2] = 0
    remove_(model, groups, {"features.0:in": pixels})
    layer = model.features[0]
    assert type(layer) is IndexedLinear
    assert (layer.in_features, layer.source_features) == (392, 784)
    assert set(dict(model.named_parameters())) == set(dict(make_network("mlp")[1].named_parameters()))
    hidden = torch.ones(300).double()
    hidden[5] = 0
    remove_(model, find_groups(model, x), {"features.0": hidden})
    assert type(model.features[0]) is IndexedLinear
    assert type(model.features[2]) is nn.Linear, "a whole channel needs no selection"
    assert model.features[2].in_features == 299


def test_what_cannot_be_resized_says_so():
    with pytest.raises(StructureError, match="LayerNorm"):
        select_(nn.Sequential(nn.LayerNorm(4)), "0", outputs=torch.arange(2))


def test_channels_last_and_devices_survive():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)).to(memory_format=torch.channels_last)
    select_(model, "0", outputs=torch.arange(5))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_the_search_for_groups_at_fault_is_bounded(monkeypatch):
    """Whatever is not cleared within the bound is kept, never trusted."""
    from snnprune.proof import verify

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(12, 12) for _ in range(8))

        def forward(self, x):
            for layer in self.layers:
                x = torch.relu(layer(x)).view(-1, 12)
            return x

    x = torch.randn(3, 12)
    monkeypatch.setattr(verify, "_TRIALS", 3)
    groups = verify.verify_groups(Fixed(), find_groups(Fixed(), x, input_neurons=False), x)
    assert not any(g.prunable for g in groups)
    assert any("given up after 3 trials" in str(g.reason) for g in groups)
