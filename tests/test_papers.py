"""The papers' benchmark: its rows, its table, its figures."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, importable
from torch import nn

import snnprune.data


@pytest.fixture
def papers():
    """The benchmark's modules, importable for the length of one test."""
    with importable(ROOT / "benchmarks", ROOT / "models"):
        import papers
        import papers_report
        import papers_states

        yield SimpleNamespace(papers=papers, report=papers_report, states=papers_states)
        for name in ("papers", "papers_report", "papers_states", "published", "common"):
            sys.modules.pop(name, None)


def made_up(**changes):
    groups = [{"id": "in", "size": 784, "kept": 400}, {"id": "h", "size": 5, "kept": 3}]
    row = {
        "network": "mlp", "mode": "joint", "data": "mnist", "seed": 0, "epochs": 20,
        "accuracy": 0.984, "baseline": 0.983,
        "removed": 0.75, "fc_removed": 0.76, "groups": groups, "date": "2026-01-01", "device": "cpu",
        "versions": {"torch": "1"}, "seconds": 5,
        "scales": {"in": [0.0, 0.5] * 392, "h": [0.0, 0.3, 1.2, 0.0, 1.0]},
        "history": [{"counts": {"in": [400, 200, 200], "h": [3, 1, 2]}}] * 3,
    }  # fmt: skip
    return {**row, **changes}


def test_the_table_puts_ours_beside_the_published_numbers(papers):
    rows = [made_up(), made_up(seed=1, accuracy=0.986), made_up(network="vgg16", fc_removed=0.3)]
    lines = [line for line in papers.report.markdown(rows).splitlines() if line.startswith("| ")]
    assert "98.50 ± 0.14" in lines[1]
    assert "75.00 ± 0.00 | 400-3 | 98.36, 98.41, 74.61 | 456-134-45" in lines[1]
    assert "| 30.00 |" in lines[2], "of VGG16 the paper counts FC layers alone"


def test_lossy_images_stand_beside_no_published_figure(papers):
    rows = [made_up(network="vgg_cov2", data="cifar10 as JPEG"), made_up(network="vgg_cov2", data="cifar10")]
    pixels, lossy = [line for line in papers.report.markdown(rows).splitlines() if line.startswith("| vgg_cov2")]
    assert (lossy.count("85.13"), pixels.count("85.13")) == (0, 1)
    assert papers.papers.source_of("vgg_cov2", None) == "cifar10"
    assert papers.papers.source_of("mlp", str(ROOT)) == "mnist as JPEG"
    assert papers.papers.source_of("vgg_cov2", str(ROOT)) == "cifar10 as JPEG"
    assert papers.papers.source_of("vgg_cov2", "cifar10.npz") == "cifar10"


def part(shape, classes, pixels):
    info = snnprune.data.DataInfo(
        "x", shape, tuple(map(str, range(classes))), (0.5,) * shape[0], (0.2,) * shape[0]
    )
    images = torch.tensor([round(255 * p) for p in pixels], dtype=torch.uint8).view(1, -1, 1, 1)
    images = images.expand(20, *shape).contiguous()
    return snnprune.data.ArrayLoader(images, torch.zeros(20, dtype=torch.long), info, batch_size=8)


@pytest.mark.parametrize(
    ("named", "data", "good"),
    [
        ("mnist", ((1, 28, 28), 10, (0.1307,)), True),
        ("mnist", ((1, 28, 28), 10, (0.286,)), False),  # clothes
        ("mnist", ((1, 8, 8), 10, (0.1307,)), False),
        ("cifar10", ((3, 32, 32), 10, (0.491, 0.482, 0.447)), True),
        ("cifar10", ((3, 32, 32), 10, (0.5, 0.5, 0.5)), False),  # noise
        ("cifar10", ((3, 32, 32), 100, (0.491, 0.482, 0.447)), False),
        ("cifar10", ((1, 32, 32), 10, (0.491,)), False),
        ("mini-imagenet", ((3, 84, 84), 100, (0.1, 0.1, 0.1)), True),  # of which nothing is known
    ],
)
def test_other_data_are_not_taken_for_the_papers(papers, named, data, good):
    if good:
        papers.papers.check_data(named, "some.npz", part(*data))
        return
    with pytest.raises(SystemExit, match=rf"some.npz is not {named}: images of .* Give {named} itself"):
        papers.papers.check_data(named, "some.npz", part(*data))


def test_noise_makes_no_row(papers, tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    images = {
        k: generator.integers(0, 255, (n, 28, 28), dtype=np.uint8) for k, n in (("x_train", 200), ("x_test", 50))
    }
    np.savez(tmp_path / "noise.npz", **images, y_train=np.arange(200) % 10, y_test=np.arange(50) % 10)
    rows = tmp_path / "rows.json"
    asked = ["papers.py", "mlp", "--data", str(tmp_path / "noise.npz"), "--epochs", "1", "--results", str(rows)]
    monkeypatch.setattr(sys, "argv", asked)
    with pytest.raises(SystemExit, match="is not mnist"):
        papers.papers.main()
    assert not rows.exists()


def test_a_spread_is_part_of_a_rows_key(papers, tmp_path, monkeypatch):
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([made_up(mode="separate")]))  # of before it was written down: 0.6
    asked = []
    made = {"kept": {}, "accuracy": 0.5, "baseline": 0.5, "removed": 0.5, "seconds": 1}
    monkeypatch.setattr(papers.papers, "one_run", lambda *a: asked.append(a[-1].separate_std) or made)
    for std in ("0.6", "0.1", "0.1"):
        argv = ["papers.py", "mlp", "--separate", "--epochs", "20", "--separate-std", std, "--results", str(rows)]
        monkeypatch.setattr(sys, "argv", argv)
        papers.papers.main()
    assert asked == [0.1]
    other = [made_up(mode="separate"), made_up(mode="separate", separate_std=0.1)]
    lines = [line for line in papers.report.markdown(other).splitlines() if "frozen" in line]
    assert ["start spread by 0.1" in line for line in lines] == [False, True]
    assert papers.states.state(row_of(papers, "mlp", "separate"), [*other[1:] * 3]).endswith("spread by 0.1")


