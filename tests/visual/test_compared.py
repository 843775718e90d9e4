"""Several runs on one page."""

from __future__ import annotations

from snnprune.runs.report import ModelFigures
from snnprune.runs.visual import write_comparison
from visual.conftest import report
from visual.test_page import NASTY, Reader


def test_runs_are_rows_and_points(tmp_path):
    runs = [("one", report()), (NASTY, report(target={"drop": 0.01}, compact=ModelFigures(0.5, 1.0, 100, 50)))]
    read = Reader(write_comparison(runs, tmp_path / "all.html").read_text())
    for words in (
        "one",
        "40.0% of the MACs",
        "at most 1 point of validation accuracy lost",
        "-2.00",
        "-40.00",
        "10.0%",
        "alert(1)",
    ):
        assert words in read.words, words
    assert read.tags.count("figure") == 1
    assert "script" not in read.tags


def test_without_accuracies_there_is_no_drawing(tmp_path):
    bare = ModelFigures(None, None, 100, 50)
    read = Reader(write_comparison([("one", report(dense=bare, compact=bare))], tmp_path / "a.html").read_text())
    assert "figure" not in read.tags
    assert "100.0%" in read.words
