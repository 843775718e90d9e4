"""Times as tables that are looked up: against products of counts, against the parts, and against every set."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from budget.test_selector import READS_BACK, Launched, by_group, chain, drawn, network
from budget.timed import part, products, stairs
from snnprune.budget import SLACK, Columns
from snnprune.budget import selector as module
from snnprune.budget.demands import block_of
from snnprune.budget.lookup import timed_terms
from snnprune.errors import TargetError


def worth(terms, kept):
    """The time of kept neurons, (neurons,), by the tables, in whole numbers."""
    stays = np.append(kept, True)[terms.gates].all(axis=0)  # the last one is for -1
    rows = terms.fixed.copy()
    np.add.at(rows, terms.rows[stays], terms.weights[stays])
    places = terms.lookup.maps[rows]
    return int(terms.lookup.amounts[places[: terms.pairs] + places[terms.pairs :]].astype(object).sum())


def firsts(cost):
    return dict(zip(cost.groups, np.cumsum([0, *(g.size for g in cost.groups.values())]), strict=False))


def columns(width, *parts):
    return Columns(width, tuple((name, np.asarray(at), np.asarray(neurons)) for name, at, neurons in parts))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("name", "metric", "inputs"),
    [
        ("digits_cnn", "macs", False),
        ("digits_cnn", "params", False),
        ("digits_cnn", "macs", True),
        ("lenet5_caffe", "params", False),
        ("resnet20", "macs", False),
        ("mobilenet_v1_025", "macs", False),
    ],
)
def test_a_table_of_products_selects_what_products_select(name, metric, seed, inputs, monkeypatch):
    """Bit for bit, with every table in one piece: pieces depend on how many rows there are."""
    monkeypatch.setattr(module, "_ONE_TABLE", 1 << 40)
    monkeypatch.setattr(module, "_FILL_TABLE", 1 << 40)
    cost = network(name, input_neurons=inputs)
    cost.add_times(products(cost, metric))
    assert cost.dense["latency"] == pytest.approx(cost.dense[metric], rel=1e-12)
    assert cost.prunable_share("latency") == pytest.approx(cost.prunable_share(metric))
    for group in cost.groups:
        assert cost.saving_per_neuron("latency", group) >= cost.saving_per_neuron(metric, group) * (1 - 1e-9)
    flat, _ = drawn(cost, seed, None if seed else 2)
    names = [group.id for group in cost.groups.values() if group.kind == "channel"]
    for round_to in (1, 8):
        counted, timed = (cost.selector(m, round_to=round_to) for m in (metric, "latency"))
        assert torch.equal(counted.floors(flat), timed.floors(flat))
        for share in (0.25, 0.5, 0.8, 0.97, 1.0):
            (want, fits), (found, also) = counted(flat, share), timed(flat, share)
            assert bool(fits) == bool(also)
            if inputs:  # single inputs of a channel that is gone are free: they may be kept or not
                want, found = by_group(cost, want), by_group(cost, found)
                assert all((want[name] == found[name]).all() for name in names)
                assert cost.cost(metric, want) == cost.cost(metric, found)
            else:
                assert torch.equal(want, found), (share, round_to)


@pytest.mark.parametrize("wide", [1, 8])
@pytest.mark.parametrize("name", ["lenet5_caffe", "resnet20", "mobilenet_v1_025", "digits_cnn", "vgg_cov2"])
def test_the_tables_take_what_the_parts_take(name, wide):
    cost = network(name)
    cost.add_times([*stairs(cost, wide, base=7.0, slope=0.1), part("start", None, None, [[3.0]])])
    first = firsts(cost)
    terms = timed_terms(cost.times, first)
    assert terms.dense / terms.unit == pytest.approx(cost.dense["latency"], rel=1e-12)
    assert 2**59 <= terms.dense <= 2**60 * 1.001
    rng = np.random.default_rng(0)
    size = sum(g.size for g in cost.groups.values())
    for share in (1.0, 0.8, 0.4, 0.1, 0.0):
        kept = rng.random(size) < share
        parts = by_group(cost, torch.from_numpy(kept))
        assert worth(terms, kept) / terms.unit == pytest.approx(cost.cost("latency", parts), rel=1e-12)
    for count in (1, 3, 16):
        most = terms.most(np.full(size, count)) / terms.unit
        for group, start in first.items():
            own = cost.groups[group].size
            for _ in range(5):
                kept = rng.random(size) < rng.random()
                gone = start + rng.permutation(own)[:count]
                kept[gone] = True
                before = worth(terms, kept)
                kept[gone] = False
                saved = (before - worth(terms, kept)) / terms.unit
                assert saved <= most[start] * (1 + 1e-9) + 1e-9, "no block saves more"


def test_what_a_block_saves_by_hand():
    """Stairs of two columns and of three; a neuron of the first group has two columns."""
    into, out = columns(8, ("a", range(8), np.arange(8) // 2)), columns(7, ("b", range(6), range(6)))
    rows, places = np.array([0, 1, 1, 2, 2, 3, 3, 4, 4]), np.array([0, 0, 0, 0, 1, 1, 1, 2])
    table = np.array([0.0, 1, 1, 4, 5])[:, None] + np.array([0.0, 2, 3])
    terms = timed_terms([part("x", into, out, table, rows, places)], {"a": 0, "b": 4})
    assert (terms.pairs, len(terms.rows)) == (1, 10)
    assert worth(terms, np.ones(10, bool)) / terms.unit == 8
    # of a: from 6 columns to 4 save 3; two neurons 8 -> 4 save 4. Of b, which has 1 column more: 4 -> 3 saves 2.
    assert (terms.most(np.ones(10, int)) / terms.unit).tolist() == [3] * 4 + [2] * 6
    assert (terms.most(np.full(10, 2)) / terms.unit).tolist() == [4] * 4 + [2] * 6
    assert (terms.most(np.full(10, 9)) / terms.unit).tolist() == [5] * 4 + [3] * 6


def test_parts_of_the_same_counts_are_one_and_equal_tables_are_stored_once():
    side, wide = columns(3, ("a", range(3), range(3))), columns(6, ("a", range(6), np.arange(6) // 2))
    other, still = columns(3, ("b", range(3), range(3))), columns(4)
    grid = np.add.outer(np.arange(4.0), np.arange(4.0))
    parts = [
        part("x", side, other, grid),
        part("y", other, side, 2 * grid),  # the other way round
        part("n", None, side, np.arange(4.0)),
        part("m", side, None, np.arange(4.0)[:, None]),
        part("w", None, wide, np.arange(7.0) // 4),  # true counts are 0, 2, 4, 6
        part("s", still, side, np.outer(np.arange(5.0), np.arange(4.0))),
        part("c", None, None, [[0.5]]),
        part("d", still, still, np.full((5, 5), 0.25)),
    ]
    terms = timed_terms(parts, {"a": 0, "b": 3})
    assert terms.pairs == 3
    for a, b in itertools.product(range(4), range(4)):
        kept = np.array([i < a for i in range(3)] + [i < b for i in range(3)])
        assert worth(terms, kept) / terms.unit == 3 * (a + b) + 2 * a + (2 * a) // 4 + 4 * a + 0.75
    twice = [part("x", side, other, grid), part("z", columns(3, ("c", range(3), range(3))), other, grid)]
    amounts = timed_terms(twice, {"a": 0, "b": 3, "c": 6}).lookup.amounts
    assert len(amounts) == 16


def test_only_what_counts_can_reach_is_stored():
    """A stair of a hundred columns is two rows, however long the table is."""
    side = columns(1000, ("a", range(1000), range(1000)))
    table = np.repeat(np.arange(10.0), 100)
    terms = timed_terms([part("x", None, side, np.append(table, 9.0))], {"a": 0})
    assert len(terms.lookup.amounts) == 1001, "on one side alone: a number for every count"
    terms = timed_terms([part("x", side, side, np.add.outer(*[np.append(table, 9.0)] * 2))], {"a": 0})
    assert len(terms.lookup.amounts) == 100


@pytest.mark.parametrize("wide", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_no_set_of_the_threshold_and_more_comes_closer(seed, wide):
    """The budget holds, all above the threshold stays, and no set with all of that comes much closer."""
    cost = chain(7, 6, 4, 5)
    cost.add_times(stairs(cost, wide, base=4.0))
    flat, scores = drawn(cost, seed)
    select = cost.selector("latency", floor=0.0)
    masks = np.array(list(itertools.product([False, True], repeat=10)))
    shares = np.array([cost.share("latency", {"0": m[:6], "1": m[6:]}) for m in masks])
    levels = {}  # of every block that of its best neuron; of the first of every group none is higher
    for name, own in scores.items():
        step, order = block_of(cost, "latency", cost.groups[name], 1), np.argsort(-own, kind="stable")
        levels[name] = np.empty(len(own))
        levels[name][order] = np.where(
            np.arange(len(own)) < step, np.inf, own[order][np.arange(len(own)) // step * step]
        )
    flat_levels = np.concatenate(list(levels.values()))
    for share in (0.45, 0.6, 0.75, 0.9, 0.99):
        mask, fits = select(flat, share)
        above = [flat_levels >= t for t in np.unique(flat_levels)]
        above = [top for top in above if cost.share("latency", {"0": top[:6], "1": top[6:]}) <= share + 1e-12]
        assert bool(fits) == bool(above)
        if not above:
            continue
        found = cost.share("latency", by_group(cost, mask))
        good = (shares <= share + 1e-12) & (masks | ~above[0]).all(axis=1)
        assert (mask.numpy() >= above[0]).all()
        assert found <= share + 1e-12
        assert found >= min(share - SLACK, shares[good].max()) - 1e-12


@pytest.mark.parametrize("wide", [1, 4, 16])
def test_sets_grow_with_the_budget(wide):
    """Where a block is a small part of the model, so that the threshold alone decides."""
    cost = chain(20, 1024, 1024, 1024, 10)
    cost.add_times(stairs(cost, wide))
    flat, _ = drawn(cost, 3)
    select, before = cost.selector("latency"), torch.zeros(len(flat), dtype=torch.bool)
    for share in np.linspace(0.05, 1.0, 12):
        mask, fits = select(flat, float(share))
        assert bool(fits)
        assert bool((mask >= before).all())
        before = mask
    assert bool(mask.all())


@pytest.mark.parametrize("name", ["resnet20", "lenet5_caffe"])
def test_the_order_of_parts_does_not_matter(name):
    """Sums are of whole numbers: of the same parts in any order, the same to the last one."""
    cost = network(name)
    rng = random.Random(0)
    noise = np.random.default_rng(0)
    parts = [*stairs(cost, 8, slope=0.1)]
    for own in parts:
        object.__setattr__(own, "table", own.table * noise.random())
    flat, _ = drawn(cost, 0)
    seen = set()
    for _ in range(4):
        rng.shuffle(parts)
        cost.add_times(parts)
        terms = timed_terms(parts, firsts(cost))
        kept, _ = cost.selector("latency", round_to=8)(flat, 0.5)
        seen.add((terms.dense, worth(terms, kept.numpy()), kept.numpy().tobytes()))
    assert len(seen) == 1


def test_the_tables_of_the_search_are_exact_whole_numbers():
    """What the device adds up, in any order, is what Python's whole numbers say."""
    cost = network("resnet20")
    cost.add_times(stairs(cost, 8, base=1 / 3, slope=0.1))
    terms = timed_terms(cost.times, firsts(cost))
    select = cost.selector("latency")
    size = select.neurons
    levels = torch.from_numpy(np.random.default_rng(0).permutation(size))
    padded = torch.cat([torch.zeros(select._lead, dtype=torch.long), levels, torch.tensor([size])])
    table = module.Table.of(terms, 1, size + 1, 0, torch.device("cpu"), select._first.lookup)
    costs = table.costs(select._numbers(padded[None]), select._weights)[0]
    for count in (0, 1, size // 3, size - 1, size):
        assert int(costs[count]) == worth(terms, levels.numpy() <= count)


@pytest.mark.parametrize("name", ["resnet20", "lenet5_caffe", "mlp"])
def test_nothing_is_read_back_and_operations_are_few(name):
    """A lookup takes a few operations more than a product, and the number of layers does not matter."""
    cost = network(name)
    flat, _ = drawn(cost, 0)
    counts = {}
    for metric in ("macs", "latency"):
        if metric == "latency":
            cost.add_times(products(cost, "macs"))
        select = cost.selector(metric, round_to=8)
        with Launched() as seen:
            select(flat, torch.tensor(0.5, dtype=torch.float64))
        assert not [n for n in seen.names if n.startswith(READS_BACK)]
        counts[metric] = len(seen.names)
    assert counts["latency"] <= counts["macs"] + 18
    if name == "resnet20":
        deeper = network("resnet56")
        deeper.add_times(products(deeper, "macs"))
        select = deeper.selector("latency", round_to=8)
        with Launched() as more:
            select(torch.rand(select.neurons), 0.5)
        assert len(more.names) <= counts["latency"] + 10


def test_before_times_are_known_every_question_says_so():
    cost = chain(4, 10, 3)
    scores = {"0": np.arange(10.0)}
    for ask in (
        lambda: cost.cost("latency", {}),
        lambda: cost.share("latency", {}),
        lambda: cost.prunable_share("latency"),
        lambda: cost.selector("latency"),
        lambda: cost.select("latency", 0.5, scores),
        lambda: cost.floor_share("latency", scores),
        lambda: cost.saving_per_neuron("latency", "0"),
    ):
        with pytest.raises(TargetError, match=r"latency of this model is not known.*CostModel\.add_times"):
            ask()


def test_times_that_are_told_again_replace_the_first():
    """Also where the first ones said that nothing is to be saved in a group."""
    cost, other = chain(20, 64, 64, 10), chain(20, 64, 64, 10)
    alike = {n: np.arange(64.0) for n in cost.groups}
    side = cost.layers[-1].inputs
    cost.add_times([part("x", side, None, 1 + np.arange(65.0)[:, None])])
    first = cost.select("latency", 0.5, alike)
    assert first.kept["0"].all()
    for model in (cost, other):
        model.add_times(stairs(model, 16))
    assert cost.dense["latency"] == sum(own.dense for own in cost.times) != 65
    second, want = (model.select("latency", 0.5, alike) for model in (cost, other))
    assert second.cost == want.cost <= 0.5
    assert all((second.kept[n] == want.kept[n]).all() for n in alike)
    assert not any(int(m.sum()) % 16 for m in second.kept.values())
