"""What must not blur a contest: names, code that changed, a method's failure, unequal cost, equal seeds."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F

import snnprune
from contests.conftest import CONFIG, SHORT, arrays, hold
from snnprune.errors import ConfigError, RunError
from snnprune.rivals import single, sparse
from snnprune.rivals.entrants import entrants

Magnitude = tp.importance.GroupMagnitudeImportance


def ordered(model, groups, sign=1.0):
    return {group.id: sign * torch.arange(float(group.size)) for group in groups}


@pytest.mark.parametrize(
    "name", ["ours", "norm", "free", "free scales", "dense, trained on", "lamp", " ", "all", "l2:local"]
)
def test_the_name_of_ours_is_nobody_elses(name):
    with pytest.raises(ConfigError, match="name of its own"):
        entrants([(name, ordered)], "our-surgery")


def test_a_name_may_begin_like_a_method():
    assert [one.name for one in entrants([("l2: mine", ordered), ("norm:2026", ordered)], "our-surgery")] == [
        "l2: mine",
        "norm:2026",
    ]


def ours(model, groups):
    return ordered(model, groups)


def test_a_function_that_is_called_as_ours_is_refused(model, data):
    with pytest.raises(ConfigError, match="'ours' is the name of a method"):
        hold(model, data, ["l2", ours])
    with pytest.raises(ConfigError, match=r"give a list: \['ours', function\]"):
        hold(model, data, ("ours", ordered))  # a tuple of two is a name and a function


def test_pairs_give_names_and_importances_of_one_class_take_part_together(model, data):
    with pytest.raises(ConfigError, match="pairs with names"):
        hold(model, data, [Magnitude(p=1), Magnitude(p=2)])
    found = hold(model, data, [("one", Magnitude(p=1)), ("two", Magnitude(p=2)), "l1", "l2"])
    rows = {row["method"]: row for row in found.rows}
    for mine, named in (("one", "l1"), ("two", "l2")):
        assert rows[mine]["value"] == rows[named]["value"]
        assert rows[mine]["params"] == rows[named]["params"]
    assert len(hold(model, data, ("alone", ordered)).rows) == 1
    with pytest.raises(ConfigError, match="only functions and importances"):
        hold(model, data, [("mine", "l2")])


@pytest.mark.parametrize("wrong", [None, 5, [None], [3.0]])
def test_what_is_no_list_of_methods_is_refused(model, data, wrong):
    with pytest.raises(ConfigError):
        hold(model, data, wrong)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (functools.partial(ordered, sign=1.0), functools.partial(ordered, sign=-1.0)),
        (Magnitude(p=1), Magnitude(p=2)),
        (Magnitude(), Magnitude(target_types=[nn.modules.batchnorm._BatchNorm])),
    ],
)
def test_rows_of_another_function_are_not_taken_for_its_own(model, data, tmp_path, before, after):
    found = hold(model, data, [before], folder=tmp_path)
    again = hold(model, data, [before], folder=tmp_path, resume=True)
    assert again.rows == found.rows
    with pytest.raises(RunError, match="holds runs of another"):
        hold(model, data, [after], folder=tmp_path, resume=True)
    both = hold(model, data, [("other", after)], folder=tmp_path, resume=True)
    assert [row["method"] for row in both.rows] == [found.rows[0]["method"], "other"]
    assert len(both.table()) == 2


def fails(model, groups):
    raise RuntimeError("no idea")


def returns_words(model, groups):
    return {group.id: "best" for group in groups}


class Pairwise:
    """A loss that compares the inputs of a batch with each other."""

    def __call__(self, model, batch):
        x, y = batch
        outputs = model(x)
        return F.cross_entropy(outputs, y) + 0.0 * torch.stack([outputs[0], outputs[1]]).var()


def test_what_fails_is_one_row_and_the_others_go_on(model, data, tmp_path):
    found = hold(model, data, ["l2", returns_words, fails, "hessian"], loss_fn=Pairwise(), folder=tmp_path)
    rows = {row["method"]: row["failed"] for row in found.rows}
    assert rows["l2"] is None
    assert "returns_words gives" in rows["returns_words"]
    assert "no idea" in rows["fails"]
    assert "does not take a batch of one" in rows["hessian"]
    more = hold(model, data, ["l1"], loss_fn=Pairwise(), folder=tmp_path, resume=True)
    assert {row["method"]: row["failed"] for row in more.rows} == {**rows, "l1": None}, "failed rows stay"


def test_a_mistake_of_ours_is_no_row(model, data, monkeypatch):
    def wrong(*_):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(single, "Job", wrong)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        hold(model, data, ["ours"])


def test_a_method_without_steps_to_look_in_fails_alone(model, data):
    config = replace(SHORT, search=replace(SHORT.search, probe=0))
    rows = {row["method"]: row["failed"] for row in hold(model, data, ["taylor", "l2"], config).rows}
    assert "step" in rows["taylor"]
    assert rows["l2"] is None


def test_patience_is_of_the_free_mode_alone(model, data):
    config = replace(CONFIG, epochs=8, lr=1e-4, search=replace(CONFIG.search, patience=1, share=0.9))
    row = hold(model, data, ["ours"], config).rows[0]
    assert sum(row["steps"].values()) == 8 * 6


def test_seeds_that_change_nothing_count_as_one(model, data):
    train, val, test = data
    batches = list(train)
    found = snnprune.contest(model, batches, val, SHORT, methods=["ours", "l2"], seeds=2, test=test)
    values = {row["method"]: row["value"] for row in found.rows if row["seed"] == 0}
    if all(row["value"] == values[row["method"]] for row in found.rows):
        assert found.verdict.startswith("2 seeds gave the same figures, so they count as one: ours less")
    found.rows = [{**row, "value": values[row["method"]]} for row in found.rows]
    assert found.verdict.startswith("2 seeds gave the same figures, so they count as one: ours less")


def test_a_row_depends_on_its_seed_not_on_where_it_stands(model, data):
    _, val, test = data

    def rows(first, seeds):
        train = arrays(96, 0, shuffle=True, seed=first)
        config = replace(SHORT, seed=first)
        found = snnprune.contest(model, train, val, config, methods=["l2"], seeds=seeds, test=test)
        return {row["seed"]: row["value"] for row in found.rows}

    assert rows(7, 2)[8] == rows(8, 1)[8]
    train = arrays(96, 0, shuffle=True, seed=8)
    config = replace(SHORT, seed=8, search=replace(SHORT.search, scores="l2"))
    result = snnprune.optimize(model, train, val, config, test=test)
    assert result.report.compact.value == rows(7, 2)[8]


class Grouped(nn.Module):
    """A stream, and a grouped convolution whose groups go together: one of them is a fifth of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(16, 32, 1)
        self.g, self.inner = nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.BatchNorm2d(32)
        self.c, self.head = nn.Conv2d(32, 16, 1), nn.Linear(16, 3)
        for norm in (self.norm, self.inner):  # not those of a network that has seen nothing
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)

    def forward(self, x):
        x = F.relu(self.norm(self.a(x)))
        return self.head((x + self.c(F.relu(self.inner(self.g(F.relu(self.b(x))))))).mean((2, 3)))


