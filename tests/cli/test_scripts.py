"""Output for scripts: JSON alone on stdout, the rest on stderr; and runs that are only planned."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import DIGITS

from snnprune.cli.main import run
from snnprune.registry import build

COMMON = ["--arch", DIGITS, "--device", "cpu", "--data", "digits"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scripts")
    torch.manual_seed(0)
    torch.save(build(DIGITS).state_dict(), folder / "digits.pt")
    return folder


@pytest.fixture
def model(made, here) -> str:
    shutil.copy(made / "digits.pt", "digits.pt")
    return "digits.pt"


@pytest.fixture
def told(capsys):
    """What a command printed as JSON, and for people."""

    def call(*args: str):
        code = run(list(args))
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out), captured.err

    return call


@pytest.mark.pages
def test_a_run_from_the_first_to_the_last_command(model, told, capsys, here):
    run_report, words = told("optimize", model, *COMMON, "--epochs", "1", "--output", "run", "--json")
    assert run_report["run"] == "run"
    assert {k: v for k, v in run_report.items() if k != "run"} == json.loads(Path("run/report.json").read_text())
    assert "wrote run" in words
    assert run_report["command"].startswith("snnprune optimize digits.pt --arch ")
    assert run_report["command"].endswith("--epochs 1 --output run --json")
    assert len(run_report["curve"]) == run_report["steps"]["search"] + run_report["steps"]["recover"]
    exported, _ = told("export", "run", "--onnx", "--output", "m.onnx", "--json")
    assert (exported["path"], exported["bytes"]) == ("m.onnx", Path("m.onnx").stat().st_size)
    measured, words = told("evaluate", "m.onnx", "--data", "digits", "--device", "cpu", "--json")
    assert measured["accuracy"] == pytest.approx(run_report["compact"]["accuracy"])
    assert "accuracy" in words
    (compared,), words = told("compare", "run", "--json")
    assert compared == run_report
    assert "wrote run/report.html" in words
    page = Path("run/report.html").read_text()
    assert "snnprune optimize digits.pt" in page
    Path("run/report.html").unlink()
    assert run(["compare", "run"]) == 0
    assert "weakened" in capsys.readouterr().out
    assert Path("run/report.html").read_text() == page
    _, words = told("compare", "run", "run", "--html", "both.html", "--json")
    assert "wrote both.html" in words
    assert Path("both.html").read_text().count("run") > 2
    assert {p.name for p in Path("run/plots").iterdir()} == {
        f"{name}.png" for name in ("course", "groups", "maps", "scales")
    }


def test_inspect(model, told):
    found, words = told("inspect", model, "--arch", DIGITS, "--target", "params=0.3", "--json")
    assert [g["id"] for g in found["groups"]] == [
        "features.0",
        "features.3",
        "hidden.0:in",
        "hidden.0",
        "classifier",
    ]
    assert found["groups"][-1]["kept"] == "it is an output of the model"
    assert found["groups"][0]["kept"] is None
    assert (found["macs"], found["params"], found["input_shape"]) == (720_944, 54_362, [1, 8, 8])
    allowed = found["allowed"]
    assert all(0.28 <= shares["params"] <= 0.3 for shares in allowed.values())
    assert allowed["cheapest"]["macs"] < allowed["start"]["macs"] < allowed["dearest"]["macs"]
    assert "by which neurons go, the target leaves from" in words


def test_inspect_shows_its_table_also_where_the_target_is_out_of_reach(model, capsys):
    keep = ["--keep", "features.0", "--keep", "features.3"]
    assert run(["inspect", model, "--arch", DIGITS, "--target", "macs=0.05", *keep]) == 1
    captured = capsys.readouterr()
    assert "kept by request" in captured.out
    assert "found by trying" in captured.out
    assert "below what the floors allow" in captured.err
    assert f"`snnprune inspect {model} --arch {DIGITS}` lists what is kept" in captured.err


def test_export_of_the_dense_model(model, told, capsys):
    exported, _ = told("export", model, "--onnx", "--arch", DIGITS, "--json")
    assert exported["path"] == "digits.onnx"
    assert run(["export", model, "--onnx", "--arch", DIGITS]) == 1
    assert "digits.onnx exists already" in capsys.readouterr().err
    measured, _ = told("evaluate", "digits.onnx", "--data", "digits", "--device", "cpu", "--json")
    assert measured == {
        **told("evaluate", model, *COMMON, "--json")[0],
        "model": "digits.onnx",
        "loss": measured["loss"],
    }


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["compare", "a.partial"],
            "a.partial is a run that has not ended. Go on with",
        ),
        (["export", "a.partial", "--onnx"], "--output a --resume"),
        (["evaluate", "digits.pt", "--arch", DIGITS, "--data", "cifer10"], "Did you mean cifar10?"),
        (
            ["evaluate", "digits.pt", "--arch", DIGITS, "--data", "x.npz"],
            "no folder or .npz file of that name",
        ),
        (["inspect", "digits.pt", "--arch", "net.py"], "--arch net.py names a file alone"),
        (
            ["inspect", "digits.pt", "--arch", DIGITS, "--target", "size=3"],
            "use macs, params, drop, latency or free",
        ),
    ],
)
def test_cures(model, capsys, args, said):
    Path("a.partial").mkdir()
    assert run(args) == 1
    assert said in capsys.readouterr().err


def test_a_trusted_pickle_of_code_that_is_not_here(model, capsys):
    source = Path("own_module_of_this_test.py")
    source.write_text("from torch import nn\n\nclass Net(nn.Linear):\n    pass\n")
    sys.path.insert(0, ".")
    try:
        import own_module_of_this_test as own

        torch.save(own.Net(2, 2), "whole.pt")
    finally:
        sys.path.remove(".")
        del sys.modules["own_module_of_this_test"]
    source.unlink()
    assert run(["inspect", "whole.pt", "--trust-pickle"]) == 1
    said = capsys.readouterr().err
    assert "needs code that is not found here" in said
    assert "PYTHONPATH" in said


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_dry_run_writes_nothing(model, capsys, more):
    before = set(Path().iterdir())
    assert run(["optimize", model, *COMMON, "--target", "params=0.3", "--epochs", "3", "--dry-run", *more]) == 0
    captured = capsys.readouterr()
    assert set(Path().iterdir()) == before
    words = captured.err if more else captured.out
    for line in (
        "tracing groups, taking a few steps",
        "it keeps ",
        "targets within reach: macs from ",
        "training steps: probe 4, ",
        "time: about ",
        "memory",
    ):
        assert line in words, line
    if more:
        assert json.loads(captured.out)["steps"]["probe"] == 4


@pytest.mark.pages
def test_sensitivity(model, told):
    found, words = told("sensitivity", model, *COMMON, "--html", "s.html", "--json")
    assert [g["id"] for g in found["groups"]] == ["features.0", "features.3", "hidden.0:in", "hidden.0"]
    assert [len(g["points"]) for g in found["groups"]] == [3] * 4
    assert found["count"] == 144
    assert "75% kept" in words
    assert "wrote s.html" in words
    assert Path("s.html").read_text().count("<figure") == 2
    assert run(["sensitivity", model, *COMMON, "--limit", "0"]) == 1


def test_sensitivity_against_time(model, told, timed):
    found, words = told("sensitivity", model, *COMMON, "--time", "--html", "s.html", "--json")
    assert len(timed) == len(found["whole"]) > 3
    assert all(point["latency"] == pytest.approx(point["macs"]) for point in found["whole"])
    assert found["served"]["device"] == "Some CPU"
    for point in found["whole"]:
        shown = f"{point['accuracy']:.2%}, {1 / point['latency']:.2f}x as fast, +- 2.0%"
        assert shown in words
    assert "timed with cpu (onnxruntime 1.31.1), batch 1" in words
    assert Path("s.html").read_text().count("<figure") == 3


def test_a_run_tells_its_times_first(model, told, capsys, timed, here):
    report, words = told("optimize", model, *COMMON, "--epochs", "0.3", "--output", "run", "--json")
    times = report["latency"]
    assert times == json.loads(Path("run/report.json").read_text())["latency"]
    assert times["share"] == pytest.approx(report["compact"]["macs"] / report["dense"]["macs"])
    lines = [line for line in words.splitlines() if "│" in line]
    assert f"time (batch 1, cpu) │ {times['dense_ms']:.3g} ms │ {times['compact_ms']:.3g} ms │" in lines[0]
    assert f"{1 / times['share']:.2f}x as fast, +- 2.0%" in lines[0]
    assert "inputs a second" in lines[1]
    assert "Some CPU; 0.5 of 2 cores were busy with other things" in words
    assert "timing and exporting" in words
    phone = {**report, "latency": {**times, "device": "A phone", "dense_ms": None, "refused": "it varies"}}
    phone.pop("run")
    Path("other").mkdir()
    Path("other/report.json").write_text(json.dumps(phone))
    compared, words = told("compare", "run", "other", "--json")
    assert [one["latency"]["device"] for one in compared] == ["Some CPU", "A phone"]
    assert "not comparable" in words
    assert run(["compare", "run", "other"]) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [row[4].strip() for row in rows] == [f"{times['dense_ms']:.3g} [1]", "? [2]"]


def test_trials_tell_their_times(model, told, timed):
    options = ["--epochs", "0.3", "--target", "drop=0.99", "--trials", "1", "--output", "run", "--json"]
    report, words = told("optimize", model, *COMMON, *options)
    (trial,) = report["trials"]
    assert f"drop {trial['drop']:.4f}, {1 / trial['latency']:.2f}x as fast: kept" in words


def test_tensorboard_files_lie_in_the_run_folder(model, told):
    pytest.importorskip("tensorboard")
    told("optimize", model, *COMMON, "--epochs", "1", "--output", "run", "--tensorboard", "--json")
    assert [p.name.split(".")[0] for p in Path("run/tensorboard").iterdir()] == ["events"]


def test_without_tensorboard_nothing_is_begun(model, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    before = set(Path().iterdir())
    assert run(["optimize", model, *COMMON, "--output", "run", "--tensorboard"]) == 1
    assert "snnprune[tensorboard]" in capsys.readouterr().err
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize(("target", "odd"), [("macs=0.5", True), ("params=0.3", False)])
def test_odd_widths_are_told(model, told, target, odd):
    report, words = told(
        "optimize", model, *COMMON, "--epochs", "1", "--output", "run", "--target", target, "--json"
    )
    kept = {g["id"]: g["kept"] for g in report["groups"]}
    wide = {"features.3": 8, "hidden.0": 8, "features.0": 4}  # what they are rounded to
    assert report["odd_widths"] == {
        n: kept[n] for n, s in wide.items() if kept[n] % s and kept[n] not in (48, 56, 24)
    }
    assert bool(report["odd_widths"]) == odd
    assert ("no multiple of 8, so that the target is met" in words) == odd