def row_of(papers, network, mode):
    return next(row for row in papers.states.PUBLISHED if (row.network, row.mode) == (network, mode))


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], "not run"),
        ([{"epochs": 25}], "cut short: 1 run of 25 epochs"),
        ([{"epochs": 25}] * 3, "run: 3 runs of 25 epochs"),
        ([{"epochs": 24}] * 3, "cut short: 3 runs of 24 epochs"),
        ([{"epochs": 40, "mode": "together"}] * 3, "run: 3 runs of 40 epochs, learned at every step, start at 0"),
        ([{"epochs": 40, "fresh_mean": 0.1}, *[{"epochs": 40}] * 2], "cut short: 2 runs of 40 epochs"),
        ([{"epochs": 25, "fresh_mean": -0.1}], "cut short: 1 run of 25 epochs, start at -0.1"),
        ([{"epochs": 25, "mode": "separate"}] * 3, "not run"),
        ([{"epochs": 1}], "cut short: 1 run of 1 epoch"),
    ],
)
def test_the_state_of_a_published_row(papers, runs, expected):
    assert papers.states.state(row_of(papers, "mlp", "joint"), [made_up(**run) for run in runs]) == expected


def test_lossy_images_are_no_run(papers):
    lossy = [made_up(network="vgg_cov2", data="cifar10 as JPEG", epochs=60)] * 3
    assert papers.states.state(row_of(papers, "vgg_cov2", "joint"), lossy) == "not run"


def test_every_published_row_has_a_command_that_makes_it(papers, monkeypatch):
    rows = papers.states.PUBLISHED
    assert len(rows) == len({(row.network, row.mode) for row in rows}) == 18
    text = papers.report.markdown([made_up()])
    asked = []

    def one_run(name, mode, seed, options):
        asked.append((name, mode, options.epochs))
        raise KeyboardInterrupt

    monkeypatch.setattr(papers.papers, "one_run", one_run)
    for row in rows:
        command = papers.states.command(row)
        assert f"`{command}` |" in text
        monkeypatch.setattr(sys, "argv", [*command.split()[1:], "--results", "none.json"])
        with pytest.raises(KeyboardInterrupt):
            papers.papers.main()
        assert asked.pop() == (row.network, row.mode, row.epochs)


def test_times_to_plan_with(papers, tmp_path, monkeypatch):
    monkeypatch.setattr(papers.states, "PACE", tmp_path / "pace.json")
    assert "| ? | `python benchmarks/papers.py mlp --epochs" in papers.report.markdown([made_up()])
    stamp = {"date": "2026-01-02", "device": "some cpu", "versions": {"torch": "1"}}
    papers.states.measure_pace("mlp", "joint", stamp, "cpu")
    (one,) = json.loads((tmp_path / "pace.json").read_text()).values()
    assert one["seconds_per_epoch"] == pytest.approx(843 * (one["step"] + one["alone"]), rel=0.1)
    one["seconds_per_epoch"] = 100.0
    (tmp_path / "pace.json").write_text(json.dumps({"mlp joint": one}))
    text = papers.report.markdown([made_up()])
    assert "| 2 h | `python benchmarks/papers.py mlp --epochs 25 --runs 3 --data-root DIR` |" in text
    assert "Times: some cpu, torch 1, 2026-01-02." in text
    assert [papers.states.hours(s) for s in (100, 7200, 3 * 86400)] == ["2 min", "2 h", "3 days"]


def test_figures_are_drawn_for_every_network(papers, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "papers.json").write_text(json.dumps([made_up(), made_up(mode="separate")]))
    papers.report.write_papers(tmp_path / "papers.json", tmp_path)
    names = {p.name for p in (tmp_path / "figures").iterdir()}
    assert names == {"mlp-counts.svg", "mlp-patterns.svg", "mlp-pixels.svg"}
    assert "<svg" in (tmp_path / "figures" / "mlp-pixels.svg").read_text()


def test_every_network_of_the_tables_is_there(papers):
    for name in papers.papers.PAPERS:
        model = papers.papers.network(name, 0)
        assert isinstance(model, nn.Module)
        last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
        assert last.out_features == (100 if name.endswith(("mini", "100")) else 10)


def test_removed_weights_are_those_that_are_gone_or_zero(papers):
    dense, small = nn.Sequential(nn.Linear(10, 10)), nn.Sequential(nn.Linear(10, 5))
    with torch.no_grad():
        small[0].weight[:, 0] = 0
    assert papers.papers.fc_removed(dense, small) == pytest.approx(0.55)
