"""Cost model and threshold: against brute force, and at the edges."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import NETWORKS, make_network
from torch import nn

import snnprune
from snnprune.budget import CostModel, rounding_step
from snnprune.errors import TargetError
from snnprune.graph import NeuronGroup
from snnprune.graph.records import Member
from snnprune.metrics import count_macs, count_params
from snnprune.proof import random_scales
from snnprune.proof.tracing import trace
from snnprune.surgery import fold_, remove_


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_predicted_cost_is_the_cost_of_the_compact_model(name):
    _, model, x = make_network(name)
    groups = trace(model, x, verify=False)
    cost = CostModel(model, groups, x)
    assert cost.dense == {"macs": count_macs(model, x), "params": count_params(model)}
    for seed in range(3):
        scales = random_scales(groups, torch.Generator().manual_seed(seed), zeros=0.5)
        kept = {n: (s > 0).numpy() for n, s in scales.items()}
        compact = remove_(fold_(make_network(name)[1], groups, scales), groups, scales)
        assert cost.cost("macs", kept) == pytest.approx(count_macs(compact, x), abs=0.5)
        assert cost.cost("params", kept) == pytest.approx(count_params(compact), abs=0.5)


def lenet():
    _, model, x = make_network("lenet5_caffe")
    groups = trace(model, x, verify=False)
    rng = np.random.default_rng(0)
    scores = {g.id: rng.normal(1, 0.05, g.size) for g in groups if g.prunable}
    return CostModel(model, groups, x), scores


@pytest.mark.parametrize("metric", ["macs", "params"])
def test_threshold_is_the_lowest_that_fits(metric):
    """Bisection against trying every threshold."""
    cost, scores = lenet()
    chosen = cost.select(metric, 0.4, scores, floor=0.0)
    fitting = []
    for t in np.unique(np.concatenate(list(scores.values()))):
        kept = {n: s > t for n, s in scores.items()}
        for n in kept:
            kept[n][scores[n].argmax()] = True
        if cost.share(metric, kept) <= 0.4:
            fitting.append(t)
    assert chosen.threshold == min(fitting)
    for name, mask in chosen.kept.items():
        above = scores[name] > chosen.threshold
        assert bool((mask >= above).all()), "everything above the threshold stays"


def test_higher_scores_are_never_dropped_for_lower_ones_within_a_group():
    cost, scores = lenet()
    chosen = cost.select("params", 0.3, scores, floor=0.0)
    order = {n: np.sort(scores[n][m]) for n, m in chosen.kept.items()}
    dropped = {n: scores[n][~m] for n, m in chosen.kept.items()}
    worse = sum(int((dropped[n] > order[n][0]).sum()) for n in order if len(dropped[n]))
    total = sum(len(d) for d in dropped.values())
    assert worse <= 0.02 * total  # only the fill below the threshold may reorder


def test_share_one_keeps_everything():
    cost, scores = lenet()
    assert all(m.all() for m in cost.select("macs", 1.0, scores).kept.values())


def test_round_to_ties_blocks_by_rank():
    cost, scores = lenet()
    kept = cost.select("macs", 0.5, scores, round_to=4).kept
    for name in ("conv1", "fc1"):
        count = int(kept[name].sum())
        assert count % 4 == 0
        assert set(np.flatnonzero(kept[name])) == set(np.argsort(-scores[name])[:count])


@pytest.mark.parametrize(
    ("width", "multiple"), [(64, 8), (32, 8), (31, 4), (16, 4), (15, 2), (8, 2), (7, 1), (3, 1)]
)
def test_narrow_layers_are_rounded_to_smaller_powers_of_two(width, multiple):
    net = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 5, 1))
    group = next(g for g in trace(net, torch.randn(2, 3, 6, 6)) if g.id == "0")
    assert rounding_step(group, 8) == multiple


@pytest.mark.parametrize("share", [0.8, 0.6, 0.45, 0.3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_multiples_are_too_coarse_a_few_widths_are_odd_and_the_target_is_met(share, seed):
    torch.manual_seed(seed)
    widths = [24, 40, 33, 48]
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise([3, *widths])]
    net = nn.Sequential(*[m for layer in layers for m in (layer, nn.ReLU())], nn.Conv2d(48, 5, 1))
    x = torch.randn(2, 3, 10, 10)
    with snnprune.attach(net, x, round_to=8, floor=0.01) as gated:
        gated.set_budget({"macs": share})
        small = gated.compact()
    kept = [m.out_channels for m in small if isinstance(m, nn.Conv2d)][:-1]
    reached = count_macs(small, x) / count_macs(net, x)
    assert share - 0.01 <= reached <= share, (reached, kept)
    even = [n % 4 == 0 if w < 32 else n % 8 == 0 for n, w in zip(kept, widths, strict=True)]
    assert sum(even) >= 1, kept


def test_below_the_floor_names_the_least_that_works():
    cost, scores = lenet()
    least = cost.floor_share("params", scores, floor=0.5)
    with pytest.raises(TargetError, match=f"{least:.3f}"):
        cost.select("params", least - 0.01, scores, floor=0.5)
    assert cost.select("params", least + 0.001, scores, floor=0.5).cost <= least + 0.001


def test_grouped_and_transposed_convolutions_are_priced():
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.ConvTranspose2d(8, 6, 2, stride=2),
        nn.Conv2d(6, 4, 1),
    ).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    hand = 64 * (8 * 27 + 8 * 4 * 9) + 64 * 8 * 6 * 4 + 256 * 6 * 4
    assert count_macs(model, x) == hand
    groups = trace(model, x)
    cost = CostModel(model, groups, x)
    assert cost.cost("macs", {}) == pytest.approx(hand)
    kept = {g.id: np.arange(g.size) < 3 for g in groups if g.id == "2"}
    assert kept
    assert cost.cost("macs", kept) == pytest.approx(64 * (8 * 27 + 8 * 4 * 9) + 64 * 8 * 3 * 4 + 256 * 3 * 4)


@pytest.mark.parametrize(
    ("size", "per_neuron", "step"),
    [(64, 1, 8), (24, 1, 4), (6, 1, 1), (64, 4, 2), (12, 64, 1), (16, 3, 8)],
)
def test_channels_are_rounded_whatever_a_neuron_has(size, per_neuron, step):
    channels = tuple(range(size * per_neuron))
    member = Member("a", "producer", channels, tuple(c // per_neuron for c in channels))
    group = NeuronGroup("a", "channel", size, (member,))
    assert rounding_step(group, 8) == step
    assert rounding_step(NeuronGroup("a:in", "input", size, (member,)), 8) == 1


@pytest.mark.parametrize(("floor", "least"), [(0.1, [3, 4, 3]), (0.3, [8, 10, 9]), (0.1 + 0.2, [8, 10, 9])])
def test_floors_are_rounded_up(floor, least):
    """A share of 25 or of 33 neurons is no whole number; of 30 it is one, whatever floating point makes of it."""
    torch.manual_seed(0)
    widths = [25, 33, 30]
    net = nn.Sequential(*[nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise([3, *widths])], nn.Conv2d(30, 5, 1))
    x = torch.randn(2, 3, 6, 6)
    groups = trace(net, x, verify=False)
    cost, scores = CostModel(net, groups, x), {str(i): np.arange(float(w)) for i, w in enumerate(widths)}
    chosen = cost.select("macs", cost.floor_share("macs", scores, floor=floor), scores, floor=floor)
    assert [int(chosen.kept[str(i)].sum()) for i in range(3)] == least


def test_floors_are_rounded_up_to_whole_blocks():
    net = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 5, 1))
    x = torch.randn(2, 3, 6, 6)
    cost, scores = CostModel(net, trace(net, x, verify=False), x), {"0": np.arange(64.0)}
    least = cost.floor_share("macs", scores, floor=0.3, round_to=8)
    assert (
        int(cost.select("macs", least, scores, floor=0.3, round_to=8).kept["0"].sum()) == 24
    )  # 19.2 are the floor


@pytest.mark.parametrize("stays", range(4))
def test_one_input_stays_that_a_channel_which_stays_has(stays):
    """The best single inputs may all belong to channels that go; the layer would be left with nothing to read."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 64)).double()
    x = torch.randn(3, 1, 4, 4).double()
    groups = trace(net, x)
    cost = CostModel(net, groups, x)
    owner = np.arange(16) // 4
    scores = {"0": (np.arange(4) == stays) + 0.1, "3:in": np.where(owner == stays, np.arange(16) / 100, 1.0)}
    assert set(scores) <= set(cost.groups)
    share = cost.floor_share("params", scores, floor=0.0)
    kept = cost.select("params", share, scores, floor=0.0).kept
    assert kept["0"].tolist() == (np.arange(4) == stays).tolist()
    read = np.flatnonzero(kept["3:in"] & (owner == stays))
    assert read.tolist() == [4 * stays + 3], "the best of that channel, and no more than one"
    scales = {n: torch.from_numpy(m).double() for n, m in kept.items()}
    small = remove_(fold_(net, groups, scales), groups, scales)
    assert (small[0].out_channels, small[3].in_features) == (1, 1)


