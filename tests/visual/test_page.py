"""The page: everything in it, nothing from outside, and no name that is taken for markup."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import snnprune
from snnprune.errors import RunError
from snnprune.files import write_json
from snnprune.measures import ACCURACY
from snnprune.runs.visual import charts, write_page
from visual.conftest import report

ALL = {"groups", "course", "counts", "scales", "pixels", "maps"}
NASTY = '<script>alert(1)</script>"&$x_{1}$\x1b[31m\u202e'


class Reader(HTMLParser):
    """Collects tags, links and text, and notices what is not closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags, self.links, self.open, self.words = [], [], [], ""
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def drawn(run) -> set[str]:
    return {p.stem for p in (run / "plots").glob("*.png")}


def test_all_that_is_on_file_is_on_the_page(folder):
    page = write_page(folder)
    assert page == folder / "report.html"
    assert drawn(folder) == ALL
    for name in ALL:
        image = Image.open(io.BytesIO((folder / "plots" / f"{name}.png").read_bytes()))
        assert len(set(image.convert("L").resize((60, 60)).tobytes())) > 5, f"{name} is empty"
    read = Reader(page.read_text())
    assert read.tags.count("figure") == len(ALL)
    for words in (
        "88.00%", "-2.00 points", "40.0%", "of the MACs kept", "1.0e-16", "not checked", "3 of 4", "9 of 16",
        "snnprune optimize model.pt", "probe 2, search 4, recovery 6", "it is an output of the model", "lr",
    ):  # fmt: skip
        assert words in read.words, words


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (snnprune.PruneConfig().to_dict(), ["search.hold", "recovery.warmup", "round_to"]),
        ({"search": 0.05, "hold": 3, "warmup": 0.05}, ["search", "hold", "warmup"]),  # of before there were groups
        ({"search": [1], "recovery": {}}, ["search"]),
    ],
)
def test_options_are_listed_with_the_names_of_their_groups(folder, config, words):
    report(config=config).to_json(folder / "report.json")
    read = Reader(write_page(folder).read_text())
    assert all(word in read.words for word in words)


def test_the_page_needs_nothing_but_itself(folder):
    text = write_page(folder).read_text()
    read = Reader(text)
    assert read.links
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in read.links)
    assert not {"script", "link", "iframe", "object", "img"} & set(read.tags)
    assert "default-src 'none'" in text
    assert "url(http" not in text


def test_ink_is_that_of_the_page(folder):
    """So that letters and lines are seen on a dark page too."""
    text = write_page(folder).read_text()
    style, drawings = text[: text.index("</style>")], text[text.index("</style>") :]
    assert "prefers-color-scheme: dark" in style
    assert "#1f2a37" not in drawings
    assert "currentColor" in drawings
    assert not re.search(r"fill:\s*(black|#000000)", drawings)


def test_names_are_text_and_nothing_else(folder):
    groups = [{"id": NASTY, "size": 4, "kept": 3, "weakened": 2, "strengthened": 1}]
    history = [{"stage": "search", "step": 2, "val_value": 0.8, "counts": {NASTY: [3, 2, 1]}}]
    report(
        groups=groups,
        history=history,
        data=NASTY,
        command=NASTY,
        config={NASTY: NASTY},
        kept_whole=[{"id": NASTY, "reason": NASTY}],
        trials=[{NASTY: NASTY}],
        device=NASTY,
    ).to_json(folder / "report.json")
    save_file({NASTY: torch.tensor([0.0, 0.9, 1.1, 1.0])}, folder / "scales.safetensors")
    pictures = load_file(folder / "pictures.safetensors")
    save_file(
        {"input": pictures["input"], f"{NASTY}|pruned": pictures["conv|pruned"]}, folder / "pictures.safetensors"
    )
    text = write_page(folder).read_text()
    read = Reader(text)
    assert "script" not in read.tags
    assert "alert(1)" in read.words
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert drawn(folder) == ALL - {"pixels", "counts"}


