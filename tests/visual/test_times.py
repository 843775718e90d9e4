"""Times on pages: shown first, never as figures where they are refused, and drawn beside the costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import compared
from PIL import Image

from snnprune.files import write_json
from snnprune.measures import ACCURACY
from snnprune.runs.report import ModelFigures
from snnprune.runs.visual import charts, comparison, write_comparison, write_page, write_sensitivity
from snnprune.runs.visual.compared import head
from snnprune.runs.visual.drawings import drawings
from snnprune.runs.visual.material import read_material
from visual.conftest import report
from visual.test_page import ALL, NASTY, Reader, drawn

TRIALS = [
    {"macs": 0.5, "val_value": 0.88, "drop": 0.02, "passed": False, "latency": 0.7, "dense_ms": 2.0},
    {"macs": 0.75, "val_value": 0.9, "drop": 0.0, "passed": True, "latency": None, "refused": "it varies"},
    {"macs": 0.625, "val_value": 0.895, "drop": 0.005, "passed": True, "latency": 0.8, "dense_ms": 2.0},
    {"macs": 0.6, "val_value": None, "drop": None, "passed": False, "why": "a layer collapsed"},
]


def page_of(folder: Path, **changes) -> Reader:
    report(**changes).to_json(folder / "report.json")
    return Reader(write_page(folder).read_text())


def test_times_come_first(folder):
    times = compared(3.21, 1.66, predicted_ms=1.7, engine="cuda", batch=8, precision="fp16", threads=3).to_dict()
    read = page_of(folder, latency=times)
    for words in (
        "1.93x", "as fast, cuda at batch size 8", "1.66 ms", "a call, dense 3.21 ms", "4,819", "dense 2,492",
        "time (batch 8, cuda)", "1.93x as fast, +- 2.0%", "onnxruntime 1.31.1", "Some CPU", "fp16",
        "share of the dense time +- 2.0%, dense time +- 3.0%, compact time +- 4.0%",
        "0.5 of 2 cores were busy with other things", "1.7 ms",
    ):  # fmt: skip
        assert words in read.words, words
    tiles = read.words.index("as fast, cuda"), read.words.index("test accuracy")
    assert tiles == tuple(sorted(tiles))
    assert read.words.index("Both models were timed") < read.words.index("Before and after")
    assert "?" not in read.words.replace("Can it be trusted?", "").replace("What cannot be trusted is a ?.", "")


def test_what_is_refused_is_no_figure(folder):
    times = compared(None, None, refused="its time varies by 31 %", spread=0.31).to_dict()
    read = page_of(folder, latency=times)
    assert "its time varies by 31 %" in read.words
    assert "?as fast, cpu at batch size 1" in read.words
    assert "?a call, dense ?" in read.words
    assert "?inputs a second, dense ?" in read.words
    assert "time (batch 1, cpu)???" in read.words
    assert " ms" not in read.words
    assert "x as fast" not in read.words


def test_without_times_nothing_is_said_of_them(folder):
    read = page_of(folder)
    assert "as fast" not in read.words
    assert "Both models were timed" not in read.words
    assert drawn(folder) == ALL


def test_a_spread_that_is_not_known(folder):
    read = page_of(folder, latency=compared(spread=float("inf"), load="").to_dict())
    assert "share of the dense time spread unknown" in read.words
    assert "load of the machinenot known" in read.words
    assert "inf" not in read.words


def test_words_of_a_file_are_text(folder):
    names = ("engine", "version", "device", "precision", "load", "refused")
    text = NASTY + "x" * 10**6
    read = page_of(folder, latency={**compared().to_dict(), **dict.fromkeys(names, text)})
    assert "script" not in read.tags
    assert (folder / "report.html").stat().st_size < 2**20
    read = Reader(
        write_comparison([("one", report(latency=compared(engine=text).to_dict()))], folder / "a").read_text()
    )
    assert "script" not in read.tags


def test_trials_are_drawn_against_time_and_cost(folder):
    read = page_of(folder, target={"drop": 0.01}, trials=TRIALS)
    assert drawn(folder) == ALL | {"trials"}
    assert "Accuracy against time and cost" in read.words
    assert "Trials without a time that can be believed are missing" in read.words
    assert "70.0%" in read.words
    assert "it varies" in read.words
    assert "75.0%90.00%0 pointsyes??it varies" in read.words, "a refused time in the table of trials"
    with Image.open(folder / "plots" / "trials.png") as image:
        assert max(image.size) < 2000


def points(figure) -> dict[str, list[list[tuple[float, float]]]]:
    """Axis -> its lines as points."""
    return {
        axis.get_xlabel(): [list(zip(*map(list, line.get_data()), strict=True)) for line in axis.get_lines()]
        for axis in figure.axes
    }


def test_the_points_are_the_trials(folder):
    report(target={"drop": 0.01}, trials=TRIALS).to_json(folder / "report.json")
    (drawing,) = [d for d in drawings(read_material(folder)) if d.name == "trials"]
    found = points(drawing.draw())
    time, macs = found["share of the dense time"], found["share of the MACs kept"]
    assert time[0] == [(0.7, 0.88), (0.8, 0.895), (1.0, 0.9)]
    assert macs[0] == [(0.5, 0.88), (0.625, 0.895), (0.75, 0.9), (1.0, 0.9)]
    assert (time[1], time[2]) == ([(0.8, 0.895)], [(0.7, 0.88)])
    assert (sorted(macs[1]), macs[2]) == ([(0.625, 0.895), (0.75, 0.9)], [(0.5, 0.88)])
    assert [y for _, y in time[3]] == pytest.approx([0.89, 0.89])


def test_without_times_trials_are_drawn_against_the_cost_alone(folder):
    bare = [{k: v for k, v in t.items() if k != "latency"} for t in TRIALS]
    for trials, label in (
        (bare, "share of the MACs kept"),
        ([{**t, "latency": None} for t in TRIALS], "share of the MACs kept"),
        ([{**t, "latency": "fast"} for t in TRIALS], "share of the MACs kept"),
        (
            [{"params" if k == "macs" else k: v for k, v in t.items()} for t in bare],
            "share of the parameters kept",
        ),
    ):
        report(target={"drop": 0.01}, trials=trials).to_json(folder / "report.json")
        (drawing,) = [d for d in drawings(read_material(folder)) if d.name == "trials"]
        assert list(points(drawing.draw())) == [label]


@pytest.mark.parametrize(
    ("target", "trials"),
    [
        ({"macs": 0.5}, TRIALS),
        (None, TRIALS),
        ({"drop": 0.01}, [{"macs": "x", "val_value": 0.5, "drop": 0.1, "passed": True}]),
        ({"drop": 0.01}, [{"macs": 0.5, "val_value": 1e300, "drop": 0.1, "passed": True}]),
        ({"latency": 0.5}, [{"macs": 0.5, "latency": 0.6, "passed": True}]),
    ],
)
def test_trials_of_another_kind_are_not_drawn(folder, target, trials):
    page_of(folder, target=target, trials=trials)
    assert drawn(folder) == ALL


def test_of_very_many_trials_the_last_are_drawn(folder):
    many = [{**TRIALS[0], "macs": 0.0001 * at} for at in range(3000)]
    read = page_of(folder, target={"drop": 0.01}, trials=many)
    assert "Of 3,000 trials the 500 last are shown" in read.words


def test_runs_side_by_side_show_their_times(tmp_path):
    runs = [
        ("one", report(latency=compared(4.0, 2.0).to_dict())),
        ("two", report(latency=compared(4.1, None, refused="it varies").to_dict())),
        ("old", report()),
    ]
    rows = [dict(zip(head(runs), row, strict=True)) for row in comparison(runs)]
    names = ("dense ms", "ms", "inputs/s", "speed-up")
    assert [[row[name] for name in names] for row in rows] == [
        ["4", "2", "500", "2.00x"],
        ["4.1", "?", "?", "?"],
        ["", "", "", ""],
    ]
    assert [row["accuracy"] for row in rows] == ["88.00%"] * 3
    read = Reader(write_comparison(runs, tmp_path / "all.html").read_text())
    assert "timed with cpu (onnxruntime 1.31.1), batch 1" in read.words
    assert "comparable" not in read.words
    assert read.tags.count("figure") == 1, "the time of one run beside the dense model's is no chart"
    runs.append(("four", report(latency=compared(4.0, 3.0).to_dict())))
    read = Reader(write_comparison(runs, tmp_path / "all.html").read_text())
    assert read.tags.count("figure") == 2
    assert "share of the dense time" in read.words


def test_runs_of_other_devices_are_marked_and_not_drawn_together(tmp_path):
    runs = [
        ("one", report(latency=compared(4.0, 2.0).to_dict())),
        ("two", report(latency=compared(9.0, 2.0, device="A phone").to_dict())),
        ("three", report(compact=ModelFigures(None, None, 100, 50), latency=compared(4.0, 1.0).to_dict())),
    ]
    rows = [dict(zip(head(runs), row, strict=True)) for row in comparison(runs)]
    assert [row["speed-up"] for row in rows] == ["2.00x [1]", "4.50x [2]", "4.00x [1]"]
    assert [row["ms"] for row in rows] == ["2 [1]", "2 [2]", "1 [1]"]
    read = Reader(write_comparison(runs, tmp_path / "all.html").read_text())
    assert "not comparable" in read.words
    assert "[2] timed with cpu (onnxruntime 1.31.1), batch 1, fp32, 1 CPU thread, A phone" in read.words
    assert read.tags.count("figure") == 1


def test_trade_offs_are_drawn_at_their_places():
    axis = charts.trade_off([("one", 0.5, 0.88), ("two", 1.2, 0.7)], "time", ACCURACY).axes[0]
    assert [tuple(map(float, line.get_xydata()[0])) for line in axis.get_lines()] == [(0.5, 0.88), (1.2, 0.7)]
    assert axis.get_xlabel() == "time"


def found(*latencies: float | None) -> dict:
    whole = [{"target": 0.5, "macs": 0.5, "params": 0.4, "value": 0.7, "latency": one} for one in latencies]
    return {
        "value": 0.9,
        "cost": "macs",
        "metric": ACCURACY.to_dict(),
        "count": 8,
        "whole": whole,
        "served": {k: v for k, v in compared().to_dict().items() if k != "load"},
        "groups": [{"id": "a", "size": 4, "points": [{"kept": 2, "value": 0.5}]}],
    }


def test_a_sensitivity_analysis_is_drawn_against_time_too(tmp_path):
    read = Reader(write_sensitivity("model", found(0.6, 0.4, None), tmp_path / "s.html").read_text())
    assert read.tags.count("figure") == 3
    assert "cpu (onnxruntime 1.31.1), batch 1, fp32, 1 CPU thread, Some CPU" in read.words
    assert read.words.index("The whole model: time") < read.words.index("share of the MACs")
    for nothing in (found(None, None), {**found(), "served": None}):
        read = Reader(write_sensitivity("model", nothing, tmp_path / "s.html").read_text())
        assert read.tags.count("figure") == 1 + bool(nothing["whole"])
        assert "time" not in read.words.lower()


def test_the_dense_model_is_at_one_and_slower_cuts_are_seen():
    points = [{"latency": 1.3, "value": 0.8}, {"latency": 0.5, "value": 0.6}]
    axis = charts.value_curve(points, 0.9, "latency", "time", ACCURACY).axes[0]
    assert [tuple(map(float, p)) for p in axis.get_lines()[0].get_xydata()] == [(0.5, 0.6), (1, 0.9), (1.3, 0.8)]
    assert axis.get_xlim()[1] > 1.3


def test_a_page_of_times_is_the_same_when_drawn_again(folder):
    report(latency=compared().to_dict(), target={"drop": 0.01}, trials=TRIALS).to_json(folder / "report.json")
    first = write_page(folder).read_bytes()
    assert write_page(folder).read_bytes() == first
    content = json.loads((folder / "report.json").read_text())
    write_json(folder / "report.json", {**content, "latency": None})
    assert write_page(folder).read_bytes() != first
