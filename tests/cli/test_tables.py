"""Tables: no name is ever broken, however narrow the terminal."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
import torch
from conftest import compared
from rich.cells import cell_len

from cli.conftest import ARCH, on_a_terminal
from snnprune.cli import show
from snnprune.cli.main import run
from snnprune.cli.show import PlainConsole
from snnprune.cli.tables import Column, Styled, columns, show_table
from snnprune.runs.report import ModelFigures, Report

LONG = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.with.more.of.it"
HEADS = [*columns("group", "kind", "neurons", "MACs", text=["kind"]), Column("", sentence=True)]
WHY = "its neurons are read by encoder.layers.0.mlp.fc2-and-more, which nothing is known of"
ROWS = [
    ("conv", "channel", "64", "3.1%", ""),
    (LONG, "channel", "1024", "12.5%", Styled(f"kept: {WHY}", "yellow")),
    ("[red]x", "input", "7", "", "a note"),
]


def drawn(width: int, rows=ROWS, **more: object) -> list[str]:
    file = io.StringIO()
    show_table(PlainConsole(file=file, width=width, highlight=False), HEADS, rows, **more)
    return file.getvalue().splitlines()


def test_what_fits_is_a_table():
    lines = drawn(300)
    assert len({cell_len(line) for line in lines}) == 1, "in a frame"
    assert any(LONG in line and WHY in line and "1024" in line for line in lines)
    assert any("[red]x" in line for line in lines)
    width = cell_len(lines[0])
    assert drawn(width) == lines
    assert drawn(width - 1) != lines


@pytest.mark.parametrize("width", [20, 40, 80])
def test_what_does_not_fit_is_records(width):
    lines = drawn(width, title="a run")
    assert lines[0] == "a run"
    assert lines[1:3] == ["conv", "  kind channel, neurons 64, MACs 3.1%"] or width < 40
    at = lines.index(LONG)
    below = [line.strip() for line in lines[at + 1 : lines.index("[red]x")]]
    assert " ".join(below) == f"kind channel, neurons 1024, MACs 12.5% kept: {WHY}"
    words = {LONG, *WHY.split()}
    for line in lines[1:]:
        assert cell_len(line) <= width or line.strip() in words, "no word of its own is longer"
    assert lines[-1].strip() == "a note"


def test_names_that_would_steer_the_terminal_are_shown():
    lines = drawn(30, [("a\x1b[2J\nb" + LONG, "channel", "1", "", "")])
    assert lines[0] == "a?[2J?b" + LONG


@pytest.mark.parametrize("width", [40, 80, 140])
def test_a_runs_end_breaks_no_name(width, capsys, monkeypatch, here):
    names = [f"{LONG}.{at}" for at in range(3)]
    group = {"size": 64, "kept": 48, "weakened": 40, "strengthened": 8}
    report = Report(
        ModelFigures(0.9, 0.2, 200, 100), ModelFigures(0.9, 0.2, 100, 50),
        groups=[{"id": name, **group} for name in names], exactness={"fold": 0.0}, target={"macs": 0.5}, seed=0,
        data="digits", split="test", seconds=1.0, device="cpu",
        kept_whole=[{"id": name, "reason": f"read by {name}"} for name in names],
        odd_widths=dict.fromkeys(names, 3), config={"round_to": 8}, latency=compared().to_dict(),
    )  # fmt: skip
    monkeypatch.setattr(show.console, "_width", width)
    place = Path("runs") / ("of-a-long-name-" * 4)
    show.summary(report, place)
    report.to_json(place / "report.json")
    report.to_json("other/report.json")
    assert run(["compare", str(place), "other"]) == 0
    out = capsys.readouterr().out
    assert all(out.count(name) >= 4 for name in names)
    assert out.count(str(place)) >= 2


def test_long_names_in_every_table(here, capsys, monkeypatch):
    (here / "net.py").write_text(
        f"""
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    inner = nn.Module()
    inner.conv = nn.Conv2d(1, 32, 3, padding=1)
    model = nn.Sequential()
    whole = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 3))
    for name in reversed({LONG.split(".")!r}):
        outer = nn.Sequential()
        outer.add_module(name, whole)
        whole = outer
    return nn.Sequential(whole, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
"""
    )
    sys.path.insert(0, str(here))
    model = __import__("net").build()
    sys.path.remove(str(here))
    torch.save(model.state_dict(), "long.pt")
    name = f"0.{LONG}.0"
    given = ["long.pt", "--arch", "net.py:build", "--image-size", "8"]
    for width in (40, 80):
        monkeypatch.setattr(show.console, "_width", width)
        assert run(["inspect", *given]) == 0
        assert capsys.readouterr().out.count(f"{name}\n") == 1
        assert run(["sensitivity", *given, "--data", "digits", "--limit", "64", "--device", "cpu"]) == 0
        assert capsys.readouterr().out.count(f"{name}\n") == 1
        assert run(["optimize", *given, "--data", "digits", "--dry-run", "--device", "cpu", "--limit", "64"]) == 0
        assert capsys.readouterr().out.count(f"{name}\n") == 1


def test_on_a_real_terminal_of_80_columns(here):
    """What a terminal gets: names whole, and no line that is longer than it but of one name."""
    words = ["inspect", "digits.pt", *ARCH, "--target", "params=0.3"]
    raw = on_a_terminal(words, COLUMNS="80", TERM="xterm", NO_COLOR="1")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", raw.decode())
    assert all(name in text for name in ("features.0", "hidden"))
