"""A metric of the user's own on the command line."""

from __future__ import annotations

import json

import pytest
import torch

import snnprune
from measures.test_runs import net
from snnprune.cli.main import run as cli
from snnprune.runs.report import Report

CODE = """
import torch

def error(model, loader):
    wrong = sum(int((model(x).argmax(1) != y).sum()) for x, y in loader)
    return wrong / sum(len(y) for _, y in loader)

error.higher_is_better = False
number = 3
"""


@pytest.fixture
def files(here):
    torch.save(net().state_dict(), here / "m.pt")
    (here / "net.py").write_text(
        "from torch import nn\n\ndef net():\n"
        "    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))\n"
    )
    (here / "data.py").write_text(
        "import torch\nX = torch.randn(96, 6, generator=torch.Generator().manual_seed(0))\n"
        "Y = X[:, :3].argmax(1)\nBATCHES = [(X[i:i + 16], Y[i:i + 16]) for i in range(0, 96, 16)]\n\n"
        "def data():\n    return BATCHES[:4], BATCHES[4:5], BATCHES[5:]\n"
    )
    (here / "own.py").write_text(CODE)
    return here


OPTIONS = ["--arch", "net.py:net", "--data", "data.py:data", "--device", "cpu"]


def test_the_command_line_takes_a_metric_by_its_file(files, capsys):
    assert cli(["evaluate", "m.pt", *OPTIONS, "--json"]) == 0
    right = json.loads(capsys.readouterr().out)
    assert (right["metric"], right["higher_is_better"]) == ("accuracy", True)
    assert right["value"] == right["accuracy"]
    assert cli(["evaluate", "m.pt", *OPTIONS, "--metric", "own.py:error", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["value"] == pytest.approx(1 - right["accuracy"])
    assert (found["metric"], found["higher_is_better"], found["count"]) == ("error", False, 16)
    assert "accuracy" not in captured.out + captured.err
    assert cli(["sensitivity", "m.pt", *OPTIONS, "--metric", "own.py:error", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["metric"]["name"] == "error"
    assert "error without recovery" in captured.err
    assert cli(["sensitivity", "m.pt", *OPTIONS, "--metric", "params", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["cost"] == "params"
    assert "--metric params is now --cost params" in captured.err


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("own.py", "names a file alone"),
        ("own.py:absent", "no such name"),
        ("own.py:number", "metric is 3"),
        ("none.py:error", "there is no file none.py"),
    ],
)
def test_a_metric_that_is_not_there_is_one_line(files, capsys, spec, why):
    assert cli(["evaluate", "m.pt", *OPTIONS, "--metric", spec]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line


def test_a_run_of_the_command_line_decides_by_it_and_is_resumed_with_the_same_file(files, capsys, monkeypatch):
    options = [*OPTIONS, "--metric", "own.py:error", "--target", "drop=0.9", "--trials", "1", "--epochs", "2"]
    assert cli(["optimize", "m.pt", *options, "--output", "run"]) == 0
    assert ", val error " in capsys.readouterr().out
    found = Report.read(files / "run" / "report.json")
    assert (found.metric.name, found.metric.higher_is_better) == ("error", False)
    assert (
        found.trials[0]["drop"]
        == found.trials[0]["val_value"]
        - snnprune.evaluate(
            net(), _loaded(files, "data.py").BATCHES[4:5], metric=_loaded(files, "own.py").error
        ).value
    )
    told = snnprune.onnx_metadata(files / "run" / "model.onnx")
    assert told["snnprune.metric"]["name"] == "error"
    assert told["snnprune.metric"]["value"] == found.compact.value
    assert told["snnprune.accuracy"] is None

    from snnprune.learner.recovering import RecoverStage

    original = RecoverStage.train_step

    def interrupted(self, batch):
        if self.step == 2:
            raise KeyboardInterrupt
        return original(self, batch)

    options[options.index("drop=0.9")] = "params=0.6"
    options = [o for o in options if o not in ("--trials", "1")]
    with monkeypatch.context() as patch:
        patch.setattr(RecoverStage, "train_step", interrupted)
        assert cli(["optimize", "m.pt", *options, "--output", "two"]) == 130
    (files / "own.py").write_text(CODE + "\n# another line\n")
    capsys.readouterr()
    assert cli(["optimize", "m.pt", *options, "--output", "two", "--resume"]) == 1
    assert "metric" in capsys.readouterr().err
    (files / "own.py").write_text(CODE)
    assert cli(["optimize", "m.pt", *options, "--output", "two", "--resume"]) == 0


def _loaded(folder, name):
    space: dict = {}
    exec(compile((folder / name).read_text(), name, "exec"), space)
    return type("Loaded", (), {k: staticmethod(v) if callable(v) else v for k, v in space.items()})
