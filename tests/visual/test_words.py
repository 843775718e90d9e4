"""Words and units in the place of keys, and what was asked beside what was got."""

from __future__ import annotations

import re

import pytest
from conftest import compared

import snnprune
from snnprune.files import write_json
from snnprune.measures import ACCURACY, MetricInfo
from snnprune.measures.intervals import change_interval
from snnprune.runs.report import ModelFigures, size_of
from snnprune.runs.visual import asked, charts, tops, words, write_page
from snnprune.runs.visual.material import read_material
from visual.conftest import report
from visual.test_page import NASTY, Reader, drawn

ERROR = MetricInfo("error", higher_is_better=False, percent=False)
TRIALS = [
    {"macs": 0.5, "val_metric": "accuracy", "val_value": 0.9, "drop": -0.01, "passed": True},
    {"macs": 0.25, "val_metric": "accuracy", "val_value": 0.88, "drop": 0.01, "passed": True},
    {"macs": 0.1, "val_metric": "accuracy", "val_value": 0.5, "drop": 0.39, "passed": False},
]


def rows(folder, **changes) -> dict[str, tuple[str, str]]:
    report(**changes).to_json(folder / "report.json")
    return {what: (wanted, got) for what, wanted, got in asked.rows(read_material(folder))}


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({}, ("40.0% of the MACs", "40.0% of the MACs")),
        ({"target": {"params": 0.45}}, ("45.0% of the parameters", "50.0% of the parameters")),
        (
            {"target": {"params": 0.1}, "compact": ModelFigures(0.8, 0.5, 400, 250, nonzero=60)},
            ("10.0% of the parameters", "12.0% of the parameters"),
        ),
        ({"target": None}, ("free: the switcher alone decides", "40.0% of the MACs, 50.0% of the parameters")),
        (
            {"target": {"drop": 0.02}, "trials": TRIALS},
            ("at most 2 points of validation accuracy lost", "1 point lost, with 40.0% of the MACs"),
        ),
        (
            {"target": {"drop": 0.3}, "metric": ERROR, "trials": TRIALS[:1]},
            ("at most 0.3 of validation error lost", "0.01 gained, with 40.0% of the MACs"),
        ),
        ({"target": {"latency": 0.6}}, ("60.0% of the dense time", "not timed")),
        (
            {"target": {"latency": 0.6}, "latency": compared(3.0, 1.5).to_dict()},
            ("60.0% of the dense time", "50.0% of the dense time, +- 2.0%"),
        ),
        (
            {"target": {"latency": "2ms"}, "latency": compared(3.0, 1.5).to_dict()},
            ("2 ms a call", "1.5 ms a call"),
        ),
        ({"target": {"latency": "2ms"}, "latency": compared(3.0, None).to_dict()}, ("2 ms a call", "? a call")),
    ],
)
def test_a_target_is_beside_what_came_of_it(folder, changes, row):
    assert rows(folder, **changes)["target"] == row


def test_all_that_was_asked_is_beside_what_was_got(folder):
    write_json(folder / "structure.json", {"layers": {"stem.0": {"out": 12}, "other": {"out": 3}}})
    config = snnprune.PruneConfig(
        width=("conv<=3", "stem=0.5", "gone*=2"), keep=("head",), outputs=("0",), floor=0.3,
        uniform=("conv",),
    )  # fmt: skip
    kept = [
        {"id": "a.b", "reason": "kept by request (head)"},
        {"id": "c", "reason": "it is an output of the model"},
    ]
    found = rows(folder, config=config.to_dict(), kept_whole=kept, odd_widths={"conv": 3})
    assert found["floor"] == ("at least 30.0% of every group", "least 56.2%, in fc:in")
    assert found["widths"][1] == "in all groups but conv (3), for the target's sake"
    assert found["outputs"] == ("0", "neurons that only other outputs hold could go")
    assert found["learning"] == ("20 passes over the training data", "12 steps: probe 2, search 4, recovery 6")
    assert found["keep"] == ("head", "kept whole: a.b")
    assert found["uniform"] == ("conv", "conv: 3 of 4")
    widths = [(wanted, got) for what, wanted, got in asked.rows(read_material(folder)) if what == "width"]
    assert widths == [
        ("conv<=3", "conv: 3 of 4"),
        ("stem=0.5", "stem.0: 12"),
        ("gone*=2", "no layer of that name on file"),
    ]


def test_options_of_any_form_make_no_row_and_no_error(folder):
    wrong = {
        "floor": "x",
        "width": [1, "=", NASTY],
        "keep": 3,
        "outputs": {},
        "epochs": None,
        "trials": [],
        "round_to": 0,
    }
    assert set(rows(folder, config=wrong)) == {"target"}


def test_every_key_that_is_shown_has_words():
    """Those of a trial and of times; without words a key would show its underscores."""
    keys = (
        "macs",
        "params",
        "val_value",
        "val_loss",
        "drop",
        "passed",
        "why",
        "latency",
        "dense_ms",
        "compact_ms",
    )
    keys += ("spread", "refused", "share", "predicted_ms", "engine", "final")
    assert all("_" not in words.trial_head(key, ACCURACY) for key in keys)
    assert set(words.SERVED) == {"engine", "version", "device", "batch", "precision", "threads"}
    trial = {"macs": 0.25, "drop": 0.015, "passed": False, "dense_ms": 12.3456, "val_value": 0.5, "val_loss": 0.5}
    cells = {key: words.trial_cell(trial, key, ACCURACY) for key in trial}
    assert cells == {
        "macs": "25.0%",
        "drop": "1.5 points",
        "passed": "no",
        "dense_ms": "12.3 ms",
        "val_value": "50.00%",
        "val_loss": "0.5",
    }
    assert words.trial_cell({"drop": 0.015}, "drop", ERROR) == "0.015"


