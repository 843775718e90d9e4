"""How many operations a step of the search launches: a GPU waits for each, and any machine can count them."""

from __future__ import annotations

import sys

import pytest
from conftest import ROOT, importable

PLACES = [str(ROOT / "benchmarks" / "speed"), str(ROOT / "benchmarks"), str(ROOT / "models")]
# What was reached, and a little more: PyTorch's own kernels change what they are made of.
MOST = {"mlp": {"scorer": 190, "search": 330}, "resnet20": {"scorer": 205, "search": 550}}


@pytest.fixture(scope="module")
def found():
    with importable(*PLACES):
        import operations

        counts = {name: operations.measure(name, "cpu", 2) for name in MOST}
        yield {name: {part: names.total() for part, names in found.items()} for name, found in counts.items()}
    for name in ("operations", "steps"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", MOST)
def test_a_step_launches_no_more_operations_than_was_reached(found, name):
    assert {part: count for part, count in found[name].items() if count > MOST[name].get(part, 10**6)} == {}
    assert found[name]["plain"] < found[name]["search"], "there is something to count"


def test_the_scorer_does_not_go_from_layer_to_layer(found):
    """ResNet-20 has 19 weights that are read along both sides, the MLP three."""
    assert found["resnet20"]["scorer"] < found["mlp"]["scorer"] + 2 * 19
