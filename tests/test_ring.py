"""The ring's rules: everybody meets the target and spends the same steps; the report says what was measured."""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, importable
from torch import nn

import snnprune
from snnprune.learner import TaskLoss, recover
from snnprune.metrics import count_macs, count_params
from snnprune.switching.encoding import Scorer

PLACES = [str(ROOT / "benchmarks" / "ring"), str(ROOT / "benchmarks")]


@pytest.fixture
def ring():
    """The benchmark's modules, importable for the length of one test."""
    with importable(*PLACES):
        import ablations
        import book
        import dense
        import gpu
        import methods
        import rivals
        import steps
        import table
        import tasks
        import tracks

        found = (ablations, book, dense, gpu, methods, rivals, steps, table, tasks, tracks)
        yield SimpleNamespace(**{module.__name__: module for module in found})
        for name in (*(module.__name__ for module in found), "common"):
            sys.modules.pop(name, None)


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


def rows(ring, **extra):
    """Made-up rows of two methods and three seeds."""
    made = []
    task = ring.tasks.TASKS["mlp"]
    for method, scores in (("switcher", (0.98, 0.97, 0.99)), ("L2", (0.97, 0.965, 0.97))):
        for seed, test in enumerate(scores):
            knobs = ring.methods.first_knobs(task, method)
            made.append(
                {"task": "mlp", "target": 0.1, "method": method, "seed": seed, "kind": "final", "steps": 1200,
                 "recipe": ring.methods.recipe(task, method), "knobs": knobs,
                 "test": test, "dense_test": 0.985, "params": 0.099, "in_budget": True, "seconds": 3,
                 "date": "2026-01-01", "versions": {"torch": "1", "torch-pruning": "2"}, "device": "cpu", **extra}
            )  # fmt: skip
    return made


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


