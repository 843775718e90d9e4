"""Letters of charts: inside their drawing, none over another, large enough, whatever the names are.

Widths are those of letters of DejaVu Sans, than which few fonts are broader, and of letters of the East as wide as
they are high, so that hardly a reader's font needs more room than is checked here.
"""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser
from itertools import combinations

import pytest
import torch
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from safetensors.torch import load_file, save_file

from snnprune.measures import MetricInfo
from snnprune.runs.report import ModelFigures
from snnprune.runs.visual import write_comparison, write_page
from snnprune.runs.visual.figures import breadth, short
from visual.conftest import report

NARROW, LEAST = 468, 9.0  # pixels of a drawing in a window of 500, and of its smallest letters
LONG = [f"backbone.encoder.layers.{i}.attention.self.query_projection" for i in range(3)]
NAMES = {
    "plain": ["features.0", "features.3", "hidden.0:in"],
    "long": LONG,
    "dotless": [f"{'x' * 90}{i}" for i in range(3)],
    "east": [f"層.{i}.畳み込み畳み込み畳み込み畳み込み" for i in range(3)],
}


class Boxes(HTMLParser):
    """Boxes of the letters in each drawing of a page: (left, top, right, bottom, text), and drawings' sizes."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.sizes: list[tuple[float, float]] = []
        self.boxes: list[list[tuple[float, float, float, float, str]]] = []
        self.letters: list[list[float]] = []
        self.now: dict[str, str] | None = None
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "svg":
            self.sizes.append(tuple(map(float, values["viewbox"].split()[2:])))
            self.boxes.append([])
            self.letters.append([])
        self.now = values if tag == "text" else None

    def handle_endtag(self, tag):
        self.now = None

    def handle_data(self, data):
        if self.now is None or not data.strip():
            return
        size = float(re.search(r"font-size: ([\d.]+)px", self.now["style"])[1])
        east = sum(unicodedata.east_asian_width(c) in "WF" for c in data)
        plain = "".join(c for c in data if unicodedata.east_asian_width(c) not in "WF").strip()
        measured = text_to_path.get_text_width_height_descent(plain, FontProperties(size=size), False)
        wide = 1.03 * measured[0] + east * size
        anchor = re.search(r"text-anchor: (\w+)", self.now["style"])[1]
        turned = re.search(r"rotate\((-?[\d.]+)", self.now["transform"])
        assert turned is None or abs(float(turned[1])) < 1 or float(turned[1]) == -90
        x, y = float(self.now["x"]), float(self.now["y"])
        before = {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
        if turned is not None and float(turned[1]) == -90:
            box = (x - 0.75 * size, y + before - wide, x + 0.2 * size, y + before)
        else:
            box = (x - before, y - 0.75 * size, x - before + wide, y + 0.2 * size)
        self.boxes[-1].append((*box, data))
        self.letters[-1].append(size)


def check(content: str) -> None:
    found = Boxes(content)
    assert found.boxes
    for (width, height), boxes, letters in zip(found.sizes, found.boxes, found.letters, strict=True):
        assert min(letters) * NARROW / width >= LEAST
        for left, top, right, bottom, text in boxes:
            inside = left >= -2 and top >= -1 and right <= width + 2 and bottom <= height + 1
            assert inside, f"{text!r} at {left:.0f}..{right:.0f}, {top:.0f}..{bottom:.0f} of {width} x {height}"
        for one, other in combinations(boxes, 2):
            across = min(one[2], other[2]) - max(one[0], other[0])
            down = min(one[3], other[3]) - max(one[1], other[1])
            assert across < 1 or down < 1, f"{one[4]!r} and {other[4]!r} overlap by {across:.1f} x {down:.1f}"


def crowded(folder, names: list[str], **changes) -> str:
    groups = [{"id": name, "size": 12800, "kept": 12800, "weakened": 6400, "strengthened": 6400} for name in names]
    counts = {name: [12800, 6400, 6400] for name in names}
    history = [{"stage": "search", "step": s, "val_value": 0.123 * s, "counts": counts} for s in (1, 2, 3)]
    report(groups=groups, history=history, **changes).to_json(folder / "report.json")
    save_file({name: torch.linspace(0, 1.5, 50) for name in names}, folder / "scales.safetensors")
    maps = load_file(folder / "pictures.safetensors")
    rows = {
        f"{name}|{kind}": maps["conv|strengthened"].clone()
        for name in names
        for kind in ("pruned", "strengthened")
    }
    save_file({"input": maps["input"], **rows}, folder / "pictures.safetensors")
    return write_page(folder).read_text()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_letters_are_inside_and_apart(folder, names):
    metric = MetricInfo("mean intersection over union of everything there is", percent=True)
    trials = [
        {"macs": 0.2 + 0.1 * at, "val_value": 0.8, "drop": 0.1, "passed": at > 1, "latency": 0.5 + 0.1 * at}
        for at in range(4)
    ]
    check(crowded(folder, names, metric=metric, target={"drop": 0.05}, trials=trials))


@pytest.mark.parametrize("value", [0.9, 123456.789, 1e-7, -3.5e9])
def test_values_of_any_size_have_room(folder, value):
    metric = MetricInfo("error", higher_is_better=False, percent=False)
    history = [{"stage": "recover", "step": 1000 * s, "val_value": value * (1 + 1e-3 * s)} for s in range(4)]
    figures = ModelFigures(None, None, 1000, 500, value=value)
    report(metric=metric, history=history, dense=figures, compact=figures).to_json(folder / "report.json")
    check(write_page(folder).read_text())


def test_runs_at_one_place_have_their_names_apart(tmp_path):
    runs = [(f"runs/a very long name of a run, the number {'x' * 40} {at}", report()) for at in range(12)]
    check(write_comparison(runs, tmp_path / "all.html").read_text())


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_short_names_fit_and_differ(names):
    found = [short(name) for name in names]
    assert all(breadth(name) <= 26 for name in found)
    assert len(set(found)) == len(names)


def test_parts_of_a_name_keep_their_numbers():
    assert short("features.0") == "features.0"
    assert short(LONG[2], 30) == "b.e.l.2.a.s.query_projection"
    assert short("backbone.layer4.block10a.convolution", 22) == "b.l4.b10.convolution"
    assert breadth("層ab") == 4
