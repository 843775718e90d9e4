"""Tables in the repository say what the committed rows say, and nothing else."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT, importable

PLACES = (ROOT / "benchmarks" / "ring", ROOT / "benchmarks", ROOT / "models")
MODULES = ("photos", "papers_report", "papers_states", "published", "table", "methods", "tasks", "common")


@pytest.fixture
def made():
    """The modules that write tables, importable for the length of one test."""
    with importable(*PLACES):
        import papers_report
        import photos
        import table

        yield SimpleNamespace(papers=papers_report, photos=photos, ring=table)
        for name in (*MODULES, "ablations", "rivals", "dense", "book"):
            sys.modules.pop(name, None)


def rows_of(*names):
    return [row for name in names for row in json.loads((ROOT / "benchmarks" / name).read_text())]


def test_photos(made, tmp_path, monkeypatch):
    monkeypatch.setattr(made.photos, "TABLE", tmp_path / "photos.md")
    made.photos.write_table(SimpleNamespace(results=ROOT / "benchmarks" / "photos.json"))
    text = (tmp_path / "photos.md").read_text()
    assert text == (ROOT / "benchmarks" / "photos.md").read_text()
    content = json.loads((ROOT / "benchmarks" / "photos.json").read_text())
    content["0.5"]["rows"][0]["value"] = 0.5
    (tmp_path / "other.json").write_text(json.dumps(content))
    made.photos.write_table(SimpleNamespace(results=tmp_path / "other.json"))
    assert (tmp_path / "photos.md").read_text() != text


def test_books_are_collected_and_others_kept(made, tmp_path):
    """A contest that lies on another machine stays on file."""
    results, cache = tmp_path / "photos.json", tmp_path / "cache"
    results.write_text(json.dumps({"0.3": {"rows": [1]}, "0.5": {"rows": [2]}}))
    (cache / "0.5").mkdir(parents=True)
    book = {"format": 2, "identity": {"secret": 1}, "rows": [3], "steps": 7}
    (cache / "0.5" / "contest.json").write_text(json.dumps(book))
    made.photos.collect(SimpleNamespace(results=results, cache=cache))
    assert json.loads(results.read_text()) == {"0.3": {"rows": [1]}, "0.5": {"rows": [3], "steps": 7}}


def test_papers(made):
    assert made.papers.markdown(rows_of("papers.json")) == (ROOT / "benchmarks" / "papers.md").read_text()


def test_ring(made):
    names = [f"ring/results/{name}.json" for name in made.ring.TASKS]
    rows = rows_of(*(name for name in names if (ROOT / "benchmarks" / name).exists()))
    assert made.ring.markdown(rows) == (ROOT / "benchmarks" / "ring" / "ring.md").read_text()
