"""Times in reports: what is said of them, and that none is made up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from conftest import compared
from test_report import report

from snnprune.errors import RunError
from snnprune.runs.report import Report
from snnprune.runs.times import digits, marks, per_second, remarks, speed_up, time_rows, trial_times


def written(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "?"), (0.001234, "0.00123"), (3.2149, "3.21"), (99.94, "99.9"), (100.4, "100"), (12345.6, "12,346")],
)
def test_three_digits(value, shown):
    assert digits(value) == shown
    assert digits(value, " ms") == (shown if value is None else f"{shown} ms")


def test_rows_are_times_throughput_and_how_many_times_as_fast():
    times = compared(3.0, 1.5, batch=32, engine="torch-compiled", spread=0.0184).to_dict()
    assert time_rows(times) == [
        ("time (batch 32, torch-compiled)", "3 ms", "1.5 ms", "2.00x as fast, +- 1.8%"),
        ("inputs a second", "10,667", "21,333", ""),
    ]
    assert per_second(times, "dense") == pytest.approx(32 / 0.003)
    assert speed_up(times) == "2.00x"
    slower = compared(2.0, 4.0, spread=math.inf).to_dict()
    assert time_rows(slower)[0][3] == "0.50x as fast, spread unknown"


@pytest.mark.parametrize(
    ("dense", "compact", "share", "shown"),
    [
        (None, None, None, [("?", "?", "?"), ("?", "?", "")]),
        (None, 1.5, None, [("?", "1.5 ms", "?"), ("?", "667", "")]),
        (3.0, None, None, [("3 ms", "?", "?"), ("333", "?", "")]),
        (None, None, 0.5, [("?", "?", "2.00x as fast, +- 2.0%"), ("?", "?", "")]),
        (3.0, 1.5, None, [("3 ms", "1.5 ms", "?"), ("333", "667", "")]),
    ],
)
def test_what_is_refused_is_a_question_mark_with_its_reason(dense, compact, share, shown):
    times = compared(dense, compact, share=share, refused="it varies by 31 %").to_dict()
    assert [row[1:] for row in time_rows(times)] == shown
    first, second = remarks(times)
    assert "cpu (onnxruntime 1.31.1), batch 1, fp32, 1 CPU thread, Some CPU; 0.5 of 2 cores" in first
    assert second.endswith("it varies by 31 %")
    assert len(remarks(compared().to_dict())) == 1


def test_entries_of_a_trial_are_plain():
    assert trial_times(None) == {}
    assert trial_times(compared(4.0, 1.0, spread=math.inf)) == {
        "latency": 0.25, "dense_ms": 4.0, "compact_ms": 1.0, "spread": None,
    }  # fmt: skip
    refused = trial_times(compared(None, 1.0, refused="it varies"))
    assert (refused["latency"], refused["dense_ms"], refused["refused"]) == (None, None, "it varies")
    assert speed_up(refused) == "?"


@pytest.mark.parametrize(
    "other",
    [
        {"device": "Another CPU"}, {"engine": "torch"}, {"version": "onnxruntime 1.32"}, {"batch": 8},
        {"precision": "fp16"}, {"threads": 2},
    ],
)  # fmt: skip
def test_times_of_other_conditions_get_another_mark(other):
    one, two = compared().to_dict(), compared(5.0, 4.0, **other).to_dict()
    signs, said = marks([one, two, None, one])
    assert signs == ["[1]", "[2]", "", "[1]"]
    assert [line[:3] for line in said[:2]] == ["[1]", "[2]"]
    assert "not comparable" in said[2]


def test_times_that_were_taken_alike_get_none():
    signs, said = marks([compared().to_dict(), None, compared(9.0, 8.0, load="", refused="it varies").to_dict()])
    assert signs == ["", "", ""]
    assert len(said) == 1
    assert "comparable" not in said[0]
    assert marks([None]) == ([""], [])
    long = ["x" * 500 + end + "x" * 500 for end in "ab"]  # cut in the middle they would look alike
    assert marks([compared(device=name).to_dict() for name in long])[0] == ["[1]", "[2]"]


def test_a_report_has_times_first_and_last(tmp_path):
    made = report()
    assert " ms" not in str(made)
    made.latency = compared(3.21, 1.66, spread=math.inf).to_dict()
    assert [row[0] for row in made.rows()][:3] == ["time (batch 1, cpu)", "inputs a second", "accuracy (test)"]
    lines = str(made).splitlines()
    assert " ".join(lines[1].split()) == "time (batch 1, cpu) 3.21 ms 1.66 ms 1.93x as fast, spread unknown"
    ends = {len(line) for line in lines[1:7] if line.endswith(("kept", "points", "unknown"))}
    assert len(ends) == 1, "one column"
    assert any("Some CPU" in line for line in lines)
    made.to_json(tmp_path / "report.json")
    assert written(tmp_path)["latency"] == {**made.latency, "spread": None}
    again = Report.read(tmp_path / "report.json")
    assert again.latency == {**made.latency, "spread": None}
    assert str(again) == str(made)
    again.to_json(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == again


def test_reports_of_before_have_no_times(tmp_path):
    report().to_json(tmp_path / "report.json")
    content = written(tmp_path)
    assert content.pop("latency") is None
    (tmp_path / "report.json").write_text(json.dumps(content))
    assert Report.read(tmp_path / "report.json") == report()


@pytest.mark.parametrize(
    "change",
    [
        {"dense_ms": "3"}, {"dense_ms": 0}, {"compact_ms": -1.0}, {"compact_ms": 1e300}, {"share": True},
        {"share": 0}, {"share": [1]}, {"spread": -0.1}, {"spread": "x"}, {"dense_spread": 1e9},
        {"compact_spread": {}}, {"refused": 3}, {"engine": None}, {"version": 1}, {"device": ["x"]}, {"batch": 0},
        {"batch": 1.5}, {"batch": True}, {"batch": 2**31}, {"precision": 16}, {"threads": "1"}, {"load": None},
        {"predicted_ms": "x"}, {"predicted_ms": 0},
    ],
)  # fmt: skip
def test_times_of_another_form_are_refused(tmp_path, change):
    times = compared().to_dict()
    for wrong in ({**times, **change}, {k: v for k, v in times.items() if k not in change}, [times], 3, {}):
        (tmp_path / "report.json").write_text(json.dumps({**report().to_dict(), "latency": wrong}))
        with pytest.raises(RunError, match=r"its latency is malformed"):
            Report.read(tmp_path / "report.json")
    (tmp_path / "report.json").write_text(json.dumps({**report().to_dict(), "latency": {**times, "newer": [1]}}))
    assert Report.read(tmp_path / "report.json").latency == {**times, "newer": [1]}
