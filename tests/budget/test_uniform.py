"""Groups that keep the same share: every selection keeps to it, and the scores of all decide which it is."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_floors import Branches
from torch import nn

import snnprune
from snnprune.budget import CostModel, read_widths
from snnprune.budget import selector as module
from snnprune.budget.pooling import Member, Pool
from snnprune.errors import ConfigError, TargetError
from snnprune.macs import price

from .timed import products, stairs

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """Two convolutions around which the stream goes, with batch norm of random statistics."""

    def __init__(self, width, inner):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, inner, 3, padding=1), nn.Conv2d(inner, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(inner)
        for tensor in (self.norm.running_mean, self.norm.weight.data, self.norm.bias.data):
            tensor.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return torch.relu(x + self.conv2(torch.relu(self.norm(self.conv1(x)))))


class Net(nn.Module):
    """Two stages of three blocks each; in the second one the inner widths differ."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.layer1 = nn.Sequential(*(Block(32, 32) for _ in range(3)))
        self.down = nn.Conv2d(32, 48, 3, stride=2, padding=1)
        self.layer2 = nn.Sequential(Block(48, 48), Block(48, 24), Block(48, 96))
        self.head = nn.Linear(48, 5)

    def forward(self, x):
        x = self.layer1(torch.relu(self.stem(x)))
        return self.head(self.layer2(torch.relu(self.down(x))).mean((2, 3)))


INNER = [f"layer1.{i}.conv1" for i in range(3)]
MIXED = {f"layer2.{i}.conv1": size for i, size in enumerate((48, 24, 96))}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().double().eval()


@pytest.fixture(scope="module")
def groups(net):
    return snnprune.trace(net, X.double(), verify=False)


def costs(net, groups, uniform, width=(), metric="macs"):
    cost = CostModel(net, groups, X.double(), width=read_widths(width), uniform=uniform)
    if metric == "latency":
        cost.add_times([*products(cost, "macs"), *stairs(cost, 4)])
    return cost


def scores_of(cost, seed, digits=8):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(loc=rng.normal(), size=g.size).round(digits) for name, g in cost.groups.items()}


def select(cost, metric, share, scores, *, floor=0.1, round_to=1):
    found = cost.select(metric, share, scores, floor=floor, round_to=round_to)
    assert found.cost <= share + 1e-12
    assert found.cost == pytest.approx(cost.share(metric, found.kept))
    for name, mask in found.kept.items():  # in every group its own scores decide
        assert scores[name][mask].min() >= scores[name][~mask].max(initial=-np.inf)
    return {name: int(mask.sum()) for name, mask in found.kept.items()}, found.cost


@pytest.mark.parametrize("tables", ["one", "two"])
@pytest.mark.parametrize("metric", ["macs", "params", "latency"])
@pytest.mark.parametrize("digits", [8, 0])
@pytest.mark.parametrize("round_to", [1, 8])
def test_blocks_of_a_stage_keep_the_same_number(net, groups, round_to, digits, metric, tables, monkeypatch):
    """In both kinds of search, for any target, also where many scores are equal; and close to the target."""
    if tables == "two":
        monkeypatch.setattr(module, "_ONE_TABLE", 1)
    cost = costs(net, groups, ["layer1.*.conv1"], metric=metric)
    plain = costs(net, groups, (), metric=metric)
    seen, apart = set(), False
    for seed, share in enumerate((0.9, 0.7, 0.5, 0.35)):
        scores = scores_of(cost, seed, digits)
        found, spent = select(cost, metric, share, scores, round_to=round_to)
        assert len({found[name] for name in INNER}) == 1
        if round_to == 1 and metric != "latency" and digits == 8:
            assert spent > share - 2 * module.SLACK
        seen.add(found[INNER[0]])
        free, _ = select(plain, metric, share, scores, round_to=round_to)
        apart = apart or len({free[name] for name in INNER}) > 1
    assert len(seen) > 1
    assert apart, "which it would not do by itself"