def test_no_key_of_a_report_is_on_the_page(folder):
    report(target={"drop": 0.02}, trials=TRIALS, latency=compared().to_dict()).to_json(folder / "report.json")
    read = Reader(write_page(folder).read_text())
    text = read.words[read.words.index("</style") if "</style" in read.words else 0 :]
    for key in ("val_value", "val_loss", "dense_ms", "kept_whole", "recover 6", "True", "False", "None", "params"):
        assert not re.search(rf"\b{key}\b", text), key


def test_the_title_tells_network_data_input_and_date(folder):
    structure = {"input_shape": [3, 96, 64], "class": "torchvision.models.mobilenetv2.MobileNetV2"}
    write_json(folder / "structure.json", {**structure, "classes": ["a", "b"]})
    report().to_json(folder / "report.json")
    page = write_page(folder).read_text()
    title = re.search("<title>(.*?)</title>", page)[1]
    assert title == "MobileNetV2 on some data, input 3 \u00d7 96 \u00d7 64, 27 November 2026, run: snnprune"
    read = Reader(page)
    for part in ("2 classes", "27 November 2026, 13:45 UTC", "images: 1,293 training, 144 validation", "run run"):
        assert part in read.words, part
    write_json(folder / "structure.json", {"class": "a.B", "factory": {"arch": "/x/y.py:small_net"}})
    assert tops.title(read_material(folder)).startswith("small_net on some data, 27 November")
    (folder / "structure.json").unlink()
    report(date="").to_json(folder / "report.json")
    assert tops.title(read_material(folder)) == "some data, run"


def test_tiles_tell_size_and_images(folder):
    stored = {"dense": 4000, "compact": 1500}
    inputs = {"train": 10, "val": 4, "test": 700}
    report(stored=stored, inputs=inputs, both_right=610).to_json(folder / "report.json")
    write_json(folder / "structure.json", {"input_shape": [3, 96, 64]})
    read = Reader(write_page(folder).read_text())
    low, high = (f"{100 * end:+.2f}" for end in change_interval(0.9, 0.88, 700, 610))
    for part in (
        "1.5 kBof weights, dense 4 kB",
        "10images to learn from, 4 for validation, 700 for test",
        f"88.00%test accuracy on 700 images, -2.00 points (95 %: {low} to {high}), dense 90.00%",
        f"accuracy: -2.00 points on 700 test inputs; 95 % interval of the change: {low} to {high}",
        "40.0%of the MACs kept, 400 of 1k",
    ):
        assert part in read.words, part
    assert size_of(12) == "12 B"


@pytest.mark.parametrize("few", [1, 2])
def test_what_has_one_or_two_points_has_no_axis(folder, few):
    history = [{"stage": "recover", "step": s, "val_value": 0.8, "val_loss": 0.5} for s in range(1, few + 1)]
    curve = [{"stage": "search", "step": s, "loss": 0.5, "budget": 0.5, "cost": "macs"} for s in range(few)]
    read = page(folder, history=history, curve=curve)
    assert "course" not in drawn(folder)
    assert read.words.count("80.00%") == few, "the values are in a table"
    curve += [{"stage": "recover", "step": s, "loss": 0.5} for s in range(3)]
    page(folder, history=history, curve=curve)
    assert "course" in drawn(folder)
    figure = charts.course(curve, history, {}, {"macs": 0.4}, ACCURACY)
    assert [axis.get_title("left") for axis in figure.axes] == ["training loss"]


def page(folder, **changes) -> Reader:
    report(**changes).to_json(folder / "report.json")
    for old in (folder / "plots").glob("*.png"):
        old.unlink()
    return Reader(write_page(folder).read_text())


def test_the_dense_model_is_in_the_charts(folder):
    history = [{"stage": "recover", "step": s, "val_value": 0.8} for s in range(3)]
    figure = charts.course([], history, {}, {}, ACCURACY, ("dense", 0.91))
    (axis,) = figure.axes
    assert [list(line.get_ydata()) for line in axis.get_lines() if line.get_label() == "dense"] == [[0.91, 0.91]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["search", "recovery", "dense"]
    axis = charts.trade_off([("a", 0.5, 0.8)], "x", ACCURACY, [0.9, 0.9]).axes[0]
    assert list(axis.get_lines()[-1].get_xydata()[0]) == [1.0, 0.9]


def test_runs_have_the_same_mark_in_every_figure():
    one = charts.trade_off([("a", 0.5, 0.8), ("b", 0.6, 0.8)], "x", ACCURACY).axes[0].get_lines()[1]
    other = charts.trade_off([("b", 0.6, 0.8)], "x", ACCURACY, places=[1]).axes[0].get_lines()[0]
    assert (one.get_marker(), one.get_color()) == (other.get_marker(), other.get_color())
    assert (
        one.get_marker() != charts.trade_off([("a", 0.5, 0.8)], "x", ACCURACY).axes[0].get_lines()[0].get_marker()
    )


@pytest.mark.parametrize(
    ("date", "text"),
    [
        ("2026-11-27T13:45:10+00:00", "27 November 2026, 13:45 UTC"),
        ("2026-01-02T03:04:05+05:30", "2 January 2026, 03:04 UTC+05:30"),
        ("", ""),
        ("once", "once"),
    ],
)
def test_dates_are_read(date, text):
    assert words.when(date) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (12.3, "12 s"), (250, "4 min 10 s"), (7500, "2 h 5 min"), (1e300, "1e+300 s")],
)
def test_durations_are_read(seconds, text):
    assert words.duration(seconds) == text