def stream_first(model, groups):
    return {g.id: torch.arange(float(g.size)) + (100 if g.size == 16 else 0) for g in groups}


def test_the_target_is_met_where_blocks_are_coarse_and_else_that_is_said(data, caplog):
    torch.manual_seed(0)
    network = Grouped().eval()
    found = hold(network, data, [stream_first])
    assert 0.45 < found.rows[0]["macs"] <= 0.5
    assert found.rows[0]["exact"] < 1e-10
    coarse = replace(SHORT, width=("a=1.0",), target={"macs": 0.6})
    with caplog.at_level("WARNING"):
        found = hold(network, data, [stream_first, "l2"], coarse, ways="both")
    kept = {row["method"]: row["macs"] for row in found.rows}
    assert kept["l2"] < 0.59
    assert f"l2 keeps {kept['l2']:.3f} of the macs, not 0.6" in str(found)
    assert "no block of neurons more fits" in caplog.text
    assert "l2, as it is, local: it is told nothing of width" in str(found)


def test_what_was_given_back_is_cut_exactly_saved_and_exported(data, tmp_path):
    train, val, test = data
    torch.manual_seed(1)
    config = replace(SHORT, search=replace(SHORT.search, scores=stream_first))
    result = snnprune.optimize(Grouped().eval(), train, val, config, test=test)
    assert max(v for v in result.report.exactness.values() if v is not None) < 1e-10
    assert {name: int((scale > 0).sum()) for name, scale in result.scales.items()}["a"] < 16
    x = next(iter(test))[0].float()
    snnprune.save(result.model, tmp_path / "small")
    loaded = snnprune.load(tmp_path / "small", model=Grouped()).eval()
    with torch.no_grad():
        assert loaded(x).equal(result.model.eval()(x))
    snnprune.export_onnx(loaded, tmp_path / "small.onnx", x)  # raises where ONNX Runtime computes something else