@pytest.mark.parametrize("round_to", [1, 4])
def test_a_threshold_on_the_means_is_what_decides(net, groups, round_to, monkeypatch):
    """The widths are those of a search without sets whose groups all have the mean of the sorted scores."""
    monkeypatch.setattr(module, "SLACK", 1.0)  # the threshold's own order alone
    cost, plain = costs(net, groups, ["layer1.*.conv1"]), costs(net, groups, ())
    for seed in range(4):
        scores = scores_of(cost, seed)
        mean = np.mean([-np.sort(-scores[name]) for name in INNER], axis=0)
        pooled = scores | dict.fromkeys(INNER, mean)
        found, spent = select(cost, "macs", 0.5, scores, round_to=round_to)
        want, most = select(plain, "macs", 0.5, pooled, round_to=round_to)
        assert found == want
        assert spent == most


def test_groups_of_other_widths_keep_the_same_share(net, groups):
    """The same share of 48, 24 and 96, rounded up to blocks of each."""
    cost = costs(net, groups, ["layer2.*.conv1"])
    for share in (0.85, 0.6, 0.45, 0.3):
        for round_to in (1, 8):
            steps = {1: (1, 1, 1), 8: (8, 4, 8)}[round_to]
            found, _ = select(cost, "macs", share, scores_of(cost, 0), round_to=round_to)
            kept = [(found[name], size) for name, size in MIXED.items()]
            lower = max((count - step) / size for (count, size), step in zip(kept, steps, strict=True))
            upper = min(count / size for count, size in kept)
            assert lower < upper, f"no share is between {kept}"


def test_a_pattern_per_stage_and_streams_go_with_their_stage(net, groups):
    cost = costs(net, groups, ["layer1", "layer2"])
    assert cost.uniform["stem"] == "layer1"
    assert cost.uniform["down"] == "layer2"
    found, _ = select(cost, "macs", 0.5, scores_of(cost, 1), round_to=8)
    assert len({found[name] for name in ("stem", *INNER)}) == 1
    assert found["down"] == found["layer2.0.conv1"]
    assert found["stem"] / 32 != found["down"] / 48, "each stage has its own share"


def test_the_first_pattern_that_names_a_group_has_it(net, groups):
    cost = costs(net, groups, ["layer1.0", "layer1"])
    assert cost.uniform["layer1.0.conv1"] == "layer1.0"
    assert cost.uniform["layer1.1.conv1"] == "layer1"


def test_equal_scores_of_everything_still_go_together(net, groups):
    cost = costs(net, groups, ["layer1.*.conv1", "layer2.*.conv1"])
    found, _ = select(cost, "macs", 0.5, {name: np.zeros(g.size) for name, g in cost.groups.items()})
    assert len({found[name] for name in INNER}) == 1


def test_a_floor_and_a_width_of_one_are_those_of_all(net, groups):
    cost = costs(net, groups, ["layer1.*.conv1"], {"layer1.0.conv1": ">=20", "layer1.2.conv1": "<=0.75"})
    for share in (0.95, 0.6, 0.45):
        found, _ = select(cost, "macs", share, scores_of(cost, 2))
        assert 20 <= found[INNER[0]] <= 24
        assert len({found[name] for name in INNER}) == 1
    exact = costs(net, groups, ["layer1.*.conv1"], {"layer1.1.conv1": 19})
    found, _ = select(exact, "macs", 0.6, scores_of(exact, 2), round_to=8)
    assert [found[name] for name in INNER] == [19, 19, 19]
    mixed = costs(net, groups, ["layer2.*.conv1"], {"layer2.1.conv1": 0.5})
    found, _ = select(mixed, "macs", 0.6, scores_of(mixed, 2), round_to=8)
    assert [found[name] for name in MIXED] == [24, 12, 48]


