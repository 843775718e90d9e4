"""What a pattern of `keep` means, for neurons, inputs, connections and messages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import snnprune
from snnprune.errors import ConfigError
from snnprune.graph import find_groups, named_by
from snnprune.pipeline.setting import Setting
from snnprune.switching.connections import switched_layers

X = torch.randn(16, 1, 4, 4, generator=torch.Generator().manual_seed(1))
DATA = [(X, torch.arange(16) % 4)] * 4


class Scaled(nn.Module):
    """A convolution whose channels a bare parameter scales."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.gamma = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x):
        return self.conv(x) * self.gamma


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(Scaled(), nn.ReLU(), nn.Flatten())
        self.body = nn.Sequential(
            nn.Sequential(nn.Linear(64, 16), nn.ReLU()), nn.Sequential(nn.Linear(16, 12), nn.ReLU())
        )
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.body(self.stem(x)))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("a.b.c", True),
        ("a", True),
        ("a.b", True),
        ("a.*", True),
        ("*.c", True),
        ("?.b", True),
        ("[ab].b.c", True),
        ("b", False),
        ("a.b.c.d", False),
        ("A", False),
        ("a.", False),
        ("", False),
    ],
)
def test_a_pattern_names_a_module_or_one_that_it_lies_in(pattern, named):
    assert named_by("a.b.c", ["nothing", pattern]) == (pattern if named else None)


KEPT = {
    "body": ["body.0.0:in", "body.0.0", "body.1.0:in", "body.1.0"],
    "body.*": ["body.0.0:in", "body.0.0", "body.1.0:in", "body.1.0"],
    "body.0": ["body.0.0:in", "body.0.0"],
    "body.0.0": ["body.0.0:in", "body.0.0"],
    "body.0.0:in": ["body.0.0:in"],
    "*:in": ["body.0.0:in"],
    "body.1": ["body.1.0"],
    "stem": ["stem.0.conv"],
    "stem.0.gamma": ["stem.0.conv"],
}


@pytest.mark.parametrize("pattern", KEPT)
def test_patterns_keep_groups_of_neurons_and_of_inputs(net, pattern):
    groups = snnprune.trace(net, X, keep=pattern)
    assert [g.id for g in groups if g.reason == f"kept by request ({pattern})"] == KEPT[pattern]
    others = {g.id for g in snnprune.trace(net, X) if g.prunable} - set(KEPT[pattern])
    assert {g.id for g in groups if g.prunable} >= others, "nothing else is kept"


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("body", ["head"]),
        ("body.*", ["head"]),
        ("body.0", ["body.1.0", "head"]),
        ("*.1", ["body.0.0", "head"]),
        ("BODY", ["body.0.0", "body.1.0", "head"]),
        ("body.0.0:in", ["body.0.0", "body.1.0", "head"]),
    ],
)
def test_the_same_patterns_keep_connections(net, pattern, left):
    assert switched_layers(net, [pattern]) == left


@pytest.mark.parametrize("granularity", ["neuron", "connection"])
def test_a_run_keeps_what_lies_in_a_named_module(net, granularity):
    """Whole layers, and the floor on the target counts them."""
    share = 0.8 if granularity == "neuron" else 0.98
    options = {"target": {"params": share}, "epochs": 2, "round_to": 1, "granularity": granularity}
    config = snnprune.PruneConfig(keep="body", **options)
    found = snnprune.optimize(net, DATA, DATA, config)
    for name in ("body.0.0", "body.1.0"):
        weight = found.model.get_submodule(name).weight
        assert len(weight) == len(net.get_submodule(name).weight)
        assert bool((weight != 0).all())
    assert found.report.config["keep"] == ["body"]
    cpu = torch.device("cpu")
    bound = Setting(net, DATA, DATA, None, config, cpu)
    free = Setting(net, DATA, DATA, None, snnprune.PruneConfig(**options), cpu)
    assert bound.least_share("params") > free.least_share("params") + 0.1
    if granularity == "connection":
        total = sum(p.numel() for p in net.parameters())
        assert bound.least_share("params") == (total - 48 + 1) / total


@pytest.mark.parametrize("granularity", ["neuron", "connection"])
def test_a_pattern_that_names_nothing_is_refused(net, granularity):
    config = snnprune.PruneConfig(target={"params": 0.9}, keep=("body", "bodi"), granularity=granularity)
    with pytest.raises(ConfigError, match="keep pattern 'bodi' matches no group, such as 'stem"):
        snnprune.optimize(net, DATA, DATA, config)
    with pytest.raises(ConfigError, match="'odd'"):
        find_groups(net, X, keep=["odd"])