def test_nobody_searches_so_nobody_is_warned_of_a_short_search(model, data, caplog):
    with caplog.at_level("WARNING"):
        hold(model, data, ["l2", "dense"])
    assert "the search has" not in caplog.text
    with caplog.at_level("WARNING"):
        hold(model, data, ["ours"])
    assert "the search has" in caplog.text


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Linear(64, 16), nn.BatchNorm1d(16)
        self.b, self.head = nn.Linear(16, 12), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(F.relu(self.b(F.relu(self.norm(self.a(x.flatten(1)))))))


def test_sparse_learning_leaves_frozen_norms_alone_and_needs_something_that_learns(data, monkeypatch):
    train, val, test = data
    torch.manual_seed(0)
    network = Small().eval()
    seen = []
    original = sparse.clip_gradients

    def look(parameters, limit):
        seen.append(1)
        return original(parameters, limit)

    monkeypatch.setattr(sparse, "clip_gradients", look)
    config = replace(SHORT, freeze_norm=True, epochs=3, target={"params": 0.5})
    odd = [
        *train,
        tuple(part[:1] for part in next(iter(train))),
    ]  # a batch of one input, from which norms learn nothing
    found = snnprune.contest(network, odd, val, config, methods=["bn-sparse:local"], seeds=1, test=test)
    assert found.rows[0]["failed"] is None
    assert seen
    frozen = Small().eval().requires_grad_(False)
    why = hold(frozen, data, ["bn-sparse:local"], replace(SHORT, target={"params": 0.5})).rows[0]["failed"]
    assert "nothing of this network learns" in why


class Two(nn.Module):
    """Outputs `logits` and `aux`, of which one may not matter."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.logits, self.aux = nn.Linear(64, 16), nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, x):
        x = F.relu(self.a(x.flatten(1)))
        return {"logits": self.logits(x), "aux": self.aux(x)}


def test_outputs_that_do_not_matter_stay_whole_in_their_networks_too(data):
    torch.manual_seed(0)
    config = replace(SHORT, outputs=("logits",), target={"params": 0.5})

    def loss(model, batch):
        return F.cross_entropy(model(batch[0])["logits"], batch[1])

    found = hold(Two().eval(), data, ["l2:local"], config, loss_fn=loss, metric=error)
    assert found.rows[0]["failed"] is None
    assert found.rows[0]["exact"] < 1e-10
    assert found.rows[0]["note"] == ""


def error(model, loader):
    """Share of wrong answers."""
    found = [(model(x)["logits"].argmax(1) != y).float().mean() for x, y in loader]
    return float(torch.stack(found).mean())


error.higher_is_better = False


def test_where_their_criterion_judges_nothing_the_reason_is_that(data):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    found = hold(network, data, ["bn-scale:local", "bn-scale:global"], replace(SHORT, target={"params": 0.5}))
    for row in found.rows:
        assert "removes nothing of this network" in row["failed"]


def test_gradients_that_an_importance_has_gathered_stay_the_callers(model, data):
    imp = tp.importance.GroupHessianImportance()
    x, y = next(iter(data[0]))
    for at in range(3):
        model.zero_grad()
        F.cross_entropy(model(x[at : at + 1].float()), y[at : at + 1]).backward()
        imp.accumulate_grad(model)
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    hold(model, data, [imp, ("again", tp.importance.GroupHessianImportance())], ways="both")
    assert len(imp._accu_grad) == len(before)
    for name, p in model.named_parameters():
        assert p.grad.equal(before[name])
