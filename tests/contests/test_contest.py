"""A contest: equal steps, equal batches, one target; resumed to the same end."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import snnprune
from contests.conftest import CONFIG, arrays, stop_at
from snnprune.errors import ConfigError, RunError
from snnprune.learner import TaskLoss, recover
from snnprune.learner.recovering import RecoverStage
from snnprune.learner.searching import SearchStage
from snnprune.rivals import finish, single

TOTAL = 12  # steps: 2 epochs of 6 batches


def values(found):
    return {(row["method"], row["seed"]): (row["value"], row["macs"], row["steps"]) for row in found.rows}


def test_everybody_takes_the_same_steps_and_meets_the_target(model, data, monkeypatch):
    train, val, test = data
    before = copy.deepcopy(model.state_dict())
    taken = {"search": 0, "recover": 0}
    for stage in (SearchStage, RecoverStage):
        original = stage.train_step

        def train_step(self, batch, original=original):
            taken[self.name] += 1
            return original(self, batch)

        monkeypatch.setattr(stage, "train_step", train_step)
    ended = []

    def tell(event):
        if event.stage == "entrant" and "ended" in event.values:
            ended.append((event.values["ended"], dict(taken)))
            taken.update(search=0, recover=0)

    found = snnprune.contest(
        model, train, val, CONFIG, methods=["all"], ways="both", seeds=1, test=test, callbacks=[tell]
    )
    assert len(ended) == len(found.rows) == 3 + 3 * 8 + 5 * 2 + 1
    for row, steps in ended:
        assert row["failed"] is None, row
        assert sum(row["steps"].values()) == TOTAL == found.steps
        assert steps["recover"] == row["steps"]["recover"] + row["steps"].get("between", 0)
        assert (row["steps"].get("between", 0) > 0) == ("iterative" in row["method"])
        assert steps["search"] == row["steps"].get("search", 0)
        looked = row["method"].startswith(("taylor", "hessian", "ours", "free"))
        assert (row["steps"].get("probe", 0) > 0) == looked, row
        assert (row["steps"].get("sparse", 0) > 0) == ("sparse" in row["method"] or "growing" in row["method"])
        if row["method"].startswith("dense"):
            assert (row["macs"], row["params"], row["exact"]) == (1, 1, None)
            continue
        assert 0.35 < row["macs"] <= 0.5, row
        assert row["exact"] < 1e-9, row
        fewer = f"it has steps for {TOTAL // 4} of its 5 rounds" if "iterative" in row["method"] else ""
        assert row["note"] == fewer
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items()), (
        "the caller's model is left alone"
    )
    assert all(p.grad is None for p in model.parameters())


def test_methods_of_a_seed_see_the_same_batches_and_seeds_others(model, data, monkeypatch):
    train, val, test = data
    seen = []
    original = RecoverStage.train_step

    def train_step(self, batch):
        seen[-1].append(batch[1].tolist())
        return original(self, batch)

    def tell(event):
        if event.stage == "entrant" and "ended" not in event.values:
            seen.append([])

    monkeypatch.setattr(RecoverStage, "train_step", train_step)
    snnprune.contest(
        model, train, val, CONFIG, methods=["l1", "random"], ways="both", seeds=2, test=test, callbacks=[tell]
    )
    assert len(seen) == 12
    assert all(len(run) == TOTAL for run in seen)
    assert all(run == seen[0] for run in seen[:6])
    assert all(run == seen[6] for run in seen[6:])
    assert seen[0] != seen[6]


def test_the_same_contest_again_is_the_same(model, data):
    train, val, test = data
    options = {"methods": ["ours", "random", "taylor"], "seeds": 2, "test": test}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = snnprune.contest(model, train, val, CONFIG, **options)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers go on as they were"
    torch.manual_seed(77)
    other = snnprune.contest(model, train, val, CONFIG, **options)
    assert values(one) == values(other)
    single = snnprune.contest(model, train, val, CONFIG, methods=["taylor"], seeds=1, test=test)
    assert values(single).items() <= values(one).items(), "who else takes part changes nothing"


def test_the_dense_network_trained_on_is_what_its_own_training_gives(model, data):
    train, val, test = data
    for seed, distill in ((0, 0.0), (3, 0.9)):
        config = replace(CONFIG, seed=seed, distill=distill)
        found = snnprune.contest(model, train, val, config, methods=["dense", "norm"], seeds=1, test=test)
        whole = copy.deepcopy(model)
        loss = TaskLoss.of(config, copy.deepcopy(model), None)
        recover(whole, train, loss, config, total=TOTAL)
        (row,) = [row for row in found.rows if row["method"] == "dense, trained on"]
        assert row["value"] == snnprune.evaluate(whole, test).accuracy
        assert distill or row["value"] != found.dense["value"], "it has learned"
        assert found.verdict == "Ours takes no part, so nothing can be said of it."


@pytest.mark.parametrize(
    ("methods", "ways", "call"),
    [
        (["norm", "taylor"], "our-surgery", 7),
        (["norm", "taylor"], "our-surgery", 19),
        (["norm", "taylor"], "as-they-are", 17),
        (["dense"], "our-surgery", 7),
    ],
)
def test_stopped_and_gone_on_with_is_as_if_never_stopped(model, data, tmp_path, monkeypatch, methods, ways, call):
    train, val, test = data
    options = {"methods": methods, "ways": ways, "seeds": 1, "test": test}
    whole = snnprune.contest(model, train, val, CONFIG, folder=tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, call)
        with pytest.raises(KeyboardInterrupt):
            snnprune.contest(model, train, val, CONFIG, folder=tmp_path / "cut", **options)
    assert list((tmp_path / "cut" / "checkpoint").rglob("state.pt"))
    steps = [0]
    original = RecoverStage.train_step

    def train_step(self, batch):
        steps[0] += 1
        return original(self, batch)

    monkeypatch.setattr(RecoverStage, "train_step", train_step)
    again = snnprune.contest(model, train, val, CONFIG, folder=tmp_path / "cut", resume=True, **options)
    assert values(again) == values(whole)
    every = sum(row["steps"]["recover"] for row in whole.rows)
    assert steps[0] == every - call, "what was done, the step in which it was stopped too, is not done again"
    assert {p.name for p in (tmp_path / "cut").iterdir()} == {"contest.json", "contest.html"}
    steps[0] = 0
    more = snnprune.contest(
        model, train, val, CONFIG, folder=tmp_path / "cut", resume=True, **{**options, "methods": [*methods, "l2"]}
    )
    assert len(more.rows) > len(whole.rows)
    assert values(whole).items() <= values(more).items()
    assert steps[0] == TOTAL * (len(more.rows) - len(whole.rows)), "only who came new has run"


def test_results_are_timed_where_that_is_asked_for(model, data, tmp_path, timed):
    train, val, test = data
    options = {"methods": ["ours", "dense", "l2:local"], "seeds": 1, "test": test}
    plain = snnprune.contest(model, train, val, CONFIG, **options)
    assert timed == []
    found = snnprune.contest(model, train, val, CONFIG, time=True, folder=tmp_path / "a", **options)
    assert [row.pop("times") for row in plain.rows] == [None] * 3
    assert len(timed) == 3
    for row, (dense, compact) in zip(found.rows, timed, strict=True):
        assert row["times"]["latency"] == pytest.approx(row["macs"]) == pytest.approx(compact / dense)
        assert (row["times"]["engine"], row["times"]["batch"]) == ("cpu", 1)
        assert row["value"] == next(r["value"] for r in plain.rows if r["method"] == row["method"])
    again = snnprune.contest(
        model, train, val, CONFIG, time=True, folder=tmp_path / "a", resume=True,
        **{**options, "methods": ["ours", "norm"]},
    )  # fmt: skip
    assert len(timed) == 4, "what is on file is not timed again"
    assert str(again).count("timed with cpu (onnxruntime 1.31.1)") == 1
    book = tmp_path / "a" / "contest.json"
    content = json.loads(book.read_text())
    for wrong in ({"latency": "fast"}, {"latency": -1.0}, {"refused": 3}, {"threads": None}):
        spoilt = copy.deepcopy(content)
        spoilt["rows"][0]["times"] |= wrong
        book.write_text(json.dumps(spoilt))
        with pytest.raises(RunError, match="malformed"):
            snnprune.contest(model, train, val, CONFIG, resume=True, folder=tmp_path / "a", **options)
    with pytest.raises(ConfigError, match="time"):
        snnprune.contest(model, train, val, CONFIG, time=1, **options)


def test_stopped_while_a_result_is_timed_nothing_is_learned_again(model, data, tmp_path, timed, monkeypatch):
    train, val, test = data
    options = {"methods": ["ours", "dense", "l2:local"], "seeds": 1, "test": test, "time": True}
    whole = snnprune.contest(model, train, val, CONFIG, **options)
    for at in range(3):
        folder, calls = tmp_path / str(at), []

        def pressed(*_args, at=at, calls=calls):
            calls.append(1)
            if len(calls) == at + 1:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            original = single._timed
            patch.setattr(single, "_timed", lambda *args, p=pressed, o=original: (p(), o(*args))[1])
            with pytest.raises(KeyboardInterrupt):
                snnprune.contest(model, train, val, CONFIG, folder=folder, **options)
        steps, original = [], RecoverStage.train_step
        with monkeypatch.context() as patch:
            patch.setattr(RecoverStage, "train_step", lambda s, b, t=steps, o=original: (t.append(1), o(s, b))[1])
            again = snnprune.contest(model, train, val, CONFIG, folder=folder, resume=True, **options)
        assert values(again) == values(whole)
        assert [row["times"] for row in again.rows] == [row["times"] for row in whole.rows]
        assert len(steps) == sum(row["steps"]["recover"] for row in whole.rows[at + 1 :])


def test_a_book_of_another_contest_is_refused(model, data, tmp_path):
    train, val, test = data
    options = {"methods": ["norm"], "seeds": 1, "test": test, "folder": tmp_path / "a"}
    snnprune.contest(model, train, val, CONFIG, **options)
    with pytest.raises(RunError, match="holds a contest"):
        snnprune.contest(model, train, val, CONFIG, **options)
    with pytest.raises(RunError, match="lr was"):
        snnprune.contest(model, train, val, replace(CONFIG, lr=0.03), resume=True, **options)
    book = tmp_path / "a" / "contest.json"
    content = json.loads(book.read_text())
    content["rows"][0]["value"] = "high"
    book.write_text(json.dumps(content))
    with pytest.raises(RunError, match="malformed"):
        snnprune.contest(model, train, val, CONFIG, resume=True, **options)


def test_an_own_metric_decides_and_the_test_data_are_looked_at_once_a_run(model, data):
    train, val, test = data
    looks = []

    def error(network, loader):
        looks.append(len(loader.labels) == len(test.labels))
        return sum((network(x).argmax(1) != y).sum().item() for x, y in loader) / 64

    error.higher_is_better = False
    found = snnprune.contest(
        model, train, val, CONFIG, methods=["norm", "l2"], ways="both", seeds=2, test=test, metric=error
    )
    assert found.metric.name == "error"
    assert not found.metric.higher_is_better
    assert sum(looks) == 1 + len(found.rows)
    order = [s.mean[0] for s in found.standings]
    assert order == sorted(order)


def test_a_function_of_ones_own_and_a_loss_of_ones_own(model):
    batches = [(torch.randn(8, 1, 8, 8), torch.randn(8, 3)) for _ in range(6)]

    def distance(network, batch):
        return F.mse_loss(network(batch[0]), batch[1])

    def backwards(network, groups):
        return {g.id: -torch.arange(g.size) for g in groups}

    found = snnprune.contest(
        model, batches, batches, CONFIG, methods=["ours", backwards, "hessian"], ways="both", seeds=1,
        loss_fn=distance,
    )  # fmt: skip
    assert found.split == "val"
    assert {row["method"] for row in found.rows} >= {"backwards", "hessian", "hessian, as it is, local"}
    assert all(row["failed"] is None for row in found.rows), found
    assert found.metric.higher_is_better is False


@pytest.mark.pages
def test_the_page_needs_nothing_but_itself(model, data, tmp_path):
    train, val, test = data
    found = snnprune.contest(
        model, train, val, CONFIG, methods=["ours", "l2", "bn-scale"], seeds=2, test=test, folder=tmp_path,
        data_name="<b>stripes</b>", command="snnprune contest x.pt",
    )  # fmt: skip
    assert found.page == tmp_path / "contest.html"
    text = found.page.read_text()
    assert found.verdict.replace("'", "&#x27;") in text
    assert "<svg" in text
    assert "<script" not in text
    assert "&lt;b&gt;stripes" in text
    assert "snnprune contest x.pt" in text
    for row in found.rows:
        assert f">{found.metric.text(row['value'])}</td>" in text


def test_an_untrained_order_is_that_of_the_seed():
    """The loader of a seed is another order of the same data, and of seed 0 the loader itself."""
    loader = arrays(32, 0, shuffle=True, seed=3)
    one, other = (torch.cat([y for _, y in loader.seeded("contest", n).batches(0)]) for n in (1, 2))
    plain = torch.cat([y for _, y in loader.batches(0)])
    assert sorted(one.tolist()) == sorted(other.tolist()) == sorted(plain.tolist())
    assert not torch.equal(one, other)
    assert loader.seed == 3


def test_what_the_caller_has_frozen_stays_frozen_in_their_networks_too(model, data, monkeypatch):
    train, val, test = data
    model.conv.weight.requires_grad_(False)
    seen = []
    original = finish.recover

    def recover(compact, *args, **options):
        before = compact.conv.weight.clone()
        original(compact, *args, **options)
        seen.append((compact.inner.weight.requires_grad, torch.equal(before, compact.conv.weight)))

    monkeypatch.setattr(finish, "recover", recover)
    found = snnprune.contest(model, train, val, CONFIG, methods=["taylor"], ways="as-they-are", seeds=1, test=test)
    assert seen == [(True, True)] * 2, found
    assert not model.conv.weight.requires_grad
