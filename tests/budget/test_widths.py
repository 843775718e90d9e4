"""Widths by layer: what a text says, what it is in neurons, and that every selection keeps to it."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from test_floors import Branches
from torch import nn

import snnprune
from snnprune.budget import CostModel, read_widths
from snnprune.budget import selector as module
from snnprune.budget.widths import bounds_of, read_width
from snnprune.errors import ConfigError, TargetError
from snnprune.graph import Member, NeuronGroup

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Four convolutions of 32, 48, 48 and 64 channels in two stages, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.stage = nn.Sequential(nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 48, 3, padding=1))
        self.last = nn.Conv2d(48, 64, 3, padding=1)
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        x = torch.relu(self.stage(torch.relu(self.stem(x))))
        return self.head(torch.relu(self.last(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def groups(net):
    return snnprune.trace(net, X, verify=False)


def kept(net, groups, width, share, *, floor=0.1, round_to=1, metric="macs", seed=0):
    cost = CostModel(net, groups, X, width=read_widths(width))
    rng = np.random.default_rng(seed)
    scores = {name: rng.normal(size=g.size).round(1) for name, g in cost.groups.items()}
    found = cost.select(metric, share, scores, floor=floor, round_to=round_to)
    for name, mask in found.kept.items():  # whatever holds, it is the best ones that stay
        assert scores[name][mask].min() >= scores[name][~mask].max(initial=-np.inf)
    return {name: int(mask.sum()) for name, mask in found.kept.items()}, found.cost


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("a.*=0.75", ("a.*=0.75",)),
        (["a <= 48", "b[01]>=.5"], ("a<=48", "b[01]>=0.5")),
        ({"a": 1, "b": 1.0, "c": "<=0.5", "d": "7"}, ("a=1", "b=1.0", "c<=0.5", "d=7")),
        ({"a": np.float64(0.5), "b": np.int64(3)}, ("a=0.5", "b=3")),
        ({}, ()),
    ],
)
def test_widths_are_read(given, texts):
    assert read_widths(given) == texts
    assert read_widths(texts) == texts
    assert snnprune.PruneConfig(width=given).to_dict()["width"] == list(texts)


@pytest.mark.parametrize(
    "given",
    ["a", "a=", "=0.5", "a=0", "a=0.0", "a=1.5", "a=-1", "a=nan", "a<0.5", "a==0.5", "a=0.5%", 3, {"a": True},
     {"a": None}, {3: 0.5}, [0.5], None, {"a": -1}, {"a": "half"}, "a=1e", {"a": float("inf")}],
)  # fmt: skip
def test_what_is_no_width_is_refused(given):
    with pytest.raises(ConfigError, match=r"^width"):
        snnprune.PruneConfig(width=given)


def test_widths_have_no_meaning_without_a_budget_of_neurons():
    for options in ({"target": None}, {"target": {"params": 0.5}, "granularity": "connection"}):
        with pytest.raises(ConfigError, match="has no meaning for"):
            snnprune.PruneConfig(width="a=0.5", **options)


@pytest.mark.parametrize(
    ("texts", "round_to", "low", "high"),
    [
        (["g=0.75"], 1, 30, 30),
        (["g=0.75"], 8, 32, 32),
        (["g=0.5"], 8, 24, 24),  # 20 lies between 16 and 24
        (["g=0.01"], 8, 1, 1),  # no whole block is nearest
        (["g=1.0"], 8, 40, 40),
        (["g=1"], 8, 1, 1),
        (["g=5"], 8, 5, 5),
        (["g<=0.5"], 8, 0, 16),
        (["g<=0.1"], 8, 0, 4),
        (["g>=0.5"], 8, 24, 40),
        (["g<=100"], 8, 0, 40),
        (["g>=0.3", "g<=0.4"], 1, 12, 16),
        (["g>=0.3", "g<=0.4"], 8, 16, 16),
        (["g>=0.45", "g<=0.5"], 8, 18, 20),  # whole blocks would contradict each other
        (["g=0.55", "g<=0.55"], 8, 22, 22),
    ],
)
def test_what_widths_are_in_neurons(texts, round_to, low, high):
    group = NeuronGroup("g", "channel", 40, (Member("g", "producer", tuple(range(40)), tuple(range(40))),))
    found = bounds_of(group, [read_width(t) for t in texts], round_to)
    assert (found.low, found.high) == (low, high)


def test_a_head_is_a_multiple_by_itself():
    heads = Member("p", "producer", tuple(range(96)), tuple(i // 8 for i in range(96)))
    group = NeuronGroup("p", "channel", 12, (heads,))
    assert bounds_of(group, [read_width("p=0.5")], 8).low == 6


@pytest.mark.parametrize("tables", ["one", "two"])
@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_every_selection_keeps_to_them(net, groups, round_to, metric, tables, seed, monkeypatch):
    """Exactly, at most and at least, whatever is asked of the whole model, in both kinds of search."""
    if tables == "two":
        monkeypatch.setattr(module, "_ONE_TABLE", 1)
    width = {"stem": 20, "stage.*": "<=0.5", "last": ">=0.75"}
    for share in (1.0, 0.9, 0.45, 0.3):
        found, cost = kept(net, groups, width, share, round_to=round_to, metric=metric, seed=seed)
        assert found["stem"] == 20
        assert found["stage.0"] <= 24
        assert found["stage.2"] <= 24
        assert found["last"] >= 48
        assert cost <= share
    free, _ = kept(net, groups, (), 0.3, round_to=round_to, metric=metric, seed=seed)
    assert (free["stem"], free["last"]) != (20, 48)
    most, cost = kept(net, groups, width, 1.0, round_to=round_to, metric=metric, seed=seed)
    assert most["stage.0"] == most["stage.2"] == 24, "all that may stay does, where the target has room"
    assert most["last"] == 64
    assert cost < 0.9


def test_the_rest_meets_the_target(net, groups):
    found, cost = kept(net, groups, {"stage.0": 0.75}, 0.5)
    assert found["stage.0"] == 36
    assert 0.49 < cost <= 0.5


def test_a_width_is_stronger_than_the_floor_and_than_what_saves_little(net, groups):
    found, _ = kept(net, groups, {"stem": 2, "last": "<=3"}, 0.9, floor=0.5)
    assert (found["stem"], found["last"]) == (2, 3)
    assert found["stage.0"] >= 24


def test_all_widths_exact_give_one_cut_at_any_target_above(net, groups):
    width = {"stem": 0.5, "stage": 0.25, "last": 16}
    sizes = [kept(net, groups, width, share)[0] for share in (1.0, 0.5, 0.2)]
    wanted = {"stem": 16, "stage.0": 12, "stage.2": 12, "last": 16}
    assert all({n: found[n] for n in wanted} == wanted for found in sizes)


def test_a_target_below_what_widths_hold_names_them(net, groups):
    with pytest.raises(TargetError, match=r"Widths hold of it: 'stage.\*>=0.9' \(0\.\d+\), 'last=60'"):
        kept(net, groups, {"stage.*": ">=0.9", "last": 60, "stem": "<=0.5"}, 0.3)


@pytest.mark.parametrize(
    ("width", "keep", "match"),
    [
        ("stge=0.5", (), "width 'stge=0.5': 'stge' names no group of channels, such as 'stem'"),
        ("head:in=0.5", (), "names no group of channels"),
        ("head=0.5", (), "names only what is kept whole, such as head"),
        ("stage=64", (), "stage.0 has 48 neurons, fewer than 64"),
        ("last>=65", (), "last has 64 neurons, fewer than 65"),
        (("stage=0.5", "stage.2=0.25"), (), "'stage=0.5' and 'stage.2=0.25' contradict each other: of the 48"),
        (("stage>=30", "stage.2<=0.5"), (), "at least 30 and at most 24"),
        ("stage<=0.5", ("stage.0",), "contradicts keep: stage.0 is kept by request"),
    ],
)
def test_contradictions_are_refused(net, width, keep, match):
    groups = snnprune.trace(net, X, verify=False, keep=keep)
    with pytest.raises(ConfigError, match=match):
        CostModel(net, groups, X, width=read_widths(width))


def test_what_asks_for_nothing_is_no_contradiction(net, caplog):
    groups = snnprune.trace(net, X, verify=False, keep=["stage.0"])
    with caplog.at_level(logging.INFO, "snnprune"):
        cost = CostModel(net, groups, X, width=read_widths(["stage>=0.5", "stage<=1.0", "*<=1000"]))
    assert set(cost.widths) == {"stem", "stage.2", "last"}
    assert "has no meaning for" in caplog.text


@pytest.mark.parametrize("seed", range(3))
def test_a_cap_leaves_every_layer_of_a_group_something(seed):
    """A branch of four channels within 32 keeps one of the five that may stay, exactly."""
    torch.manual_seed(seed)
    model = Branches().double().eval()
    with torch.no_grad():
        model.a.weight.mul_(1e-3)
        model.a.bias.mul_(1e-3)
    x = X.double()
    group = next(g for g in snnprune.trace(model, x) if g.size == 32)
    with snnprune.attach(model, x, floor=0.25, width={"c": 5}) as gated:
        gated.set_budget({"macs": 0.9})
        assert next(c.kept for c in gated.counts() if c.id == group.id) == 5
        small = gated.compact()
        torch.testing.assert_close(small(x), gated(x), rtol=0, atol=1e-12)
    assert small.c.out_channels == 5
    assert small.a.out_channels >= 1
    assert small.b.out_channels == 5 - small.a.out_channels
    with pytest.raises(ConfigError, match="2 of its layers hold only some"):
        snnprune.attach(model, x, floor=0.25, width={"c": 1})


def test_a_run_keeps_to_them_and_says_so(net):
    data = [(torch.randn(8, 3, 8, 8), torch.randint(0, 5, (8,))) for _ in range(4)]
    config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=1, width={"stage.*": 0.75, "stem": 5})
    result = snnprune.optimize(net, data, data, config)
    sizes = {c["id"]: c["kept"] for c in result.report.groups}
    assert (sizes["stage.0"], sizes["stage.2"], sizes["stem"]) == (40, 40, 5)
    assert result.model.stem.out_channels == 5
    assert "stem" not in result.report.odd_widths, "that is what was asked for"
    assert result.report.config["width"] == ["stage.*=0.75", "stem=5"]
