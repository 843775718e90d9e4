"""Sums over groups, gathered in one order."""

from __future__ import annotations

import pytest
import torch

from snnprune.switching import segments as module
from snnprune.switching.encoding.sums import RowSums
from snnprune.switching.segments import Gather, Segments, straight_through

SIZES = {"a": 3, "b": 1, "c": 5}


@pytest.fixture(params=["padded", "one by one"])
def segments(request, monkeypatch) -> Segments:
    if request.param == "one by one":
        monkeypatch.setattr(module, "_PADDED", 0)
        made = Segments({**SIZES, "d": 100, **dict.fromkeys("efghij", 1)}, "cpu")
        assert made._rows is None
        return made
    return Segments(SIZES, "cpu")


def test_sums_and_means_are_those_of_every_group(segments):
    flat = torch.randn(segments.total, 2, dtype=torch.float64, requires_grad=True)
    parts = flat.split(segments.sizes)
    assert torch.allclose(segments.sums(flat), torch.stack([p.sum(0) for p in parts]))
    assert torch.allclose(segments.means(flat), torch.stack([p.mean(0) for p in parts]))
    assert torch.autograd.gradcheck(segments.sums, (flat,))
    each = torch.randn(len(segments.sizes), dtype=torch.float64, requires_grad=True)
    assert torch.equal(
        segments.spread(each), torch.cat([e.expand(n) for e, n in zip(each, segments.sizes, strict=True)])
    )
    assert torch.autograd.gradcheck(segments.spread, (each,))


def test_split_and_join_are_inverse(segments):
    flat = torch.randn(segments.total)
    assert torch.equal(segments.join(segments.split(flat)), flat)


def test_gather_sums_what_is_named_several_times():
    index = torch.tensor([2, 0, 2, 4, 2])  # 4 stands for the constant
    gather = Gather(index, 4, "cpu", fill=1.0)
    values = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.equal(gather(values), torch.cat([values, torch.ones(1)])[index])
    assert torch.autograd.gradcheck(gather, (values,))
    assert Gather(torch.arange(4), 4, "cpu")(values) is values


def test_straight_through_has_one_value_and_the_others_gradient():
    soft = torch.tensor([0.1, 0.7], requires_grad=True)
    hard = torch.tensor([0.0, 0.3])
    made = straight_through(hard, soft)
    assert torch.equal(made, hard)
    (made * torch.tensor([2.0, 3.0])).sum().backward()
    assert soft.grad.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("terms", [0, 1, 2, 8, 9, 70])
def test_rows_are_summed_level_by_level(terms):
    rows = torch.randperm(200)[: 2 * terms].view(terms, 2)
    other = torch.tensor([[3], [5], [7]])
    sums = RowSums([rows, other], 200)
    table = sums.table(torch.zeros(0, dtype=torch.float64), 4)
    table[:200] = torch.randn(200, 4, dtype=torch.float64)
    found = sums.complete_(table).index_select(0, sums.pick)
    assert torch.allclose(found[:2], table[rows].sum(0))
    assert torch.allclose(found[2], table[[3, 5, 7]].sum(0))
