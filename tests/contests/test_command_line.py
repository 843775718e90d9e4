"""`snnprune contest` and `optimize --scores` as a user types them."""

from __future__ import annotations

import json
import shlex
import signal

import pytest
import torch
from conftest import DIGITS

from contests.conftest import stop_at
from snnprune.cli.main import run
from snnprune.learner.recovering import RecoverStage
from snnprune.pipeline.setting import Setting
from snnprune.registry import build
from snnprune.rivals import DEFAULT, METHODS

SHORT = [
    "--data",
    "digits",
    "--arch",
    DIGITS,
    "--epochs",
    "1",
    "--device",
    "cpu",
    "--limit",
    "320",
    "--batch-size",
    "32",
]


@pytest.fixture(autouse=True)
def model(here):
    torch.manual_seed(0)
    torch.save(build(DIGITS).state_dict(), here / "digits.pt")
    return here / "digits.pt"


def contest(*args):
    return run(["contest", "digits.pt", *SHORT, *map(str, args)])


def test_a_table_a_book_and_a_page(here, capsys):
    assert contest("--methods", "norm, lamp", "--seeds", "2", "--output", "held") == 0
    out = capsys.readouterr().out
    assert "digits.pt: macs=0.5, 10 steps a run, accuracy on test data" in out
    assert "run 4 of 4: lamp, seed 1: 0." in out
    assert "Ours takes no part, so nothing can be said of it." in out
    assert "wrote held with its page contest.html" in out
    assert {p.name for p in (here / "held").iterdir()} == {"contest.json", "contest.html"}
    book = json.loads((here / "held" / "contest.json").read_text())
    assert [(r["method"], r["seed"]) for r in book["rows"]] == [("norm", 0), ("lamp", 0), ("norm", 1), ("lamp", 1)]
    assert all(sum(r["steps"].values()) == 10 for r in book["rows"])
    assert book["command"].startswith("snnprune contest digits.pt")
    assert book["config"]["distill"] == 0.9


def test_json_alone_on_stdout(capsys):
    assert contest("--methods", "norm", "--seeds", "1", "--output", "held", "--no-distill", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][0]["method"] == "norm"
    assert found["config"]["distill"] == 0.0
    assert found["contest"] == "held"


@pytest.mark.parametrize("more", [[], ["--no-time"]])
def test_results_are_timed_unless_nobody_wants_that(capsys, timed, more):
    assert contest("--methods", "norm", "--seeds", "1", "--output", "held", *more) == 0
    out = capsys.readouterr().out
    assert ("as fast" in out) == ("timed with cpu" in out) == (len(timed) == 1) == (not more)


def test_stopped_and_gone_on_with(here, capsys, monkeypatch):
    options = ["--methods", "norm,taylor", "--seeds", "1", "--output", "held"]
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 13)
        assert contest(*options) == 130
    how = capsys.readouterr().err.partition("Go on with: ")[2]
    assert [r["method"] for r in json.loads((here / "held" / "contest.json").read_text())["rows"]] == ["norm"]
    assert contest(*options) == 1
    assert "held exists already" in capsys.readouterr().err
    assert run(shlex.split(how)[1:]) == 0
    out = capsys.readouterr().out
    assert "run 1 of 2" not in out
    assert "run 2 of 2: taylor, seed 0: 0." in out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_stopped_before_anything_is_kept_no_way_to_go_on_is_told(here, capsys, monkeypatch):
    options = ["--methods", "norm", "--seeds", "1", "--output", "held"]
    with monkeypatch.context() as patch:
        stop_at(patch, Setting, 1, "prepare")
        assert contest(*options) == 130
    assert "Go on with" not in capsys.readouterr().err
    assert not (here / "held").exists()
    assert contest(*options) == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--methods", "lmap"], "method 'lmap' is unknown; use all, or some of ours, free, norm"),
        (["--methods", "lamp", "--both", "--as-they-are"], "give one of them"),
        (["--target", "drop=0.01"], "a contest does not offer target drop"),
        (["--resume"], "name its folder"),
        (["--resume", "--output", "none"], "there is nothing to go on with: none holds no contest"),
        (["--methods", "lamp,bn-sparse"], "bn-sparse cannot take part"),
        (["--methods", ","], "nobody takes part; give all, or some of ours"),
    ],
)
def test_what_makes_no_sense_ends_in_one_line(args, message, capsys):
    assert contest(*args) == 1
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_help_names_everybody(capsys):
    assert run(["contest", "-h"]) == 0
    text = "".join(capsys.readouterr().out.split()).replace("-", "")
    assert all(name.replace("-", "") in text for name in METHODS)
    assert ",".join(DEFAULT) in text


def test_optimize_by_a_criterion(here, capsys):
    assert run(["optimize", "digits.pt", *SHORT, "--scores", "lamp", "--output", "cut", "--no-time"]) == 0
    report = json.loads((here / "cut" / "report.json").read_text())
    assert report["config"]["search"]["scores"] == "lamp"
    assert report["steps"] == {"probe": 0, "search": 0, "recover": 10}
    assert report["exactness"]["remove"] < 1e-10
    assert all(g["weakened"] == 0 for g in report["groups"])
    capsys.readouterr()
    assert run(["optimize", "digits.pt", *SHORT, "--scores", "lmap", "--output", "other"]) == 1
    assert "Did you mean lamp?" in capsys.readouterr().err
    assert not (here / "other").exists()
    assert run(["optimize", "digits.pt", *SHORT, "--scores", "taylor", "--dry-run"]) == 0
    assert "training steps: probe 2, recover 8" in capsys.readouterr().out
