"""The examples and the README's code run as they stand."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

import snnprune
from snnprune.cli.main import run as cli

README = (ROOT / "README.md").read_text()


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_own_loop(tmp_path, monkeypatch):
    """From trained weights, and the same again whatever was drawn before."""
    found = []
    for name in ("run", "again"):
        torch.manual_seed(len(found) + 7)
        found.append(load("own_loop").main("digits", 4, str(tmp_path / name)))
        monkeypatch.setattr(snnprune, "export_onnx", lambda *_a, **_k: None, raising=False)
    small, again = found
    assert all(
        torch.equal(a, b) for a, b in zip(small.state_dict().values(), again.state_dict().values(), strict=True)
    )
    images, labels = next(iter(snnprune.load_data("digits", batch_size=500)[2]))
    assert (small.eval()(images).argmax(1) == labels).double().mean() > 0.95
    assert sum(p.numel() for p in small.parameters()) < 0.41 * 54_362
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "kept.json",
        "model.onnx",
        "model.safetensors",
        "structure.json",
    }


def test_torchvision_model(tmp_path):
    result = load("torchvision_model").main("fake", 0.5, str(tmp_path / "run"))
    assert result.report.compact.macs <= 0.5 * result.report.dense.macs
    assert (tmp_path / "run" / "model.onnx").is_file()
    assert result.report.exactness["onnx"] is not None


def test_resume():
    assert load("resume").main(epochs=1.5) is True


def test_onnx_runtime(tmp_path):
    assert load("onnx_runtime").main("digits", str(tmp_path / "run")) < 1e-4


def test_own_criterion():
    found = load("own_criterion").main("digits", 1, 0.3, seeds=1)
    assert {row["method"] for row in found.rows} == {"ours", "own_l1", "l1"}
    for row in found.rows:
        assert row["value"] > 0.8
        assert 0.28 < row["macs"] <= 0.3


def test_own_layer(tmp_path):
    result = load("own_layer").main(epochs=1, out=str(tmp_path / "run"))
    assert result.report.compact.macs <= 0.4 * result.report.dense.macs
    assert result.model.scale.width == result.model.second.fan_in < 32
    assert (tmp_path / "run" / "structure.json").is_file()


def test_timm_finetune(tmp_path):
    pytest.importorskip("timm")
    small = load("timm_finetune").main("digits", "resnet10t", str(tmp_path / "small.onnx"), epochs=1)
    assert type(small).__module__.startswith("timm.")
    assert (tmp_path / "small.onnx").is_file()


def test_timm_finetune_without_timm(monkeypatch, capsys):
    example = load("timm_finetune")
    monkeypatch.setattr(example, "timm", None)
    assert example.main() is None
    assert "pip install timm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "package"), [("webdataset_shards", "webdataset"), ("hugging_face_data", "datasets")]
)
def test_other_sources_of_data(name, package, tmp_path):
    pytest.importorskip(package)
    result = load(name).main(0.5, str(tmp_path / "run"))
    assert result.report.compact.macs <= 0.5 * result.report.dense.macs
    assert result.report.dense.accuracy is not None
    assert (tmp_path / "run" / "model.onnx").is_file()


@pytest.mark.parametrize(("name", "package"), [("webdataset_shards", "wds"), ("hugging_face_data", "datasets")])
def test_other_sources_of_data_without_their_package(name, package, monkeypatch, capsys):
    example = load(name)
    monkeypatch.setattr(example, package, None)
    assert example.main() is None
    assert "is not installed: pip install" in capsys.readouterr().out


def test_shards_are_read_whole_and_the_same_in_every_epoch_that_begins_alike(tmp_path):
    """Every sample once, in an order that the generator inside sets, which is what resuming relies on."""
    pytest.importorskip("webdataset")
    from torchvision.transforms import v2

    from snnprune.carried import seed_carried

    example = load("webdataset_shards")
    images = [v2.ToPILImage()(torch.full((3, 8, 8), i, dtype=torch.uint8)) for i in range(50)]
    example.pack(tmp_path / "train", images, range(50), shard=20)
    assert len(list((tmp_path / "train").glob("*.tar"))) == 3
    made = example.stream(tmp_path / "train", 50, size=8, batch_size=8, training=True)
    orders = []
    for key in ("a", "a", "b"):
        seed_carried(made, key)
        orders.append(torch.cat([labels for _, labels in made]).tolist())
        assert len(set(orders[-1])) == 48 == 8 * len(made)
    assert orders[0] == orders[1] != orders[2]
    measured = example.stream(tmp_path / "train", 50, size=8, batch_size=8, training=False)
    assert sorted(torch.cat([labels for _, labels in measured]).tolist()) == list(range(50))
    assert len(measured) == 7


def test_multi_label():
    report = load("multi_label").main(epochs=1, before=3).report
    assert (report.metric.name, report.metric.higher_is_better) == ("mean F1", True)
    assert report.dense.value > 0.8
    assert any(trial["passed"] for trial in report.trials)
    assert all(trial["passed"] == (trial["drop"] <= 0.02) for trial in report.trials)


def test_regression():
    report = load("regression").main(epochs=1, before=4).report
    assert (report.metric.name, report.metric.higher_is_better) == ("mean error", False)
    assert 0 < report.dense.value < 2.5, "guessing the mean is off by 2.5"
    assert all(
        t["drop"] == pytest.approx(t["val_value"] - report.trials[0]["val_value"] + report.trials[0]["drop"])
        for t in report.trials
    )


def test_segmentation():
    report = load("segmentation").main(48, 2, 6).report
    assert report.metric.name == "mIoU"
    assert 0.3 < report.dense.value <= 1
    assert report.compact.macs <= 0.5 * report.dense.macs


def test_segmentation_metric_by_hand():
    example = load("segmentation")
    masks = torch.tensor([[[0, 0, 1, 2]]])
    said = torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 2]]]), 3).permute(0, 3, 1, 2).float()
    assert example.mean_iou(lambda _: said, [(None, masks)]) == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)


def test_detection():
    report = load("detection").main(8, 1, 2).report
    assert report.metric.name == "IoU of the surest box"
    assert report.history[-1]["val_metric"] == report.metric.name
    assert 0 <= report.compact.value <= 1
    assert report.compact.macs <= 0.6 * report.dense.macs


def test_yolo():
    pytest.importorskip("ultralytics")
    report = load("yolo").main(4, 1, 1).report
    assert (report.metric.name, report.metric.higher_is_better) == ("loss", False)
    assert report.compact.macs <= 0.7 * report.dense.macs


def test_yolo_without_ultralytics(monkeypatch, capsys):
    example = load("yolo")
    monkeypatch.setattr(example, "DetectionModel", None)
    assert example.main() is None
    assert "pip install ultralytics" in capsys.readouterr().out


def fences(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_readme_python(tmp_path, monkeypatch):
    """Every Python fence, one after the other, in one namespace, on small stand-ins for data and model."""
    import torchvision

    monkeypatch.chdir(tmp_path)
    real_load, real_config, real_net = snnprune.load_data, snnprune.PruneConfig, torchvision.models.resnet18
    monkeypatch.setattr(snnprune, "load_data", lambda *a, **k: real_load("fake", batch_size=64), raising=False)
    monkeypatch.setattr(snnprune, "PruneConfig", lambda **k: real_config(**{**k, "epochs": 0.3}), raising=False)
    monkeypatch.setattr(
        torchvision.models, "resnet18", lambda **k: torchvision.models.squeezenet1_1(num_classes=10), raising=False
    )
    assert real_net is not torchvision.models.resnet18
    found = fences("python")
    assert len(found) >= 2
    space: dict[str, object] = {}
    for code in found:
        exec(compile(code, "README.md", "exec"), space)


def test_readme_commands(tmp_path, monkeypatch):
    """The README's first command, after the installation, does what it says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    parts = [p.strip() for line in fences("bash") for p in line.split("&&") if "python3 -m venv" in line]
    commands = [re.sub(r"^\.venv/bin/", "", p) for p in parts if p.startswith(".venv/bin/snnprune ")]
    assert any(c.startswith("snnprune optimize models/digits_cnn.pt") for c in commands)
    assert any(c.startswith("snnprune export --onnx") for c in commands)
    for command in commands:
        assert cli(shlex.split(command)[1:]) == 0, command
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) == 1
    assert (runs[0] / "model.onnx").is_file()


def test_readme_options_exist():
    """Options named in the README are options of the command line."""
    import typer

    from snnprune.cli.app import app

    group = typer.main.get_command(app)
    known = {o for c in group.commands.values() for p in c.params for o in p.opts} | {"--version", "--help"}
    text = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
    used = {
        o for line in text.splitlines() if "snnprune " in line for o in re.findall(r"(?<= )--[a-z0-9-]+", line)
    }
    used -= {"--upgrade"}
    assert used <= known, used - known
    assert used


def test_models_train_script(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    sys.path.insert(0, str(ROOT / "models"))
    import train

    accuracy = train.main(tmp_path / "d.pt", epochs=3)
    assert accuracy > 0.8
    state = torch.load(tmp_path / "d.pt", weights_only=True)
    shipped = torch.load(ROOT / "models" / "digits_cnn.pt", weights_only=True)
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in shipped.items()}


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.py")), ids=lambda p: p.name)
def test_models_are_plain_files(path: Path):
    """Networks a user could have written: they import nothing of ours."""
    if path.name != "train.py":
        assert "snnprune" not in path.read_text()