@pytest.fixture
def images(tmp_path):
    """60 images of each of 10 classes, of the form of CIFAR-10's."""
    generator = np.random.default_rng(0)
    y = np.repeat(np.arange(10), 60)
    x = generator.integers(0, 256, (600, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    return tmp_path / "images.npz"


def test_what_is_held_out_is_the_same_always_and_never_learned_from(ring, images, tmp_path, monkeypatch):
    task = replace(
        ring.tasks.TASKS["resnet56"], make=lambda: ring.gpu.CifarResNet(1), batch=16, per_epoch=480 // 16
    ).at(1)
    monkeypatch.setitem(ring.tasks.TASKS, "resnet56", task)
    options = SimpleNamespace(images=str(images), cache=tmp_path, device="cpu", length=1)
    with pytest.raises(SystemExit, match="ring dense resnet56 --images"):
        ring.tasks.prepare("resnet56", 0, options)
    monkeypatch.setattr(ring.dense, "train_dense", lambda network, loader, **_: network.eval())
    path = ring.dense.train("resnet56", task, options, epochs=1, held=80, validation=40)
    held = torch.load(path, weights_only=True)["held"]
    assert {part: len(places) for part, places in held.items()} == {"test": 80, "val": 40, "train": 480}
    assert torch.cat(list(held.values())).sort().values.equal(torch.arange(600))
    labels = torch.arange(10).repeat_interleave(60)
    assert labels[held["test"]].bincount().tolist() == [8] * 10
    torch.manual_seed(5)
    assert ring.dense.split(labels, 80, 40)["test"].equal(held["test"])
    pixels = torch.from_numpy(np.load(images)["x_train"]).permute(0, 3, 1, 2)
    for seed in (0, 3):
        bout = ring.tasks.prepare("resnet56", seed, options)
        assert bout.task.steps == len(bout.train) == 30
        assert bout.test.images.equal(pixels[held["test"]])
        assert bout.train.images.equal(pixels[held["train"]])
        assert bout.val.images.equal(pixels[held["val"]])
    with np.load(images) as known:
        arrays = dict(known)
    arrays["x_train"] = arrays["x_train"][::-1].copy()
    np.savez(images, **arrays)
    with pytest.raises(SystemExit, match="trained on other images"):
        ring.tasks.prepare("resnet56", 0, options)


def test_lengths_are_corners_of_their_own(ring):
    task = ring.tasks.TASKS["resnet20-pixels"]
    assert (task.steps, task.at(20).steps) == (351, 7020)
    assert ring.methods.recipe(task, "L2") != ring.methods.recipe(task.at(5), "L2")
    assert ring.tasks.TASKS["mlp"].at(5) == ring.tasks.TASKS["mlp"]
    made = []
    for epochs, trainer in ((1, None), (5, None), (5, "gpu")):
        own = task.at(epochs)
        for row in rows(ring):
            recipe = ring.methods.recipe(own, row["method"])
            more = {"task": "resnet20-pixels", "target": 0.5, "macs": 0.5, "steps": own.steps, "epochs": epochs}
            made.append({**row, **more, "recipe": recipe, **({"trainer": trainer} if trainer else {})})
    text = ring.table.markdown(made)
    for title in ("1 epoch", "5 epochs", "5 epochs (gpu)"):
        assert f"## resnet20-pixels, macs = 0.5, {title}\n" in text
    assert "98.00 ± 2.48 (3)" in text


def test_recorded_rows_still_count(ring):
    """An option that is added to the product must not make rows void that it does not change."""
    for name in ("mlp", "lenet", "resnet20"):
        known = json.loads((ROOT / "benchmarks" / "ring" / "results" / f"{name}.json").read_text())
        void = {row["method"] for row in known if not ring.table.current(row)}
        assert not void, (name, void)


def test_rows_are_added_by_several_at_a_time(ring, tmp_path):
    book, other = (ring.book.Book(tmp_path / "a" / "rows.json", {"date": day}) for day in ("1", "2"))
    book.add({"seed": 0})
    other.add({"seed": 1})
    assert book.rows() == [{"date": "1", "seed": 0}, {"date": "2", "seed": 1}]
    assert book.find(seed=1) == {"date": "2", "seed": 1}


@pytest.mark.parametrize(
    "method", ["switcher", "norm, our threshold", "L2", "growing regularisation", "Taylor, iterative"]
)
@pytest.mark.parametrize("total", [16, 13280])
def test_stages_take_all_steps(ring, method, total):
    plan = ring.tracks.plan_of(method, total)
    assert sum(steps for _, _, steps in plan) == total
    assert [way for kind, way, _ in plan if kind == "cut"][-1:] in ([], [1.0])
    assert all(steps for kind, _, steps in plan if kind == "learn")


def test_a_step_of_many_at_once_is_that_of_the_recovery(ring, images):
    """Same batches, same loss, same update as the product's recovery, digit by digit but for rounding."""
    labels = torch.arange(10).repeat_interleave(60)
    held = ring.dense.split(labels, 80, 40)
    train, _, _ = ring.dense.loaders(images, held, batch_size=16, seed=3)
    torch.manual_seed(0)
    teacher, network = ring.gpu.CifarResNet(1).eval(), ring.gpu.CifarResNet(1)
    other = copy.deepcopy(network)
    config = snnprune.PruneConfig(lr=0.05, seed=3)
    loss = TaskLoss(teacher, distill=0.9, temperature=2.0)
    recover(other, train, loss, config, total=6)
    run = ring.steps.Run(network, ring.steps.Tables(train, teacher, 6), 0, 6, 0.05, decay=5e-4, taught=True)
    for _ in range(6):
        run.go()
    done = run.finished()
    for (name, value), expected in zip(done.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(
            value, expected, atol=2e-3, rtol=2e-2, msg=name
        )  # the teacher's answers are halves


def test_all_at_once_goes_on_where_it_stopped(ring, images, tmp_path):
    results = tmp_path / "gpu.json"
    command = ["--tiny", "--images", str(images), "--results", str(results), "--seeds", "1", "--target", "0.6"]
    command += [
        "--method",
        "norm, our threshold",
        "L2",
        "group norm, sparse, many steps",
        "growing regularisation",
    ]
    clock, began = ring.gpu.time, time.monotonic()
    ticks = iter(range(10**6))
    with pytest.MonkeyPatch.context() as patch:  # a second at every look at the clock
        fake = SimpleNamespace(monotonic=lambda: began + next(ticks), sleep=lambda _: None)
        patch.setattr(ring.gpu, "time", fake)
        ring.gpu.main([*command, "--minutes", "0.2"])
    assert ring.gpu.time is clock
    first = json.loads(results.read_text()) if results.exists() else []
    assert len(first) < 4
    assert list((tmp_path / "gpu-state").iterdir())
    ring.gpu.main(command)
    found = json.loads(results.read_text())
    assert found[: len(first)] == first
    assert sorted(row["method"] for row in found) == sorted(command[-4:])
    for row in found:
        assert sum(steps for _, _, steps in row["stages"]) == 16
        assert 0.5 < row["macs"] <= 0.6, row
    assert not list((tmp_path / "gpu-state").iterdir())
    ring.gpu.main(command)
    assert json.loads(results.read_text()) == found
