"""What a model or a run holds, and runs side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from conftest import DIGITS

from snnprune.cli.main import run
from snnprune.registry import build


def test_inspect_lists_groups_and_reasons(model, capsys):
    assert run(["inspect", str(model), "--arch", DIGITS, "--keep", "features.0"]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for group in ("features.0", "features.3", "hidden.0:in", "hidden.0", "classifier"):
        assert group in out
    assert "kept by request" in out
    assert "output of the" in out
    assert "input (1, 8, 8), 720,944 MACs, 54,362 params" in out
    assert "smallest macs target" in out
    assert "smallest params target" in out


def test_inspect_of_a_run_uses_its_recorded_input(made, capsys):
    report = json.loads((made / "run" / "report.json").read_text())
    assert run(["inspect", str(made / "run"), "--arch", DIGITS]) == 0
    out = capsys.readouterr().out
    assert f"input (1, 8, 8), {report['compact']['macs']:,} MACs, {report['compact']['params']:,} params" in out


def test_inspect_tells_of_zeros_that_save_nothing(model, capsys):
    state = torch.load(model, weights_only=True)
    assert run(["inspect", str(model), "--arch", DIGITS]) == 0
    assert "not 0" not in capsys.readouterr().out
    state["hidden.0.weight"][:, ::3] = 0
    torch.save(state, "sparse.pt")
    assert run(["inspect", "sparse.pt", "--arch", DIGITS]) == 0
    left = sum(int(p.count_nonzero()) for k, p in state.items() if k in dict(build(DIGITS).named_parameters()))
    assert f"only {left:,} params are not 0" in " ".join(capsys.readouterr().out.split())


def test_inspect_says_when_no_image_size_fits(model, said):
    assert "--image-size 0" in said(run(["inspect", str(model), "--arch", DIGITS, "--image-size", "0"]))
    assert "image size" in said(run(["inspect", str(model), "--arch", DIGITS, "--image-size", "16"]))


def test_compare_shows_runs_side_by_side(finished, capsys, said):
    second = finished.with_name("a-rather-long-name-of-a-run-that-is-not-cut-off")
    shutil.copytree(finished, second)
    report = json.loads((finished / "report.json").read_text())
    report["compact"]["accuracy"] = 0.1234
    (second / "report.json").write_text(json.dumps(report))
    capsys.readouterr()
    assert run(["compare", "runs/digits", str(second.relative_to(Path.cwd()))]) == 0
    out = capsys.readouterr().out
    assert "12.34%" in out
    assert f"{report['dense']['accuracy']:.2%}" in out
    squeezed = "".join(c for c in out if c.isalnum() or c in "-/.=%")
    assert "macs=0.4" in squeezed
    assert "…" not in out
    assert "report.json" in said(run(["compare", "nowhere"]))
    (second / "report.json").write_text('{"dense": 3}')
    assert "is no report of this version" in said(run(["compare", "runs/digits", str(second)]))
    assert run(["compare"]) == 1