def test_a_run_without_figures_of_accuracy_or_scales(folder):
    for name in ("scales.safetensors", "pictures.safetensors"):
        (folder / name).unlink()
    bare = {"accuracy": None, "loss": None, "macs": 1000, "params": 500}
    content = json.loads((folder / "report.json").read_text())
    content |= {"dense": bare, "compact": {**bare, "macs": 10}, "history": [], "target": None}
    del content["curve"], content["command"]  # as of an earlier version
    write_json(folder / "report.json", content)
    read = Reader(write_page(folder).read_text())
    assert drawn(folder) == {"groups"}
    assert "free: the switcher alone decides" in read.words
    assert "1.0%" in read.words


def test_written_again_it_is_the_same(folder):
    first = write_page(folder).read_bytes(), {n: (folder / "plots" / f"{n}.png").read_bytes() for n in ALL}
    again = write_page(folder).read_bytes(), {n: (folder / "plots" / f"{n}.png").read_bytes() for n in ALL}
    assert first == again


def test_the_users_settings_of_matplotlib_change_nothing_and_stay(folder):
    import matplotlib

    first = write_page(folder).read_bytes()
    with matplotlib.rc_context({"font.size": 31, "text.usetex": True}):
        assert write_page(folder).read_bytes() == first
        assert matplotlib.rcParams["font.size"] == 31


@pytest.mark.parametrize("name", ["scales.safetensors", "pictures.safetensors"])
def test_a_damaged_file_is_named(folder, name):
    (folder / name).write_bytes(b"nonsense")
    with pytest.raises(RunError, match=f"{name} cannot be read"):
        write_page(folder)
    save_file({"conv": torch.ones(2, 2)}, folder / name)
    with pytest.raises(RunError, match=rf"{name}: 'conv' has shape \(2, 2\)"):
        write_page(folder)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(RunError, match="no finished run folder"):
        write_page(tmp_path)


def test_what_cannot_be_drawn_is_one_error_and_leaves_the_page_before(folder):
    before = write_page(folder).read_bytes()
    far = [{"stage": "search", "step": step, "loss": loss} for step, loss in enumerate((-1.7e308, 1.7e308, 0.0))]
    report(curve=far).to_json(folder / "report.json")
    with pytest.raises(RunError, match="cannot be drawn"):
        write_page(folder)
    assert (folder / "report.html").read_bytes() == before


def test_very_many_groups_are_drawn_in_bounds(folder):
    groups = [{"id": f"g{i}", "size": 4 + i, "kept": 3, "weakened": 2, "strengthened": 1} for i in range(3000)]
    report(groups=groups, history=[]).to_json(folder / "report.json")
    write_page(folder)
    with Image.open(folder / "plots" / "groups.png") as image:
        assert max(image.size) < 5000


def test_keys_of_a_newer_version_are_passed_over(folder):
    content = json.loads((folder / "report.json").read_text())
    write_json(folder / "report.json", {**content, "something": 1})
    assert "88.00%" in write_page(folder).read_text()


def test_the_cost_drawn_for_the_recovery_is_the_compact_models():
    steps = [(1, 0.95), (2, 0.9), (4, 0.8)]  # ended before the ramp did
    curve = [{"stage": "search", "step": step, "loss": 0.7, "budget": b, "cost": "macs"} for step, b in steps]
    figure = charts.course(curve, [], {"search": 4, "recover": 6}, {"macs": 0.4, "params": 0.5}, ACCURACY)
    axis = next(a for a in figure.axes if a.get_title("left") == "share of the MACs")
    search, recovery, dense = axis.get_lines()
    assert list(search.get_ydata()) == [0.95, 0.9, 0.8]
    assert list(recovery.get_xdata()) == [4, 10]
    assert list(recovery.get_ydata()) == [0.4, 0.4]
    assert list(dense.get_ydata()) == [1.0, 1.0]
