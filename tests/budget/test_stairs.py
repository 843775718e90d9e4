"""Blocks of time are its stairs: by hand, and in what is selected."""

from __future__ import annotations

import math

import numpy as np
import pytest

from budget.test_selector import by_group, chain, drawn, network
from budget.timed import part, products, stairs
from snnprune.budget.stairs import stair_steps, widened
from snnprune.errors import TargetError


def steps(cost, parts):
    return list(stair_steps(parts, cost.groups).values())


@pytest.mark.parametrize("wide", [1, 2, 4, 8, 16, 32])
def test_the_block_is_the_stair(wide):
    cost = chain(20, 256, 128, 10)
    assert steps(cost, stairs(cost, wide)) == [(wide, wide)] * 2


def test_what_falls_evenly_or_not_at_all_has_no_stairs():
    cost = chain(20, 256, 128, 10)
    assert steps(cost, products(cost, "params")) == [(1, 1)] * 2
    assert steps(cost, [part("all", None, None, [[5.0]])]) == [(1, 1)] * 2


def test_a_stair_needs_nine_tenths_with_the_others_whole_and_with_half_of_them():
    cost = chain(20, 256, 10)
    (layer, _) = cost.layers
    count = np.arange(257.0)

    def found(evenly):
        """Steps of 16, and so much of their fall evenly."""
        return steps(cost, [part("x", None, layer.outputs, np.ceil(count / 16) + evenly * count / 16)])

    assert found(0.0) == [(16, 16)]
    assert found(0.005) == [(16, 16)]
    assert found(0.05) == [(16, 1)]  # finer blocks are worth something
    assert found(0.3) == [(1, 1)]
    both = chain(20, 64, 64, 10)
    first, second, _ = both.layers
    # Stairs of 16 of the first group, as long as all of the second is there; even steps with half of it.
    count, few = np.arange(65.0)[:, None], np.arange(65) <= 32
    table = np.where(few, count, np.ceil(count / 16) * 16)
    assert steps(both, [part("x", second.inputs, second.outputs, table)])[0] == (1, 1)
    assert first.outputs.parts[0][0] == "0"


def test_a_stair_leaves_four_blocks_unless_finer_ones_save_nothing():
    cost = chain(20, 64, 10)
    side, count = cost.layers[0].outputs, np.arange(65.0)
    assert steps(cost, [part("x", None, side, np.ceil(count / 32))]) == [(32, 32)]
    # a twentieth falls at multiples of 8: blocks of 32 would be half of the group, a quarter of it is 16
    mixed = np.ceil(count / 32) + 0.05 * np.ceil(count / 8) / 4
    assert steps(cost, [part("x", None, side, mixed)]) == [(16, 8)]
    assert stair_steps([part("x", None, side, np.ceil(count / 64))], cost.groups)["0"] == (1, 1)


@pytest.mark.parametrize(
    ("step", "stair", "least", "want"),
    [(8, 16, 16, 16), (16, 8, 8, 16), (12, 8, 8, 16), (1, 4, 1, 4), (1, 1, 1, 1)],
)
def test_blocks_are_no_smaller_than_rounding_asks(step, stair, least, want):
    assert widened(step, stair, least) == want


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("wide", [16, 32])
@pytest.mark.parametrize("widths", [(20, 256, 192, 10), (20, 65, 128, 129, 10), (3, 48, 33, 500, 40, 7)])
def test_widths_end_where_stairs_end(widths, wide, round_to):
    """So nothing that is free is cut, and no width is just above a stair."""
    cost = chain(*widths)
    cost.add_times(stairs(cost, wide, base=100.0))
    for seed in range(6):
        flat, scores = drawn(cost, seed, None if seed % 2 else 2)
        least = cost.floor_share("latency", scores, round_to=round_to)
        for share in (*np.linspace(least, 1, 7), 0.97):
            if share < least:
                continue
            mask, fits = cost.selector("latency", round_to=round_to)(flat, float(share))
            kept = by_group(cost, mask)
            assert bool(fits)
            spent = cost.cost("latency", kept)
            assert spent <= share * cost.dense["latency"] * (1 + 1e-9)
            for name, own in kept.items():
                count, size = int(own.sum()), len(own)
                assert count == size or count % wide == 0, (name, count)
                if count < size:  # one more would cost
                    more = own.copy()
                    more[np.flatnonzero(~own)[0]] = True
                    assert cost.cost("latency", {**kept, name: more}) > spent


