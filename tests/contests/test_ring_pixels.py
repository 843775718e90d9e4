"""The ring on original pixels: what is held out, lengths in epochs, rows of several, all at once."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT

import snnprune
from contests.conftest import rows, stop_at
from snnprune.learner import TaskLoss, recover
from snnprune.learner.recovering import RecoverStage
from snnprune.metrics import count_macs


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
    monkeypatch.setattr(ring.dense, "recover", lambda network, *_, **__: network.eval())
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


def test_dense_training_goes_on_after_ctrl_c(ring, images, tmp_path, monkeypatch, capsys):
    """To the same weights as without a stop; and they are not those that it began with."""
    task = replace(ring.tasks.TASKS["resnet56"], make=lambda: ring.gpu.CifarResNet(1), batch=32)

    def trained(place: str) -> dict[str, torch.Tensor]:
        options = SimpleNamespace(images=str(images), cache=tmp_path / place, device="cpu")
        path = ring.dense.train("resnet56", task, options, epochs=2, held=80, validation=40)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        return torch.load(path, weights_only=True)["state"]

    whole = trained("whole")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 20)
        with pytest.raises(KeyboardInterrupt):
            trained("parts")
    assert "validation" in capsys.readouterr().out, "the first epoch was validated"
    parts = trained("parts")
    assert capsys.readouterr().out.count("validation") == 1, "the first epoch is not learned again"
    assert all(value.equal(whole[name]) for name, value in parts.items())
    torch.manual_seed(0)
    assert not whole["conv1.weight"].equal(task.make().conv1.weight)


@pytest.mark.parametrize(("epochs", "precision"), [(1, "auto"), (5, "bfloat16")])
def test_memory_format_and_precision_of_a_task_are_those_of_all_its_methods(ring, monkeypatch, epochs, precision):
    plain = ring.tasks.TASKS["resnet20-pixels"].at(epochs)
    for other in (replace(plain, channels_last=False), replace(plain, half_from=0 if plain.half else 1)):
        for method in ("switcher", "L2"):
            assert ring.methods.recipe(plain, method) != ring.methods.recipe(other, method)
    seen = []

    def stop(*args, **_):
        seen.extend((one.channels_last, one.precision) for one in args if isinstance(one, snnprune.PruneConfig))
        raise KeyboardInterrupt

    monkeypatch.setattr(ring.rivals, "recover", stop)
    monkeypatch.setattr(snnprune, "optimize", stop)
    dense, train = ring.gpu.CifarResNet(1).eval(), range(16)
    bout = ring.tasks.Bout(plain, 0, dense, train, None, None, torch.zeros(2, 3, 32, 32), 0.9)
    for method in ("switcher", "L2"):
        with pytest.raises(KeyboardInterrupt):
            ring.methods.run(bout, method, 0.5, ring.methods.untuned_knobs(plain, method), final=True)
    assert seen == [(True, precision)] * 2


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


def test_untuned_rows_are_distilled_and_stand_for_themselves(ring, tmp_path, monkeypatch):
    """Knobs of an untuned row may be those that tuning would choose; it must not be taken for a tuned one."""
    path = ROOT / "benchmarks" / "ring" / "__main__.py"
    spec = importlib.util.spec_from_file_location("ring_main", path)
    main = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(main)
    done = []

    def run(_bout, method, _share, knobs, *, final):
        done.append((method, final, knobs))
        best = knobs.get("teacher", True) + (knobs["lr"] == 0.02)
        return {"test": 0.5, "dense_test": 0.9, "val": float(best), "in_budget": True, "macs": 0.5, "seconds": 1.0}

    monkeypatch.setattr(main, "run", run)
    monkeypatch.setattr(main, "prepare", lambda *_: SimpleNamespace(check=lambda _rows: None, origin={}))
    methods = "switcher", "L2", "LAMP"
    command = ["ring", "resnet20-pixels", "--target", "0.5", "--seeds", "1", "--method", *methods]
    command += ["--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, "--untuned"])
    main.main()
    first = {"lr": 0.02, "scope": "local", "teacher": True}
    ours = ("switcher", True, {"lr": 0.02})
    assert done == [ours, ("L2", True, first), ("LAMP", True, {**first, "scope": "global"})]
    main.main()
    assert len(done) == 3, "what is on file is not run again"
    done.clear()
    monkeypatch.setattr(sys, "argv", command)
    main.main()
    assert [(method, knobs) for method, final, knobs in done if final] == [
        ("switcher", {"lr": 0.02}),
        ("L2", first),
        ("LAMP", first),
    ]
    text = ring.table.markdown(json.loads((tmp_path / "resnet20-pixels.json").read_text()))
    for title in ("1 epoch", "1 epoch (untuned)"):
        assert f"## resnet20-pixels, macs = 0.5, {title}\n" in text


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
    ours = ["switcher", "norm, our threshold"]
    command += ["--method", *ours, "L2", "group norm, sparse, many steps", "growing regularisation"]
    clock, began = ring.gpu.time, time.monotonic()
    ticks = iter(range(10**6))
    with pytest.MonkeyPatch.context() as patch:  # a second at every look at the clock
        fake = SimpleNamespace(monotonic=lambda: began + next(ticks), sleep=lambda _: None)
        patch.setattr(ring.gpu, "time", fake)
        ring.gpu.main([*command, "--minutes", "0.2"])
    assert ring.gpu.time is clock
    first = json.loads(results.read_text()) if results.exists() else []
    assert len(first) < 5
    assert list((tmp_path / "gpu-state").iterdir())
    ring.gpu.main(command)
    found = json.loads(results.read_text())
    assert found[: len(first)] == first
    assert sorted(row["method"] for row in found) == sorted(command[-5:])
    for row in found:
        assert sum(steps for _, _, steps in row["stages"]) == 16
        assert 0.5 < row["macs"] <= 0.6, row
    assert not list((tmp_path / "gpu-state").iterdir())
    ring.gpu.main(command)
    assert json.loads(results.read_text()) == found
    results.unlink()  # rows are made anew, but not from what lies there of other steps
    ring.gpu.main([*command, "--minutes", "0"])
    assert not (tmp_path / "gpu-state").exists() or not list((tmp_path / "gpu-state").iterdir())


def test_what_is_not_done_is_of_the_same_data_steps_and_options(ring, images, tmp_path):
    labels = torch.arange(10).repeat_interleave(60)
    loaders = ring.dense.loaders(images, ring.dense.split(labels, 80, 40), batch_size=16, seed=3)
    torch.manual_seed(0)
    dense, task = ring.gpu.CifarResNet(1).eval(), ring.tasks.TASKS["resnet56"]

    def track(network, total, share):
        bout = ring.tasks.Bout(task, 0, network, *loaders, next(iter(loaders[1]))[0][:2], 0.1)
        return ring.tracks.Track("switcher", bout, None, share, total, tmp_path / "state.pt")

    track(dense, 16, 0.5).save()
    assert track(dense, 16, 0.5).at == 0
    for other in ((dense, 32, 0.5), (dense, 16, 0.4), (ring.gpu.CifarResNet(1).eval(), 16, 0.5)):
        with pytest.raises(SystemExit, match=r"state\.pt is of other data, steps or options"):
            track(*other)


def test_our_search_on_a_gpu_looks_at_the_neurons_as_the_products_does(ring, images, monkeypatch):
    labels = torch.arange(10).repeat_interleave(60)
    loaders = ring.dense.loaders(images, ring.dense.split(labels, 80, 40), batch_size=16, seed=3)
    torch.manual_seed(0)
    dense, task = ring.gpu.CifarResNet(1).eval(), ring.tasks.TASKS["resnet56"]
    bout = ring.tasks.Bout(task, 0, dense, *loaders, next(iter(loaders[1]))[0][:2], 0.1)
    assert ring.tracks.plan_of("switcher", 13280)[0] == ("search", 0.0, 104)
    seen, original = [], ring.tracks.Job._look

    def look(job):
        seen.append(job.steps)
        return original(job)

    monkeypatch.setattr(ring.tracks.Job, "_look", look)
    before = copy.deepcopy(dense.state_dict())
    small = ring.tracks.searched(bout, "switcher", 0.6, 10)
    assert [(one.probe, one.search, one.recover) for one in seen] == [(4, 6, 0)]
    example = loaders[1].images[:1].float()
    assert 0.5 < count_macs(small, example) / count_macs(dense, example) <= 0.6
    assert all(value.equal(before[name]) for name, value in dense.state_dict().items())
