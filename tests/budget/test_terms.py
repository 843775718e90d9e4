"""The cost as products of counts in whole numbers: by hand, and against the costs of the layers."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_network

from snnprune.budget import CostModel
from snnprune.budget.costs import Columns, LayerCost
from snnprune.budget.terms import terms_of
from snnprune.proof.tracing import trace


def columns(width, *parts):
    return Columns(width, tuple((name, np.asarray(at), np.asarray(neurons)) for name, at, neurons in parts))


def worth(terms, kept):
    """The cost of kept neurons, (neurons,), by the tables."""
    stays = np.append(kept, True)[terms.gates].all(axis=0)  # the last one is for -1
    rows = terms.fixed.astype(object)
    np.add.at(rows, terms.rows[stays], terms.weights[stays].astype(object))
    return int((rows[: terms.pairs] * rows[terms.pairs :]).sum()) / terms.unit


def test_a_product_of_counts_by_hand():
    """Of four inputs, neurons 0 and 1 have two each; of five outputs, neurons 2, 3, 4 have one each."""
    into = columns(4, ("a", [0, 1, 2, 3], [0, 0, 1, 1]))
    out = columns(5, ("b", [1, 2, 4], [0, 1, 2]))
    layer = LayerCost("x", into, out, macs=9.0, params=7.0, params_out=2.0)
    first = {"a": 0, "b": 2}
    macs = terms_of([layer], "macs", first, 200.0)  # 20 of which are in no layer
    assert macs.pairs == 2
    assert len(macs.rows) == 5, "an entry for each neuron, however many columns it has"
    assert macs.dense == 200 * macs.unit
    params = terms_of([layer], "params", first, 150.0)
    for kept in ([1, 1, 1, 1, 1], [0, 1, 1, 0, 1], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]):
        n_in, n_out = 2 * sum(kept[:2]), 2 + sum(kept[2:])
        assert worth(macs, np.array(kept, bool)) == 20 + 9 * n_in * n_out
        assert worth(params, np.array(kept, bool)) == 7 * n_in * n_out + 2 * n_out
    # a neuron of a saves 2 inputs of 5 outputs, one of b an output of 4 inputs
    assert (macs.most(np.ones(5, int)) / macs.unit).tolist() == [90, 90, 36, 36, 36]
    assert (params.most(np.array([1, 2, 1, 1, 3])) / params.unit).tolist() == [70, 140, 30, 30, 90]


def test_like_sides_are_one_pair_and_what_no_neuron_gates_is_a_number():
    side = columns(3, ("a", [0, 1, 2], [0, 1, 2]))
    wide = columns(6, ("a", range(6), [0, 0, 1, 1, 2, 2]))
    still = columns(4)
    layers = [
        LayerCost("x", side, side, macs=2.0, params=1.0, params_out=0.0),
        LayerCost("y", wide, side, macs=0.5, params=1.0, params_out=0.0),  # twice as many inputs: the same pair
        LayerCost("z", still, side, macs=3.0, params=1.0, params_out=0.0),  # 12 for every output
        LayerCost("w", still, still, macs=1.0, params=1.0, params_out=0.0),
        LayerCost("n", None, side, macs=0.25, params=0.0, params_out=2.0),
    ]
    terms = terms_of(layers, "macs", {"a": 0}, 27 + 36 + 16 + 0.75)
    assert terms.pairs == 2
    assert [worth(terms, np.arange(3) < n) for n in range(4)] == [16 + 3 * n * n + 12.25 * n for n in range(4)]


def test_a_column_of_two_groups_stays_only_with_both():
    into = columns(4, ("c", [0, 1, 2, 3], [0, 0, 1, 1]), ("u", [0, 1, 2, 3], [0, 1, 2, 3]))
    layer = LayerCost("x", into, columns(1), macs=1.0, params=1.0, params_out=0.0)
    terms = terms_of([layer], "macs", {"c": 0, "u": 2}, 4.0)
    assert terms.gates.shape == (2, 4)
    assert worth(terms, np.array([1, 0, 1, 0, 1, 1], bool)) == 1
    assert worth(terms, np.array([1, 1, 1, 0, 1, 1], bool)) == 3


@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("name", ["lenet5_caffe", "resnet20", "mobilenet_v1_025", "digits_cnn", "vgg_cov2"])
def test_the_tables_cost_what_the_layers_cost(name, metric):
    _, model, x = make_network(name)
    cost = CostModel(model, trace(model, x, verify=False), x)
    sizes = [g.size for g in cost.groups.values()]
    first = dict(zip(cost.groups, np.cumsum([0, *sizes]), strict=False))
    terms = terms_of(cost.layers, metric, first, cost.dense[metric])
    rng = np.random.default_rng(0)
    for share in (1.0, 0.8, 0.4, 0.1, 0.0):
        kept = rng.random(sum(sizes)) < share
        parts = dict(zip(cost.groups, np.split(kept, np.cumsum(sizes)[:-1]), strict=True))
        assert worth(terms, kept) == pytest.approx(cost.cost(metric, parts), rel=1e-12, abs=1e-6)
    most = terms.most(np.ones(sum(sizes), int)) / terms.unit
    for at in rng.integers(0, sum(sizes), 20):
        kept = np.arange(sum(sizes)) != at
        parts = dict(zip(cost.groups, np.split(kept, np.cumsum(sizes)[:-1]), strict=True))
        saved = cost.dense[metric] - cost.cost(metric, parts)
        assert saved <= most[at] * (1 + 1e-9), "no neuron saves more than that"
        assert most[at] <= 1.2 * saved + 1e-6