def test_finer_blocks_are_taken_where_the_time_falls_evenly_alone():
    """Where multiples end too far below the target, odd widths fill it, but none that ends within a stair."""
    cost = chain(20, 64, 64, 10)
    first, _, last = cost.layers
    count = np.arange(65.0)
    cost.add_times(
        [part("x", None, first.outputs, np.ceil(count / 16)), part("y", last.inputs, None, count[:, None])]
    )
    flat, _ = drawn(cost, 0)
    counts = {"0": set(), "1": set()}
    for share in np.linspace(0.3, 1.0, 40):
        mask, fits = cost.selector("latency", round_to=16)(flat, float(share))
        assert bool(fits)
        for name, own in by_group(cost, mask).items():
            counts[name].add(int(own.sum()))
        assert share - 0.02 < cost.share("latency", by_group(cost, mask)) <= share + 1e-9
    assert counts["0"] <= {16, 32, 48, 64}
    assert {n % 16 for n in counts["1"]} > {0}


def test_what_fills_the_budget_takes_what_is_free_with_it():
    """From 32 to 48 the first group costs nothing; the second one's next block is before it, and too dear."""
    cost = chain(20, 64, 64, 10)
    first, _, last = cost.layers
    place = np.searchsorted([0, 16, 48], np.arange(65))  # 0, 1 to 16, 17 to 48, 49 to 64
    parts = [
        part("x", None, first.outputs, 5.0 * np.arange(4), columns=place),
        part("y", last.inputs, None, 10.0 * np.ceil(np.arange(65.0)[:, None] / 16)),
    ]
    cost.add_times(parts)
    assert steps(cost, parts) == [(16, 16)] * 2
    tops = {"0": [100, 40, 39, 38], "1": [99, 50, 49, 48]}
    scores = {n: np.repeat(np.array(own, float), 16) - np.arange(64) / 1000 for n, own in tops.items()}
    kept = cost.select("latency", 22 / 55, scores).kept
    assert {n: int(m.sum()) for n, m in kept.items()} == {"0": 48, "1": 16}


def test_what_saves_no_time_stays_whole_whatever_its_scores():
    cost = chain(20, 64, 64, 10)
    _, second, third = cost.layers
    count = np.arange(65.0)
    cost.add_times([part("x", second.inputs, None, np.full((65, 1), 3.0)), part("y", None, third.inputs, count)])
    scores = {"0": np.full(64, -100.0), "1": np.arange(64.0)}
    kept = cost.select("latency", 0.6, scores).kept
    assert kept["0"].all()
    assert kept["1"].sum() == math.floor(0.6 * 67) - 3
    assert cost.saving_per_neuron("latency", "0") == 0
    assert cost.saving_per_neuron("latency", "1") == pytest.approx(1 / 67)


def test_a_neuron_is_worth_what_goes_with_it_once_enough_are_gone():
    """The time falls below a third alone, where one in two saves nothing; it is not free."""
    cost = chain(20, 60, 10)
    count = np.arange(61.0)
    cost.add_times([part("x", None, cost.layers[0].outputs, np.minimum(count, 20) + 20)])
    assert cost.saving_per_neuron("latency", "0") == pytest.approx(19 / 40 / 59)


def test_floors_are_whole_stairs_and_an_error_names_who_holds_the_time():
    cost = chain(20, 256, 128, 10)
    parts = [part("start", None, None, [[2.0]]), *stairs(cost, 32)]
    for own in parts[1:]:
        object.__setattr__(own, "table", own.table / 1000)
    cost.add_times(parts)
    scores = {n: np.arange(float(g.size)) for n, g in cost.groups.items()}
    # one stair of each: 1 x 1 of 32 x 32 in the layer between, 20 columns (one stair) and 10 (one stair) outside
    least = (2 + 3 * 32 * 32 / 1000) / cost.dense["latency"]
    assert cost.floor_share("latency", scores) == pytest.approx(least)
    with pytest.raises(TargetError) as error:
        cost.select("latency", least - 0.01, scores)
    said = str(error.value)
    assert f"{least:.3f} of the dense time remain (5.07 of {cost.dense['latency']:.3g} ms)" in said
    assert "most of it in start (2 ms), 2 (1.02 ms), 1 (1.02 ms)" in said
    assert f"or latency={5.072:.3f}ms or more" in said
    assert "Nothing can be removed from 4% of it" in said
    assert cost.select("latency", math.ceil(least * 1000) / 1000, scores).kept["0"].sum() == 32


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v1_025"])
def test_budgets_of_time_hold_in_real_networks(name):
    cost = network(name)
    cost.add_times(stairs(cost, 8, base=10.0))
    flat, scores = drawn(cost, 1)
    least = cost.floor_share("latency", scores, round_to=8)
    for share in (least, 0.5 + least / 2, 1.0):
        mask, fits = cost.selector("latency", round_to=8)(flat, share)
        assert bool(fits)
        assert cost.share("latency", by_group(cost, mask)) <= share + 1e-9
    assert bool(mask.all())
    assert not bool(cost.selector("latency", round_to=8)(flat, least - 1e-6)[1])
