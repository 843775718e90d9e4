"""A run that goes well: its folder, its report, and that it can be pruned again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import DIGITS
from torch import Tensor, nn

import snnprune
from pipeline.conftest import MADE, PAGE, SEARCH, SHORT, names, optimize, same, tree, weights
from snnprune.cli.main import run
from snnprune.runs.folder import newest_run, open_model
from snnprune.runs.shrinking import layer_sizes


class UserNet(nn.Module):
    """A whole model of a user's own class."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().amax((2, 3)))


def test_a_run_folder_holds_what_is_documented(made):
    assert names(made) == {"digits.pt", "run"}
    assert names(made / "run") == MADE | PAGE


def test_the_report_tells_everything(made):
    report = json.loads((made / "run" / "report.json").read_text())
    for name in ("dense", "compact"):
        assert set(report[name]) == {"accuracy", "value", "loss", "macs", "params"}
        assert 0 <= report[name]["accuracy"] <= 1
        assert report[name]["loss"] > 0
    assert report["dense"]["macs"] == 720_944
    assert report["dense"]["params"] == 54_362
    # one channel is more than a hundredth of this network
    assert 0.38 <= report["compact"]["macs"] / report["dense"]["macs"] <= 0.4
    assert [g["id"] for g in report["groups"]] == ["features.0", "features.3", "hidden.0:in", "hidden.0"]
    assert [g["size"] for g in report["groups"]] == [24, 48, 768, 56]
    for group in report["groups"]:
        assert set(group) == {"id", "size", "kept", "weakened", "strengthened"}
        assert group["kept"] == group["weakened"] + group["strengthened"]
        assert 0.1 * group["size"] <= group["kept"] <= group["size"]
    assert sum(g["kept"] for g in report["groups"]) < sum(g["size"] for g in report["groups"])
    assert set(report["exactness"]) == {"fold", "remove", "onnx"}
    assert report["exactness"]["fold"] < 1e-10
    assert report["exactness"]["remove"] < 1e-10
    assert report["exactness"]["onnx"] < 1e-3
    assert report["target"] == {"macs": 0.4}
    assert (report["seed"], report["data"], report["split"]) == (0, "digits", "test")
    assert {"python", "snnprune", "torch", "onnx"} <= set(report["versions"])
    assert report["device"].startswith("cpu")
    assert report["seconds"] >= 0
    assert report["steps"] == {"probe": 4, "search": SEARCH, "recover": 26 - SEARCH}


def test_the_figures_are_those_of_the_saved_model(made):
    """Weights, structure and report agree with what PyTorch sees."""
    report = json.loads((made / "run" / "report.json").read_text())
    model = open_model(made / "run", arch=DIGITS).model
    data = snnprune.load_data("digits")
    assert snnprune.evaluate(model, data.test).accuracy == report["compact"]["accuracy"]
    assert sum(p.numel() for p in model.parameters()) == report["compact"]["params"]
    sizes = layer_sizes(model)
    kept = {g["id"]: g["kept"] for g in report["groups"]}
    assert sizes["features.0"]["out"] == sizes["features.3"]["in"] == kept["features.0"]
    assert sizes["features.3"]["out"] == kept["features.3"]
    assert sizes["hidden.0"]["in"] == kept["hidden.0:in"]
    assert sizes["hidden.0"]["out"] == sizes["classifier"]["in"] == kept["hidden.0"]
    by_hand = (
        64 * 9 * kept["features.0"] * (1 + kept["features.3"])
        + kept["hidden.0:in"] * kept["hidden.0"]
        + 10 * kept["hidden.0"]
    )
    assert by_hand == report["compact"]["macs"]


def test_the_structure_file_names_how_to_build_the_model(made):
    structure = json.loads((made / "run" / "structure.json").read_text())
    assert structure["factory"] == {"arch": DIGITS, "kwargs": {}}
    assert structure["input_shape"] == [1, 8, 8]
    assert structure["classes"] == [str(i) for i in range(10)]
    assert structure["normalization"]["mean"] == pytest.approx([0.3058], abs=1e-3)
    kept = structure["kept"]["features.0"]
    assert kept == sorted(set(kept))
    assert len(kept) == structure["layers"]["features.0"]["out"]


def test_the_same_command_gives_the_same_run(made, model):
    assert optimize(model, *SHORT, "--output", "again") == 0
    assert same(weights(Path("again")), weights(made / "run"))
    first, second = (json.loads((f / "report.json").read_text()) for f in (made / "run", Path("again")))
    for key in set(first) - {"seconds", "command", "date"}:
        assert first[key] == second[key], key
    assert (Path("again") / "structure.json").read_text() == (made / "run" / "structure.json").read_text()


def test_a_run_without_a_name_is_put_into_runs(model, capsys, said):
    assert optimize(model, *SHORT, "--seed", "3", "--limit", "200", "--target", "params=0.5") == 0
    out = capsys.readouterr().out
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("digits-")
    assert f"wrote {folder} with its page report.html - next: snnprune export {folder} --onnx" in out
    assert names(folder) == MADE
    report = json.loads((folder / "report.json").read_text())
    assert 0.4 <= report["compact"]["params"] / report["dense"]["params"] <= 0.5
    assert sum(report["steps"].values()) == 3, "200 images are one step an epoch"
    assert newest_run() == folder


def test_a_run_can_be_pruned_again_and_opened_again(made, here, said):
    first = made / "run"
    assert "--arch" in said(optimize(first, "--data", "digits", "--output", "twice"))
    assert not list(here.iterdir())
    assert optimize(first, *SHORT, "--target", "macs=0.6", "--output", "twice") == 0
    one, two = (json.loads((f / "report.json").read_text()) for f in (first, Path("twice")))
    assert two["dense"] == one["compact"]
    assert 0.58 <= two["compact"]["macs"] / two["dense"]["macs"] <= 0.6
    opened = open_model("twice", arch=DIGITS)
    assert (
        snnprune.evaluate(opened.model, snnprune.load_data("digits").test).accuracy == two["compact"]["accuracy"]
    )
    assert same(opened.model.state_dict(), weights(Path("twice")))
    assert run(["export", "twice", "--onnx", "--output", "twice.onnx"]) == 0


def test_a_whole_model_of_a_users_class_can_be_pruned_when_it_is_trusted(here, said):
    torch.manual_seed(0)
    torch.save(UserNet(), here / "whole.pt")
    args = ["whole.pt", "--data", "digits", "--epochs", "0.5", "--output", "out"]
    before = tree(here)
    assert f"{UserNet.__module__}.UserNet" in said(optimize(*args))
    assert tree(here) == before
    assert optimize(*args, "--trust-pickle") == 0
    assert "factory" not in json.loads(Path("out/structure.json").read_text())
    assert "--arch" in said(run(["evaluate", "out", "--data", "digits"]))
    assert run(["evaluate", "out", "--data", "digits", "--arch", f"{__file__}:UserNet"]) == 0


def test_data_from_code_serves_a_whole_run(model, here):
    (here / "mine.py").write_text(
        "import snnprune\n\ndef loaders():\n"
        "    s = snnprune.load_data('digits')\n"
        "    plain = lambda x: list(x)\n"
        "    return plain(s.train)[:4], plain(s.val), plain(s.test)\n"
    )
    assert optimize(model, "--data", "mine.py:loaders", "--arch", DIGITS, "--epochs", "1", "--output", "out") == 0
    report = json.loads(Path("out/report.json").read_text())
    assert report["data"] == "mine.py:loaders"
    assert sum(report["steps"].values()) == 4
    assert json.loads(Path("out/structure.json").read_text())["normalization"] is None
