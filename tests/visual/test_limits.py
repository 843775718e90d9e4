"""Run folders with far more in them than anybody looks at: the page stays small, and says what it leaves out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from snnprune.errors import RunError
from snnprune.files import write_json
from snnprune.measures import ACCURACY
from snnprune.runs.visual import figures, write_page, write_sensitivity
from snnprune.runs.visual.drawings import drawings
from snnprune.runs.visual.material import read_material
from visual.conftest import report
from visual.test_page import Reader, drawn

MANY = 3000


def groups(count: int) -> list[dict]:
    return [{"id": f"g{i}", "size": 4 + i % 9, "kept": 3, "weakened": 2, "strengthened": 1} for i in range(count)]


def trials(count: int) -> list[dict]:
    return [{"macs": 0.5, "passed": True, "drop": float(i)} for i in range(count)]


def bare(folder: Path, **changes) -> None:
    """The run with nothing to draw but what is given."""
    for path in folder.glob("*.safetensors"):
        path.unlink()
    report(**{"groups": [], "history": [], "curve": [], **changes}).to_json(folder / "report.json")


def crowded(folder: Path, name: str) -> str:
    """Fills a run folder with many entries of a kind; returns the words by which its page says so."""
    zeros = torch.zeros(MANY, 4, 4, dtype=torch.uint8)
    changes, words = {}, ""
    if name == "groups":
        changes, words = {"groups": groups(MANY)}, "Of 3,000 groups the 120 largest are shown"
    elif name == "counts":
        every = {g["id"]: [4, 2, 2] for g in groups(60)}
        history = [{"stage": "search", "step": i, "counts": every} for i in range(300)]
        changes, words = {"groups": groups(60), "history": history}, "Of 300 epochs 200 are shown"
    elif name == "curve":
        curve = [{"stage": "search", "step": i, "loss": 1.0 * i} for i in range(20 * MANY)]
        changes, words = {"curve": curve}, "Of 60,000 points of the stage search 1,000 are shown"
    elif name == "history":
        history = [{"stage": "recover", "step": i, "val_value": 0.5} for i in range(MANY)]
        changes, words = {"history": history}, "Of 3,000 epochs of the stage recovery 1,000 are shown"
    elif name == "trials":
        changes, words = {"trials": trials(MANY)}, "Of 3,000 trials the 500 last are shown"
    elif name == "columns":
        changes, words = {"trials": [{f"k{i}": i} for i in range(MANY)]}, "Of 500 columns the 16 first are shown"
    elif name == "kept_whole":
        changes = {"kept_whole": [{"id": f"g{i}", "reason": "?"} for i in range(MANY)]}
        words = "Of 3,000 groups the 500 first are shown"
    elif name == "config":
        changes = {"config": {f"k{i}": [i] * 99 for i in range(MANY)}}
        words = "Of 3,000 options the 500 first are shown"
    bare(folder, **changes)
    if name == "scales":
        save_file({f"g{i}": torch.ones(4) for i in range(MANY)}, folder / "scales.safetensors")
        words = "Of 3,000 groups the 24 largest are shown"
    elif name == "maps":
        save_file({"input": zeros[:1].clone(), "conv|pruned": zeros}, folder / "pictures.safetensors")
        words = "Of up to 3,000 maps of a kernel's kind 8 are shown"
    elif name == "layers":
        layers = {f"conv{i}|pruned": zeros[:1].clone() for i in range(MANY)}
        save_file({"input": zeros[:1].clone(), **layers}, folder / "pictures.safetensors")
        words = "Of 3,000 rows of feature maps the 12 first are shown"
    elif name == "pixels":
        write_json(folder / "structure.json", {"input_shape": [60000, 1, 1]})
        save_file({"fc:in": torch.ones(60000)}, folder / "scales.safetensors")
        words = "Of 60,000 channels the 4 first are shown"
    return words


KINDS = ["groups", "counts", "curve", "history", "trials", "columns", "kept_whole", "config", "scales", "maps"]


@pytest.mark.parametrize("name", [*KINDS, "layers", "pixels"])
def test_a_page_of_a_crowded_run_is_small_and_says_so(folder, name, monkeypatch):
    words = crowded(folder, name)
    sizes = [0.0]
    monkeypatch.setattr(
        "snnprune.runs.visual.page.png", lambda figure: sizes.extend(figure.get_size_inches()) or b""
    )
    read = Reader(write_page(folder).read_text())
    assert words
    assert words in read.words
    assert max(sizes) < 30, "inches"
    assert len(read.tags) < 50_000
    assert (folder / "report.html").stat().st_size < 3 * 2**20


def work(function) -> int:
    """Calls of Python functions, generators among them, that a function takes."""
    count = 0

    def see(_frame, event, _argument):
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("name", ["groups", "scales", "curve", "trials", "columns", "layers"])
def test_ten_times_as_much_takes_at_most_ten_times_as_long(folder, name, monkeypatch):
    """Comparing every entry with every other would take a hundred times as long."""

    def choose():
        return work(lambda: list(drawings(read_material(folder))))

    crowded(folder, name)
    many = choose()
    monkeypatch.setattr(sys.modules[__name__], "MANY", MANY // 10)
    crowded(folder, name)
    assert many < 15 * choose()


def test_the_order_of_scales_is_looked_up_and_not_searched_for(folder):
    """Whatever the order of the file; texts that are compared count how often."""
    compared = 0

    class Name(str):
        __slots__ = ()

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    material = read_material(folder)
    material.report.groups[:] = [{**g, "id": Name(g["id"])} for g in groups(1000)]
    material.scales.clear()
    material.scales.update({Name(f"g{i}"): torch.ones(4) for i in reversed(range(1000))})
    list(drawings(material))
    assert compared < 20_000


def test_a_thinned_curve_keeps_both_ends_of_every_stage(folder):
    stages = [("search", 5000), ("recover", 7001)]
    curve = [{"stage": s, "step": i, "loss": 1.0 * i} for s, count in stages for i in range(count)]
    report(curve=curve, history=[]).to_json(folder / "report.json")
    course = next(d for d in drawings(read_material(folder)) if d.name == "course")
    search, recover = course.draw().axes[0].get_lines()
    assert [list(line.get_ydata()[[0, -1]]) for line in (search, recover)] == [[0, 4999], [0, 7000]]
    assert [len(line.get_ydata()) for line in (search, recover)] == [1000, 1000]


def test_large_maps_are_drawn_small():
    pictures = {"input": torch.zeros(3, 512, 512, dtype=torch.uint8)}
    figure = figures.feature_maps({**pictures, "conv|pruned": torch.zeros(1, 9, 9, dtype=torch.uint8)})
    assert figure.get_size_inches().max() < 30


def test_images_of_any_size_are_thinned(folder):
    long = torch.zeros(1, 2, 300_000, dtype=torch.uint8)
    save_file({"input": long, "conv|pruned": long.clone()}, folder / "pictures.safetensors")
    maps = next(d for d in drawings(read_material(folder)) if d.name == "maps")
    images = [image.get_array() for axis in maps.draw().axes for image in axis.get_images()]
    assert len(images) == 2
    assert all(max(image.shape) <= 512 for image in images)


@pytest.mark.parametrize("part", ["data", "device", "split", "command", "config", "versions", "groups", "target"])
def test_texts_of_any_length_are_cut(folder, part):
    long = "<x>\n" * 500_000
    values = {
        "config": {long: long, "b": {long: [long]}},
        "versions": {long: long},
        "target": {long: 0.5},
        "groups": [{"id": long, "size": 4, "kept": 3, "weakened": 2, "strengthened": 1}],
    }
    bare(folder, **{part: values.get(part, long)})
    content = write_page(folder).read_text()
    assert len(content) < 2**20
    assert "script" not in Reader(content).tags


def test_a_sensitivity_analysis_of_very_many_groups(tmp_path):
    points = [{"kept": 2, "value": 0.5}]
    found = {
        "value": 0.9,
        "cost": "macs",
        "metric": ACCURACY.to_dict(),
        "count": 8,
        "whole": [],
        "groups": [{"id": f"g{i}", "size": 4, "points": points} for i in range(MANY)],
    }
    read = Reader(write_sensitivity("model", found, tmp_path / "s.html").read_text())
    assert "Of 3,000 groups the 120 largest are shown" in read.words


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("curve", [{"stage": "search", "step": "one", "loss": 0.5}]),
        ("curve", [{"stage": "search", "step": 1, "loss": "low"}]),
        ("curve", [{"stage": "search", "step": 1, "budget": [1]}]),
        ("curve", [{"stage": "search", "step": 1, "budget": 0.5, "cost": {}}]),
        ("curve", [{"stage": 1, "step": 1}]),
        ("curve", [{"step": 1}]),
        ("curve", {"stage": "search"}),
        ("history", [{"stage": "search", "step": -1}]),
        ("history", [{"stage": "search", "step": True}]),
        ("history", [{"stage": "search", "step": 1, "val_accuracy": 1e300}]),
        ("history", [{"stage": "search", "step": 1, "counts": {"conv": 3}}]),
        ("history", [{"stage": "search", "step": 1, "counts": {"conv": [1, 2]}}]),
        ("history", [{"stage": "search", "step": 1, "counts": {"conv": [1, 2, "3"]}}]),
        ("history", [{"stage": "search", "step": 1, "counts": ["conv"]}]),
        ("history", [{"stage": "search", "step": 1, "val_loss": "x"}]),
        ("trials", [{"macs": [1, 2]}]),
        ("trials", [[1]]),
        ("steps", {"search": "many"}),
        ("steps", {"search": 1.5}),
        ("odd_widths", {"conv": "3"}),
        ("target", {"macs": 0.5, "params": 0.5}),
        ("target", {}),
        ("groups", [{"id": "a", "size": 4, "kept": 5, "weakened": 0, "strengthened": 0}]),
        ("groups", {}),
        ("dense", {"accuracy": 2.0, "loss": None, "macs": 1, "params": 1}),
    ],
)
def test_words_instead_of_numbers_are_named(folder, part, value):
    content = json.loads((folder / "report.json").read_text())
    write_json(folder / "report.json", {**content, part: value})
    with pytest.raises(RunError, match=rf"report\.json is no report of this version.*{part}"):
        write_page(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("scales.safetensors", torch.tensor([1.0, float("nan")])),
        ("scales.safetensors", torch.tensor([1.0, float("inf")])),
        ("scales.safetensors", torch.tensor([-1.0])),
        ("scales.safetensors", torch.tensor([1])),
        ("pictures.safetensors", torch.ones(1, 4, 4)),
    ],
)
def test_tensors_of_another_kind_are_named(folder, name, tensor):
    save_file({"input\n": tensor}, folder / name)
    with pytest.raises(RunError, match=rf"{name}: .*does not hold .*remove the file") as caught:
        write_page(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["plots", "report.html", "plots/groups.png"])
def test_a_page_is_written_through_no_link(folder, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    if name == "plots":
        elsewhere.mkdir()
    else:
        elsewhere.write_text("mine")
        (folder / "plots").mkdir()
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(RunError, match=f"{name} is a symbolic link.*Remove the link"):
        write_page(folder)
    assert (folder / name).is_symlink()
    assert os.listdir(elsewhere) == [] if name == "plots" else elsewhere.read_text() == "mine"  # noqa: PTH208
    (folder / name).unlink()
    write_page(folder)
    assert "groups" in drawn(folder)
