"""The papers' benchmark: its rows, its table, its figures."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, importable
from torch import nn


@pytest.fixture
def papers():
    """The benchmark's modules, importable for the length of one test."""
    with importable(ROOT / "benchmarks", ROOT / "models"):
        import papers
        import papers_report

        yield SimpleNamespace(papers=papers, report=papers_report)
        for name in ("papers", "papers_report", "common"):
            sys.modules.pop(name, None)


def made_up(**changes):
    groups = [{"id": "in", "size": 784, "kept": 400}, {"id": "h", "size": 5, "kept": 3}]
    row = {
        "network": "mlp", "mode": "joint", "seed": 0, "epochs": 20, "accuracy": 0.984, "baseline": 0.983,
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


def test_what_was_not_run_is_named_with_its_command(papers):
    text = papers.report.markdown([made_up(), made_up(network="vgg16")])
    commands = [line.split()[2] for line in text.splitlines() if line.startswith("python benchmarks/papers.py")]
    assert commands == [name for name in papers.papers.PAPERS if name not in ("mlp", "vgg16")]
    assert "Not run" not in papers.report.markdown([made_up(network=name) for name in papers.papers.PAPERS])


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
        assert last.out_features == (100 if name.endswith("mini") else 10)


def test_removed_weights_are_those_that_are_gone_or_zero(papers):
    dense, small = nn.Sequential(nn.Linear(10, 10)), nn.Sequential(nn.Linear(10, 5))
    with torch.no_grad():
        small[0].weight[:, 0] = 0
    assert papers.papers.fc_removed(dense, small) == pytest.approx(0.55)