@pytest.mark.parametrize(
    ("uniform", "width", "keep", "match"),
    [
        (["stage"], (), (), "uniform 'stage' names no group of channels, such as 'stem'"),
        (["head"], (), (), "uniform 'head' names only what is kept whole, such as head"),
        (["layer1", "layer1.*.conv1"], (), (), "names only groups that 'layer1' names before it, such as layer1"),
        (["layer1.*.conv1"], (), ("layer1.1.conv1",), "contradicts keep: layer1.1.conv1 is kept by request"),
        (["layer1.*.conv1"], {"layer1.0.conv1": 0.75, "layer1.1.conv1": "<=10"}, (),
         "'layer1.0.conv1=0.75' and 'layer1.1.conv1<=10' contradict uniform 'layer1.*.conv1': of layer1.0.conv1 "
         "at least 24 of 32 neurons would stay, of layer1.1.conv1 at most 10 of 32"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(net, uniform, width, keep, match):
    groups = snnprune.trace(net, X.double(), verify=False, keep=keep)
    with pytest.raises(ConfigError, match=match.replace("*", r"\*")):
        costs(net, groups, uniform, width)


def test_a_group_that_is_kept_whole_is_said(net, groups, caplog):
    with caplog.at_level(logging.WARNING, "snnprune"):
        costs(net, groups, ["*"])
    assert not caplog.text, "outputs are no surprise"
    whole = [replace(g, reason="it is odd") if g.id == "layer1.0.conv1" else g for g in groups]
    with caplog.at_level(logging.WARNING, "snnprune"):
        cost = CostModel(net, whole, X.double(), uniform=["layer1.*.conv1"])
    assert "uniform 'layer1.*.conv1': layer1.0.conv1" in caplog.text
    assert set(cost.uniform) == set(INNER[1:])


@pytest.mark.parametrize("options", [{"target": None}, {"target": {"params": 0.5}, "granularity": "connection"}])
def test_it_has_no_meaning_without_a_budget_of_neurons(options):
    with pytest.raises(ConfigError, match=r"uniform=\['layer1'\] has no meaning for"):
        snnprune.PruneConfig(uniform="layer1", **options)


@pytest.mark.parametrize("given", [3, [""], [None], None])
def test_what_is_no_pattern_is_refused(given, net):
    with pytest.raises(ConfigError, match="uniform="):
        snnprune.PruneConfig(uniform=given)
    with pytest.raises(ConfigError, match="uniform="):
        snnprune.attach(net, X.double(), uniform=given)


def test_a_target_below_the_floors_is_refused(net, groups):
    cost = costs(net, groups, ["*"])
    with pytest.raises(TargetError, match="is below what the floors allow"):
        select(cost, "macs", 0.001, scores_of(cost, 0))
    found, _ = select(cost, "macs", cost.floor_share("macs", scores_of(cost, 0)) + 1e-9, scores_of(cost, 0))
    assert len({found[name] for name in INNER}) == 1


def test_layers_that_hold_some_of_a_group_keep_their_own(net):
    """A group whose parts keep some of low scores may keep more than its floor, and all of its set do."""
    torch.manual_seed(0)
    model = Branches().double().eval()
    found = snnprune.trace(model, X.double(), verify=False)
    names = [g.id for g in found if g.prunable and g.kind == "channel"]
    sizes = {g.id: g.size for g in found}
    cost = CostModel(model, found, X.double(), uniform=["*"])
    for seed in range(5):
        counts, _ = select_any(cost, 0.5, scores_of(cost, seed), floor=0.25)
        lower = max((counts[name] - 1) / sizes[name] for name in names)
        assert lower < min(counts[name] / sizes[name] for name in names)


def select_any(cost, share, scores, floor):
    found = cost.select("macs", share, scores, floor=floor)
    assert found.cost <= share
    return {name: int(mask.sum()) for name, mask in found.kept.items()}, found.cost


@pytest.mark.parametrize("seed", range(4))
def test_levels_never_fall_as_the_share_grows(seed):
    """Against loops: scores are means at the same share, levels the lowest from there on, of each set alone."""
    rng = np.random.default_rng(seed)
    sizes, sets = [4, 6, 6, 3, 5], [0, 0, None, 1, 1]
    begins = 1 + np.cumsum([0, *sizes])
    members = [Member(s, int(b), n) for s, b, n in zip(sets, begins[:-1], sizes, strict=True) if s is not None]
    ranks = np.concatenate([[0], *(np.arange(n) for n in sizes), [0]])
    blocks = np.stack([ranks, ranks // 2 * 2])
    pool = Pool(members, blocks, torch.device("cpu"))
    down = np.concatenate([[-9.0], *(np.sort(rng.normal(size=n)) for n in sizes), [9.0]])
    found = pool.scores(torch.from_numpy(down)).numpy()
    want = down.copy()
    for one in members:
        own = [m for m in members if m.set == one.set]
        wide = max(m.size for m in own)
        for rank in range(one.size):
            at = -(-rank * wide // one.size)
            want[one.begin + rank] = np.mean([down[m.begin + at * m.size // wide] for m in own])
    np.testing.assert_allclose(found, want, rtol=1e-15)
    levels = rng.permutation(2 * len(down)).reshape(2, -1)
    got = pool.levels(torch.from_numpy(levels)).numpy()
    for row in range(2):
        expected = levels[row].copy()
        for one in members:
            own = [m for m in members if m.set == one.set]
            for rank in range(one.size):
                share = blocks[row, one.begin + rank] / one.size
                after = [levels[row, m.begin + r] for m in own for r in range(m.size)
                         if blocks[row, m.begin + r] / m.size >= share]  # fmt: skip
                expected[one.begin + rank] = min(after)
        assert (got[row] == expected).all()


def test_a_gated_model_keeps_to_it_and_is_cut_exactly(net):
    x = X.double()
    with snnprune.attach(net, x, round_to=4, uniform=["layer1", "layer2"]) as gated:
        gated.set_budget({"macs": 0.4})
        small = gated.compact()
        torch.testing.assert_close(small(x), gated(x), rtol=0, atol=1e-10)
    widths = {small.stem.out_channels, *(block.conv1.out_channels for block in small.layer1)}
    assert len(widths) == 1
    assert widths.pop() % 4 == 0
    assert price(small, x).total <= 0.4 * price(net, x).total


def test_a_run_keeps_to_it_and_goes_on_with_it_alone(net, tmp_path):
    data = [(torch.randn(8, 3, 8, 8), torch.randint(0, 5, (8,))) for _ in range(4)]
    model = Net().eval()
    config = snnprune.PruneConfig(target={"macs": 0.5}, epochs=1, uniform="layer1.*.conv1")
    result = snnprune.optimize(model, data, data, config)
    kept = {c["id"]: c["kept"] for c in result.report.groups}
    assert len({kept[name] for name in INNER}) == 1
    assert len({block.conv1.out_channels for block in result.model.layer1}) == 1
    assert result.report.config["uniform"] == ["layer1.*.conv1"]
    assert config.identity() != snnprune.PruneConfig(target={"macs": 0.5}, epochs=1).identity()


def test_widths_that_one_group_asks_of_its_set_are_not_told_as_odd():
    """13 of 32 channels are no multiple of 8, and what was asked of all three."""
    torch.manual_seed(0)
    data = [(torch.randn(8, 3, 8, 8), torch.randint(0, 5, (8,))) for _ in range(4)]
    config = snnprune.PruneConfig(
        target={"macs": 0.5}, epochs=1, uniform="layer1.*.conv1", width={"layer1.0.conv1": 13}
    )
    report = snnprune.optimize(Net().eval(), data, data, config).report
    kept = {c["id"]: c["kept"] for c in report.groups}
    assert [kept[name] for name in INNER] == [13, 13, 13]
    assert not set(INNER) & set(report.odd_widths)