def test_a_refused_target_names_the_share_that_can_be_asked_for():
    """Also where much of the cost lies in no layer: a table that nothing can remove."""

    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(50, 8)
            self.a, self.o = nn.Linear(8, 30), nn.Linear(30, 4)

        def forward(self, x):
            return self.o(torch.relu(self.a(self.table(x))))

    model, x = Table(), torch.randint(0, 50, (2, 3))
    cost = CostModel(model, trace(model, x), x)
    scores = {"a": np.linspace(1, 2, 30)}
    least = (50 * 8 + 3 * 9 + 3 * 4 + 4) / (50 * 8 + 30 * 9 + 30 * 4 + 4)  # three neurons stay
    with pytest.raises(TargetError, match=rf"{least:.3f} of the dense params remain"):
        cost.select("params", 0.5, scores, floor=0.1)
    assert cost.select("params", math.ceil(least * 1000) / 1000, scores, floor=0.1).kept["a"].sum() == 3


@pytest.mark.parametrize("width", [2, 3, 5])
def test_saving_per_neuron_of_narrow_groups(width):
    model = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4))
    cost = CostModel(model, trace(model, torch.randn(2, 6), input_neurons=False), torch.randn(2, 6))
    assert cost.saving_per_neuron("macs", "0") == pytest.approx(1 / width)
    assert cost.saving_per_neuron("params", "0") == pytest.approx((6 + 1 + 4) / count_params(model))


def test_a_loop_of_ones_own_rounds_as_a_run_does():
    """Without a word about it, `attach` and `optimize` keep multiples of the same number."""
    _, model, x = make_network("mobilenet_v1", batch=2)
    with snnprune.attach(model.float(), x.float()) as gated:
        gated.set_budget({"macs": 0.5})
        cut = [(g, c.kept) for g in gated.groups for c in gated.counts() if c.id == g.id and c.kept < c.size]
    assert len(cut) > 5
    unit = snnprune.PruneConfig().round_to
    assert all(kept % rounding_step(group, unit) == 0 for group, kept in cut)
    assert any(rounding_step(group, unit) == 8 for group, _ in cut)
