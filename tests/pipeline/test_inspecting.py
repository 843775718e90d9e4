"""What a model or a run holds, and runs side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import torch
from conftest import DIGITS
from torch import nn

from snnprune.cli.main import run
from snnprune.registry import build
from snnprune.runs.examples import image_channels


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
    report["compact"] |= {"accuracy": 0.1234, "value": 0.1234}
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


class Both(nn.Module):
    """Repeats what is grey itself."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x).mean((2, 3))


def test_channels_are_recorded_or_found_by_trying():
    def channels(model: nn.Module | None, shape: object = None, side: int | None = None) -> int | None:
        return image_channels(SimpleNamespace(model=model, structure={"input_shape": shape}), side)

    late = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 64), nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 2, 3))
    assert channels(late) == channels(late, side=8) == 3, "its first convolution sees no image"
    assert channels(nn.Conv2d(1, 2, 3)) == 1
    assert channels(nn.Conv2d(3, 2, 3)) == 3
    assert channels(nn.Conv2d(4, 2, 3)) is None
    assert channels(late, side=9) is None
    assert channels(Both()) is None
    assert channels(None, [3, 8, 8]) == 3
    assert channels(None, [1, 8, 8]) == 1
    for odd in ([16], ["channels", 8, 8], [True, 8, 8], [4, 8, 8]):
        assert channels(None, odd) is None
