"""Progress where no line can be drawn anew: plain lines at sensible intervals."""

from __future__ import annotations

import pytest

from cli.conftest import ARCH, command, on_a_terminal
from snnprune.cli import progress
from snnprune.cli.progress import Display
from snnprune.learner import Event


def test_a_dumb_terminal_gets_lines_without_control_characters(here):
    words = command("digits.pt", "digits", *ARCH, "--limit", "400", "--no-time", "--output", "run")
    raw = on_a_terminal(words, TERM="dumb")
    lines = raw.decode().replace("\r\n", "\n").split("\n")
    assert all(line.isprintable() for line in lines)
    for begin in ("loading the model", "searching", "recovering"):
        assert any(line.startswith(begin) for line in lines), (begin, lines)
    assert any(line.startswith("recover") and "val accuracy" in line for line in lines)
    assert len(lines) < 80, "no line per step"


@pytest.mark.parametrize("live", [True, False])
def test_steps_are_told_every_ten_seconds(live, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(type(progress.console), "is_terminal", live)
    monkeypatch.setattr(type(progress.console), "is_dumb_terminal", True)
    display = Display()
    assert not display.live
    with display.running():
        display(Event("recover", 0, 100))
        for step in range(1, 101):
            now[0] += 1.0
            display(Event("recover", step, 100, {"loss": 0.5}))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 9
    assert lines[1].split()[1] == "11/100"
    assert all(line.isprintable() for line in lines)


def test_every_judgement_is_told(capsys):
    display = Display()
    judged = {"loss": 0.5, "val_metric": "accuracy", "val_value": 0.5, "val_accuracy": 0.5}
    for step in range(1, 4):
        display(Event("recover", step, 3, judged))
    assert capsys.readouterr().out.count("val accuracy 50.00%") == 3
