"""Labels and their classes, by hand."""

from __future__ import annotations

import pytest
import torch

from snnprune.graph.labels import FIXED, Classes, compress, core, spread, varying
from snnprune.graph.moves import _blocks


def test_fresh_labels_start_at_one_and_go_on():
    classes = Classes()
    assert classes.new(3).tolist() == [1, 2, 3]
    assert classes.new(2, raw=True).tolist() == [4, 5]
    assert classes.new(1).tolist() == [6]
    assert classes.roots(torch.tensor([0, 1, 5, 6])).tolist() == [0, 1, 5, 6]


def test_constant_dimensions_have_no_stride():
    labels = compress(torch.tensor([[1, 2], [1, 2], [1, 2]]))
    assert labels.tolist() == [[1, 2]] * 3
    assert labels.stride(0) == 0
    assert varying(labels) == (1,)
    assert core(labels).tolist() == [[1, 2]]
    assert varying(compress(torch.tensor([[1, 2], [1, 3]]))) == (0, 1)
    assert varying(torch.tensor([[5]])) == ()
    again = spread(torch.tensor([4, 5]), 1, (3, 2, 6))
    assert again.shape == (3, 2, 6)
    assert varying(again) == (1,)
    assert again[2, :, 5].tolist() == [4, 5]


def test_united_labels_have_the_least_of_them_for_a_root():
    classes = Classes()
    a = classes.new(6)
    classes.unite(a[1:3], a[3:5])
    assert classes.roots(a).tolist() == [1, 2, 3, 2, 3, 6]
    classes.unite(a[4:5], a[5:])
    assert classes.roots(a).tolist() == [1, 2, 3, 2, 3, 3]
    classes.unite(a[:1], a[3:4])
    assert classes.roots(a).tolist() == [1, 1, 3, 1, 3, 3]
    assert classes.reasons() == ({}, {}), "no cause was named"


def test_long_chains_are_followed_to_the_end():
    classes = Classes()
    a = classes.new(40)
    for at in range(39, 0, -1):
        classes.unite(a[at], a[at - 1])
    assert classes.roots(a).tolist() == [1] * 40
    classes = Classes()
    a = classes.new(40)
    classes.unite(a[:-1], a[1:])
    assert classes.roots(a).tolist() == [1] * 40


def test_one_label_against_many_unites_all():
    classes = Classes()
    a = classes.new(4)
    classes.unite(a[2:], a[:1])
    assert classes.roots(a).tolist() == [1, 2, 1, 1]


def test_who_meets_what_nobody_owns_is_kept_and_merges_nothing():
    classes = Classes()
    a = classes.new(4)
    classes.unite(a, torch.tensor([2, 0, 3, 0]), "a sum")
    assert classes.roots(a).tolist() == [1, 1, 3, 4]
    pins, merges = classes.reasons()
    assert pins == {1: FIXED, 4: FIXED}
    assert merges == {1: "a sum"}


def test_the_first_cause_is_the_one_that_is_told():
    classes = Classes()
    a = classes.new(4)
    classes.pin(a[1:3], "first")
    classes.pin(torch.tensor([0, 2, 4]), "second")
    classes.unite(a[0], a[1])
    assert classes.reasons()[0] == {1: "first", 3: "first", 4: "second"}


def test_along_a_dimension_everything_becomes_one():
    classes = Classes()
    a = classes.new(6).reshape(2, 3)
    merged = classes.along(a, [-1], "a norm")
    assert classes.roots(a).tolist() == [[1, 1, 1], [4, 4, 4]]
    assert varying(merged) == (0,)
    assert merged.tolist() == [[1, 1, 1], [4, 4, 4]]
    assert classes.reasons()[1] == {1: "a norm", 4: "a norm"}
    classes.along(a, [0, 1])
    assert classes.roots(a).tolist() == [[1] * 3] * 2


def test_along_a_constant_dimension_nothing_happens():
    classes = Classes()
    a = spread(classes.new(3), 1, (4, 3))
    assert classes.along(a, [0], "a norm") is a
    assert classes.roots(torch.arange(4)).tolist() == [0, 1, 2, 3]


def test_raw_labels_are_told_from_those_of_layers():
    classes = Classes()
    own, raw = classes.new(2), classes.new(2, raw=True)
    assert classes.is_raw(raw)
    assert not classes.is_raw(own)
    assert not classes.is_raw(torch.cat([own, raw]))


@pytest.mark.parametrize(
    ("old", "new", "blocks"),
    [
        ((6,), (2, 3), [([0], [0, 1])]),
        ((2, 3), (6,), [([0, 1], [0])]),
        ((4, 6, 5), (4, 2, 3, 5), [([0], [0]), ([1], [1, 2]), ([2], [3])]),
        ((4, 2, 3, 5), (8, 15), [([0, 1], [0]), ([2, 3], [1])]),
        ((4, 6), (3, 8), [([0, 1], [0, 1])]),
        ((1, 6, 1), (6,), [([], []), ([1], [0])]),
        ((2, 1, 6), (2, 6), [([0], [0]), ([], []), ([2], [1])]),
    ],
)
def test_reshapes_fall_into_runs_of_equal_product(old, new, blocks):
    found = [pair for pair in _blocks(old, new) if pair != ([], [])]
    assert found == [pair for pair in blocks if pair != ([], [])]
