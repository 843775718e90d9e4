"""The ring's rules: everybody meets the target and spends the same steps; the report says what was measured."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from torch import nn

import snnprune
from contests.conftest import rows
from snnprune.learner import TaskLoss, recover
from snnprune.learner.recovering import RecoverStage
from snnprune.metrics import count_macs, count_params
from snnprune.switching.encoding import Scorer


@pytest.fixture
def bout(ring):
    """A small network with batch norm on the digits, not trained: the rules do not depend on it."""
    train, val, test = snnprune.load_data("digits", batch_size=32, augment=False)
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(1, 20, 3, padding=1), nn.BatchNorm2d(20), nn.ReLU(), nn.AvgPool2d(4),
        nn.Conv2d(20, 24, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Flatten(),
        nn.Linear(96, 30), nn.ReLU(), nn.Linear(30, 10),
    ).eval()  # fmt: skip
    task = replace(ring.tasks.TASKS["mlp"], make=lambda: dense, batch=32, steps=12)
    example = next(iter(val))[0][:2]
    return ring.tasks.Bout(task, 0, dense, train, val, test, example, 0.1)


@pytest.mark.parametrize("metric", ["params", "macs"])
@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize(
    "name",
    [
        "random", "L1", "L2", "LAMP", "FPGM", "Taylor", "Hessian", "BN scale, sparse", "group norm, sparse",
        "BN scale, sparse, many steps", "group norm, sparse, many steps", "growing regularisation",
        "L2, iterative", "Taylor, iterative",
    ],
)  # fmt: skip
def test_every_rival_meets_the_target_from_below(ring, bout, name, scope, metric):
    bout.task = replace(bout.task, metric=metric)
    before = {k: v.clone() for k, v in bout.dense.state_dict().items()}
    knobs = {"scope": scope, "teacher": True, "lr": 0.01, "reg": 1e-3, "normalizer": "max"}
    model, spent = ring.rivals.run_rival(bout, name, 0.4, knobs)
    count = count_macs if metric == "macs" else lambda m, _x: count_params(m)
    share = count(model, bout.example) / count(bout.dense, bout.example)
    assert 0.3 < share <= 0.4
    assert 0 <= spent < bout.task.steps
    assert all(torch.equal(v, before[k]) for k, v in bout.dense.state_dict().items()), (
        "the dense network is shared"
    )


def test_all_methods_take_the_same_steps(ring, bout, monkeypatch):
    seen = []
    recover = ring.rivals.recover

    def counting(*args, total, **kwargs):
        seen.append(total)
        return recover(*args, total=total, **kwargs)

    monkeypatch.setattr(ring.rivals, "recover", counting)
    for name in ("L2", "Taylor", "group norm, sparse", "growing regularisation", "Taylor, iterative"):
        seen.clear()
        row = ring.methods.run(bout, name, 0.4, ring.methods.first_knobs(bout.task, name), final=False)
        assert seen[-1] + row["before_removal"] == bout.task.steps
        looks, sparse = (
            {"Taylor": 3, "Taylor, iterative": 3}.get(name, 0),
            round(0.2 * 12) if "sparse" in name else 0,
        )
        assert sum(seen) == bout.task.steps - looks - (6 if name.startswith("growing") else sparse)
        assert "test" not in row, "tuning must not look at the test data"
    row = ring.methods.run(bout, "switcher", 0.4, {"lr": 0.01}, final=True)
    assert row["exactness"]["remove"] < 1e-10
    assert row["in_budget"]
    assert 0 <= row["test"] <= 1


def test_streams_of_option_a_and_the_classifier_stay(ring, bout):
    task = ring.tasks.TASKS["resnet20"]
    knobs = {"scope": "local", "reg": 1e-3, "normalizer": "max"}
    stay = ring.rivals.way_of(bout, "BN scale, sparse", task.make(), knobs).ignored
    assert {"conv1", "bn1", "layer1.0.conv2", "layer1.0.bn2"} <= set(stay)
    assert "layer1.0.conv1" not in stay
    assert ring.rivals.way_of(bout, "L2", bout.dense, knobs).ignored == ("10",)


def test_every_ablation_runs_within_the_budget(ring, bout):
    for method in (*ring.methods.ABLATIONS, *ring.methods.WITHOUT):
        row = ring.methods.run(bout, method, 0.4, {"lr": 0.01}, final=False)
        assert row["in_budget"] or method == "multiples of 8", method
        assert row["exactness"]["remove"] < 1e-10, method


def trained_scorer(ring, bout, method):
    """The scorer before and after a few steps on all its values."""
    groups = snnprune.trace(bout.dense, bout.example)
    with ring.ablations.without(method):
        scorer = Scorer(bout.dense, groups, seed=1)
        before = {name: value.clone() for name, value in scorer.state_dict().items()}
        optimizer = torch.optim.SGD(scorer.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (scorer(bout.dense) ** 3).mean().backward()
            optimizer.step()
        raw = scorer.raw(bout.dense)
    after = scorer.state_dict()
    return {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}, raw


def test_a_part_that_is_taken_away_has_no_effect(ring, bout):
    everything, raw = trained_scorer(ring, bout, "switcher")
    assert everything == {"switcher", "path", "offsets", "rows"}
    learned, _ = trained_scorer(ring, bout, "U-Net frozen at 0")
    assert learned == {"path", "offsets"}, "behind a head of 0 extractors get no gradient"
    assert trained_scorer(ring, bout, "row path frozen")[0] == everything - {"path"}
    assert trained_scorer(ring, bout, "weights unseen")[0] == everything - {"rows"}
    learned, other = trained_scorer(ring, bout, "rows unsorted")
    assert learned == everything
    assert not torch.allclose(other, raw, atol=1e-6)
    assert trained_scorer(ring, bout, "switcher")[0] == everything, "afterwards all is as before"


def test_weights_are_averaged_over_the_recovery(ring, bout):
    seen, step = [], RecoverStage.train_step

    def recovered(method):
        seen.clear()
        torch.manual_seed(0)
        network = copy.deepcopy(bout.dense)
        with ring.ablations.without(method), pytest.MonkeyPatch.context() as patch:
            averaging = RecoverStage.train_step

            def train_step(stage, batch):
                found = averaging(stage, batch)
                seen.append(copy.deepcopy(network.state_dict()))
                return found

            patch.setattr(RecoverStage, "train_step", train_step)
            loss = TaskLoss(None, distill=0.0, temperature=1.0)
            recover(network, bout.train, loss, snnprune.PruneConfig(lr=0.05), total=3)
        return network.state_dict()

    last = recovered("switcher")
    first, second, third = (copy.deepcopy(state) for state in seen)
    assert all(torch.equal(last[name], third[name]) for name in last)
    mean = recovered("averaged 0.9")
    assert RecoverStage.train_step is step
    for name, value in mean.items():
        if value.is_floating_point():
            expected = 0.9 * (0.9 * first[name] + 0.1 * second[name]) + 0.1 * third[name]
            torch.testing.assert_close(value, expected)
    assert any(not torch.equal(mean[name], last[name]) for name in last)


def test_the_table_pairs_seeds_and_ranks_by_accuracy(ring):
    text = ring.table.markdown(rows(ring))
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[1].startswith("| **switcher** |")
    assert "98.00 ± 2.48 (3)" in lines[1]  # t = 4.303, sd = 1, n = 3
    assert "+1.17 ± 1.90" in lines[2]  # differences 1, 0.5, 2


def test_rows_of_another_recipe_do_not_count(ring):
    task = ring.tasks.TASKS["mlp"]
    assert "switcher" not in ring.table.markdown(rows(ring)[3:] + rows(ring, recipe="old")[:3]).split("## mlp")[1]
    assert ring.methods.recipe(task, "switcher") != ring.methods.recipe(task, "free scales")
    assert ring.methods.recipe(task, "L2") != ring.methods.recipe(replace(task, batch=task.batch + 1), "L2")


def test_an_interval_of_one_is_unknown(ring):
    assert ring.table.interval([3.0]) == (3.0, math.inf)
    assert ring.table.interval([1.0, 3.0])[1] == pytest.approx(12.7062)


def test_the_report_is_written_from_the_results_folder(ring, tmp_path):
    (tmp_path / "mlp.json").write_text(json.dumps(rows(ring)))
    ring.table.write_report([tmp_path / "mlp.json", tmp_path / "missing.json"], tmp_path)
    assert "## mlp, params = 0.1" in (tmp_path / "ring.md").read_text()


def test_the_test_data_are_looked_at_once(ring, tmp_path, monkeypatch):
    """Where other knobs come to be chosen, rows of seeds that were run are not run again, and never both shown."""
    path = ROOT / "benchmarks" / "ring" / "__main__.py"
    spec = importlib.util.spec_from_file_location("ring_main", path)
    assert spec is not None
    assert spec.loader is not None
    main = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(main)
    made = rows(ring)
    book = ring.book.Book(tmp_path / "mlp.json", {})
    for row in made:
        book.add(row | {"trainer": None})
    options = SimpleNamespace(task="mlp", untuned=False, length=0)
    bouts = {0: SimpleNamespace(origin={})}
    asked = {"book": book, "bouts": bouts, "options": options, "method": "L2", "share": 0.1, "seed": 0}
    known = next(row for row in made if (row["method"], row["seed"]) == ("L2", 0))
    assert main.measure(**asked, knobs=known["knobs"], kind="final")["test"] == known["test"]
    other = {**known["knobs"], "lr": 0.77}
    with pytest.raises(SystemExit, match="a second look would choose by them"):
        main.measure(**asked, knobs=other, kind="final")
    monkeypatch.setattr(main, "run", lambda *_args, **_options: {"val": 0.9})
    assert main.measure(**asked, knobs=other, kind="tune")["val"] == 0.9
    with pytest.raises(ValueError, match=r"L2 has two rows of seed 0 in mlp, params = 0.1"):
        ring.table.corners([*made, known | {"knobs": other}])


def test_rows_of_other_data_or_another_dense_network_are_refused(ring, bout, tmp_path, monkeypatch):
    """Not taken for rows of these, and not put beside them in a table."""
    spec = importlib.util.spec_from_file_location("ring_main", ROOT / "benchmarks" / "ring" / "__main__.py")
    main = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(main)
    made = []
    monkeypatch.setattr(main, "run", lambda *_args, **_options: made.append(1) or {"dense_test": 0.1, "test": 0.1})
    options = SimpleNamespace(task="mlp", untuned=False, length=0)
    book = ring.book.Book(tmp_path / "mlp.json", {"date": "2026-01-01"})
    asked = {"book": book, "options": options, "method": "L2", "share": 0.1, "seed": 0, "kind": "final"}
    asked["knobs"] = ring.methods.first_knobs(ring.tasks.TASKS["mlp"], "L2")

    def measured(one):
        monkeypatch.setattr(main, "prepare", lambda *_: one)
        return main.measure(bouts={}, **asked)

    assert measured(bout).keys() >= {"data", "dense"}
    assert measured(bout)["test"] == 0.1
    assert len(made) == 1, "on file"
    shuffled = copy.copy(bout)
    shuffled.__dict__.pop("origin", None)
    shuffled.test = [(x.flip(3), y) for x, y in bout.test]
    other = copy.copy(bout)
    other.__dict__.pop("origin", None)
    other.dense = copy.deepcopy(bout.dense)
    with torch.no_grad():
        other.dense[0].weight[0, 0, 0, 0] += 0.1
    for one, what in ((shuffled, "data"), (other, "dense")):
        with pytest.raises(SystemExit, match=f"their {what} differ"):
            measured(one)
    del other.__dict__["origin"]
    before = [row | {"dense_test": 0.3} for row in rows(ring)]
    with pytest.raises(SystemExit, match=r"30\.00% there and 10\.00% here"):
        bout.check(before)
    bout.check([row | {"dense_test": 0.1005} for row in rows(ring)])
    spoilt = rows(ring)
    spoilt[3] |= {"dense_test": 0.93}
    with pytest.raises(ValueError, match=r"seed 0 in mlp.*different data or dense networks"):
        ring.table.corners(spoilt)
    spoilt = [row | {"data": "ab" if at else "cd"} for at, row in enumerate(rows(ring))]
    with pytest.raises(ValueError, match="different data or dense networks"):
        ring.table.corners(spoilt)
