"""A run's life on the command line: made, stopped, gone on with, exported, measured, pruned again."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import snnprune
from snnprune.cli.main import run
from snnprune.export import ExportCheck
from snnprune.learner import PruneConfig, loop
from snnprune.learner.loss import TaskLoss
from snnprune.learner.recover import RecoverStage
from snnprune.learner.search import SearchStage
from snnprune.pipeline import newest_run, open_model
from snnprune.registry import build
from snnprune.saving import layer_sizes

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parent.parent
DIGITS = f"{ROOT / 'models' / 'digits_cnn.py'}:digits_cnn"
MADE = {"model.onnx", "model.safetensors", "probe.safetensors", "report.json", "structure.json"}
# 10 steps an epoch: some steps of search, then a recovery with borders of epochs
SHORT = ["--data", "digits", "--arch", DIGITS, "--epochs", "3", "--device", "cpu", "--target", "macs=0.4"]
SEARCH = round(30 * PruneConfig().search)


class UserNet(nn.Module):
    """A whole model of a user's own class."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().amax((2, 3)))


def dropout_net() -> nn.Module:
    """Draws random numbers in every step."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 10)
    )


def optimize(*args: object) -> int:
    return run(["optimize", *map(str, args)])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a model file `digits.pt` and its finished run `run`; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    torch.save(build(DIGITS).state_dict(), folder / "digits.pt")
    assert optimize(folder / "digits.pt", *SHORT, "--output", folder / "run") == 0
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


@pytest.fixture
def finished(made, here) -> Path:
    """A copy of the finished run, to change or damage."""
    shutil.copytree(made / "run", here / "runs" / "digits")
    return here / "runs" / "digits"


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal; in processes in the background it is ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handler was not put back"
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def model(made, here) -> Path:
    shutil.copy(made / "digits.pt", here / "digits.pt")
    return Path("digits.pt")


@pytest.fixture
def quick(made, monkeypatch) -> None:
    """Runs that end without the second that a real ONNX export takes; it copies the one that was made."""
    error = json.loads((made / "run" / "report.json").read_text())["exactness"]["onnx"]

    def export(model, path: Path, example_inputs, **options) -> ExportCheck:
        shutil.copy(made / "run" / "model.onnx", path)
        return ExportCheck(path, 0.0, error, (1,), 20, "none")

    monkeypatch.setattr("snnprune.pipeline.runs.export_onnx", export)


@pytest.fixture
def said(capsys):
    """What the last command said on stderr, as one line, after its exit code was checked."""

    def check(code: int, wanted: int = 1) -> str:
        captured = capsys.readouterr()
        assert code == wanted, captured
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("error: " if wanted == 1 else "stopped"), lines
        return lines[0]

    return check


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---- a run that goes well


def test_a_run_folder_holds_what_is_documented(made):
    assert names(made) == {"digits.pt", "run"}
    assert names(made / "run") == MADE


def test_the_report_tells_everything(made):
    report = json.loads((made / "run" / "report.json").read_text())
    for name in ("dense", "compact"):
        assert set(report[name]) == {"accuracy", "loss", "macs", "params"}
        assert 0 <= report[name]["accuracy"] <= 1
        assert report[name]["loss"] > 0
    assert report["dense"]["macs"] == 720_944
    assert report["dense"]["params"] == 54_362
    assert 0.39 <= report["compact"]["macs"] / report["dense"]["macs"] <= 0.4
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
    assert report["steps"] == {"search": SEARCH, "recover": 30 - SEARCH}


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
    for key in set(first) - {"seconds"}:
        assert first[key] == second[key], key
    assert (Path("again") / "structure.json").read_text() == (made / "run" / "structure.json").read_text()


def test_a_run_without_a_name_is_put_into_runs(model, capsys, said):
    assert optimize(model, *SHORT, "--seed", "3", "--limit", "200", "--target", "params=0.5") == 0
    out = capsys.readouterr().out
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("digits-")
    assert f"wrote {folder} - next: snnprune export --onnx" in out
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
    assert json.loads(Path("out/structure.json").read_text())["factory"] == {"arch": None, "kwargs": {}}
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


# ---- a run that is stopped


def stop_at(monkeypatch, stage: type, call: int, by: Exception | None = None) -> None:
    """Press Ctrl-C (or fail otherwise) at the beginning of a stage's n-th step."""
    original, count = stage.train_step, [0]

    def train_step(self, batch):
        count[0] += 1
        if count[0] == call:
            if by is not None:
                raise by
            signal.raise_signal(signal.SIGINT)
        return original(self, batch)

    monkeypatch.setattr(stage, "train_step", train_step)


@pytest.mark.parametrize(
    ("stage", "call"),
    [
        (SearchStage, 1),
        (SearchStage, SEARCH),
        (RecoverStage, 1),
        (RecoverStage, 5),
        (RecoverStage, 12),
    ],
    ids=["search-first", "search-last", "recovery-first", "recovery-inside", "recovery-second-epoch"],
)
@pytest.mark.usefixtures("quick")
def test_a_stopped_run_goes_on_as_if_nothing_had_been(made, model, said, monkeypatch, stage, call):
    with monkeypatch.context() as patch:
        stop_at(patch, stage, call)
        message = said(optimize(model, *SHORT, "--output", "out"), 130)
    assert "--output out --resume" in message
    assert Path("out.partial/checkpoint/state.pt").is_file()
    assert not Path("out").exists()
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))
    assert names(Path("out")) == MADE
    assert not Path("out.partial").exists()
    first, second = (json.loads((f / "report.json").read_text()) for f in (made / "run", Path("out")))
    for key in set(first) - {"seconds"}:
        assert first[key] == second[key], key


@pytest.mark.parametrize(("stage", "call"), [(SearchStage, 3), (RecoverStage, 5)])
@pytest.mark.usefixtures("quick")
def test_the_random_numbers_of_dropout_go_on_too(here, said, monkeypatch, stage, call):
    torch.manual_seed(0)
    torch.save(dropout_net().state_dict(), here / "net.pt")
    options = ["--data", "digits", "--arch", f"{__file__}:dropout_net", "--device", "cpu", "--epochs", "4"]
    assert optimize("net.pt", *options, "--output", "whole") == 0
    with monkeypatch.context() as patch:
        stop_at(patch, stage, call)
        said(optimize("net.pt", *options, "--output", "out"), 130)
    assert optimize("net.pt", *options, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(Path("whole")))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.usefixtures("quick")
def test_ctrl_c_in_the_middle_of_a_step_does_not_count_half_a_step(made, model, said, monkeypatch, when):
    """A real signal around the loss of the 8th step; after it, batch norm has already seen the batch."""
    original, count = TaskLoss.__call__, [0]

    def loss(self, model, batch):
        count[0] += 1
        if count[0] == 8 and when == "before":
            signal.raise_signal(signal.SIGINT)
        value = original(self, model, batch)
        if count[0] == 8 and when == "after":
            signal.raise_signal(signal.SIGINT)
        return value

    with monkeypatch.context() as patch:
        patch.setattr(TaskLoss, "__call__", loss)
        said(optimize(model, *SHORT, "--output", "out"), 130)
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))


@pytest.mark.usefixtures("quick")
def test_the_history_of_a_run_that_was_stopped_in_the_search_is_whole(model, said, monkeypatch):
    epochs = 5 / (3 * PruneConfig().search)  # 3 steps an epoch, 5 of search
    options = [*SHORT, "--epochs", str(epochs), "--batch-size", "20", "--limit", "60"]
    with monkeypatch.context() as patch:
        stop_at(patch, SearchStage, 4)
        said(optimize(model, *options, "--output", "out"), 130)
    assert optimize(model, *options, "--output", "out", "--resume") == 0
    history = json.loads(Path("out/report.json").read_text())["history"]
    assert [(h["stage"], h["step"]) for h in history][:3] == [("search", 3), ("search", 5), ("recover", 3)]


@pytest.mark.usefixtures("quick")
def test_a_run_can_be_stopped_twice(made, model, said, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, SearchStage, 2)
        said(optimize(model, *SHORT, "--output", "out"), 130)
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 7)
        said(optimize(model, *SHORT, "--output", "out", "--resume"), 130)
    assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert same(weights(Path("out")), weights(made / "run"))


@pytest.mark.usefixtures("quick")
def test_resume_finds_the_stopped_run_by_the_models_name(made, model, said, monkeypatch):
    assert "no unfinished run of digits" in said(optimize(model, *SHORT, "--resume"))
    with monkeypatch.context() as patch:
        stop_at(patch, RecoverStage, 2)
        said(optimize(model, *SHORT), 130)
    (partial,) = Path("runs").iterdir()
    assert optimize(model, *SHORT, "--resume") == 0
    assert [p.name for p in Path("runs").iterdir()] == [partial.name.removesuffix(".partial")]
    assert same(weights(newest_run()), weights(made / "run"))


@pytest.fixture
def stopped(model, here, monkeypatch, said) -> Path:
    """A run stopped in the recovery, with a checkpoint after every step."""
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
        stop_at(patch, RecoverStage, 6)
        said(optimize(model, *SHORT, "--output", "out"), 130)
    return here / "out.partial" / "checkpoint"


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "gone"])
@pytest.mark.usefixtures("quick")
def test_a_damaged_checkpoint_falls_back_to_the_one_before(made, model, stopped, damage):
    assert names(stopped) == {"state.pt", "state.previous.pt"}
    newest = stopped / "state.pt"
    data = newest.read_bytes()
    if damage == "gone":
        newest.unlink()
    else:
        newest.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "garbage": b"?" * 1000}[damage])
    steps = []
    original = RecoverStage.load

    def load(self, state):
        original(self, state)
        steps.append(self.step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecoverStage, "load", load)
        assert optimize(model, *SHORT, "--output", "out", "--resume") == 0
    assert steps in ([5], [6]), "from the state before, not from the beginning"
    assert same(weights(Path("out")), weights(made / "run"))


def test_checkpoints_that_are_all_damaged_are_refused_and_stay(model, stopped, said, here):
    for file in stopped.iterdir():
        file.write_bytes(b"?" * 1000)
    before = tree(here)
    message = said(optimize(model, *SHORT, "--output", "out", "--resume"))
    assert "state.previous.pt" in message
    assert "cannot be read" in message
    assert tree(here) == before


def test_a_checkpoint_does_not_run_code(model, stopped, said, here):
    class Explosive:
        def __reduce__(self):
            return exec, ("open('ran', 'w').close()",)

    for file in stopped.iterdir():
        torch.save(Explosive(), file)
    assert "cannot be read" in said(optimize(model, *SHORT, "--output", "out", "--resume"))
    assert not (here / "ran").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--lr", "0.01"],
        ["--seed", "1"],
        ["--target", "macs=0.5"],
        ["--batch-size", "64"],
        ["--keep", "features.0"],
        ["--mean", "0.1", "--std", "0.9"],
    ],
    ids=lambda options: options[0],
)
def test_a_checkpoint_of_other_options_is_refused_and_stays(model, stopped, said, here, options):
    before = tree(here)
    message = said(optimize(model, *SHORT, *options, "--output", "out", "--resume"))
    assert "belongs to another model, data set or options" in message
    assert "out.partial/checkpoint/state.pt" in message
    assert tree(here) == before


def test_a_checkpoint_of_another_model_is_refused(stopped, said):
    torch.manual_seed(1)
    torch.save(build(DIGITS).state_dict(), "other.pt")
    message = said(optimize("other.pt", *SHORT, "--output", "out", "--resume"))
    assert "belongs to another model" in message


def test_an_unfinished_run_is_not_overwritten(model, stopped, said, here):
    before = tree(here)
    message = said(optimize(model, *SHORT, "--output", "out"))
    assert "out.partial holds an unfinished run" in message
    assert "--resume" in message
    assert tree(here) == before


def test_ctrl_c_before_the_first_step_leaves_nothing(model, said, here, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("snnprune.pipeline.job.trace", interrupt)
    before = tree(here)
    assert said(optimize(model, *SHORT, "--output", "out"), 130) == "stopped"
    assert tree(here) == before
    assert not Path("out.partial").exists()


@pytest.mark.parametrize("checkpoints", [False, True])
def test_ctrl_c_in_the_export(made, model, said, monkeypatch, checkpoints):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("snnprune.pipeline.runs.export_onnx", interrupt)
        if checkpoints:
            patch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
        message = said(optimize(model, *SHORT, "--output", "out"), 130)
    assert Path("out.partial").exists() == checkpoints
    assert not Path("out").exists()
    assert ("--output out --resume" in message) == checkpoints
    assert optimize(model, *SHORT, "--output", "out", *["--resume"] * checkpoints) == 0
    assert names(Path("out")) == MADE
    assert same(weights(Path("out")), weights(made / "run"))


def test_a_failure_in_the_middle_leaves_nothing(model, said, here, monkeypatch):
    before = tree(here)
    stop_at(monkeypatch, RecoverStage, 6, by=RuntimeError("the disk is on fire"))
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    assert "the disk is on fire" in said(optimize(model, *SHORT, "--output", "out"))
    assert tree(here) == before
    assert not Path("out.partial").exists()


def test_learning_that_diverges_says_what_to_do_and_leaves_nothing(model, said, here):
    before = tree(here)
    message = said(optimize(model, *SHORT, "--lr", "1e30", "--output", "out"))
    assert "--lr" in message
    assert tree(here) == before
    assert not Path("out.partial").exists()


# ---- export


def test_export_takes_the_newest_run_and_checks_it(finished, capsys):
    older = finished.with_name("older")
    shutil.copytree(finished, older)
    os.utime(older / "report.json", (1, 1))
    (finished.with_name("unfinished.partial")).mkdir()
    before = tree(finished)
    assert run(["export", "--onnx"]) == 0
    out = capsys.readouterr().out
    assert f"wrote {Path('runs/digits/model.onnx')}" in out
    assert "agrees with the model" in out
    assert tree(finished) == before


def test_export_to_another_file_and_in_half_precision(finished, capsys):
    assert run(["export", str(finished), "--onnx", "--output", "new/place/m.onnx"]) == 0
    assert Path("new/place/m.onnx").read_bytes() == (finished / "model.onnx").read_bytes()
    assert run(["export", str(finished), "--onnx", "--fp16", "--output", "half.onnx"]) == 0
    half, full = onnx.load("half.onnx"), onnx.load(finished / "model.onnx")

    def kinds(proto) -> set[int]:
        return {t.data_type for t in proto.graph.initializer if len(t.dims) > 1}

    assert kinds(half) == {onnx.TensorProto.FLOAT16}
    assert kinds(full) == {onnx.TensorProto.FLOAT}
    assert Path("half.onnx").stat().st_size < 0.65 * (finished / "model.onnx").stat().st_size
    probe = load_file(finished / "probe.safetensors")
    session = onnxruntime.InferenceSession("half.onnx", providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {session.get_inputs()[0].name: probe["inputs"].numpy()})
    assert outputs.dtype == np.float32
    assert np.abs(outputs - probe["outputs"].numpy()).max() < 5e-3 * probe["outputs"].abs().max()
    assert names(finished) == MADE
    assert run(["export", str(finished), "--onnx", "--fp16"]) == 0
    assert names(finished) == {*MADE, "model-fp16.onnx"}


def test_a_run_without_its_onnx_file_is_exported_again(finished, said):
    (finished / "model.onnx").unlink()
    structure = json.loads((finished / "structure.json").read_text())
    structure["onnx_sha256"] = "0" * 64  # as if another exporter had made the file
    (finished / "structure.json").write_text(json.dumps(structure))
    assert "--arch" in said(run(["export", "--onnx"]))
    assert not (finished / "model.onnx").exists()
    for _ in range(2):  # the file that was made is then the run's own
        assert run(["export", "--onnx", "--arch", DIGITS]) == 0
    assert run(["evaluate", str(finished / "model.onnx"), "--data", "digits"]) == 0


def test_export_needs_to_be_told_what(finished, said):
    assert "--onnx" in said(run(["export"]))


def test_export_without_any_run(here, said):
    assert "no finished run in runs/" in said(run(["export", "--onnx"]))
    Path("runs/half.partial").mkdir(parents=True)
    assert "no finished run in runs/" in said(run(["export", "--onnx"]))
    assert "nowhere is no finished run folder" in said(run(["export", "nowhere", "--onnx"]))
    Path("other").mkdir()
    assert "other is no finished run folder" in said(run(["export", "other", "--onnx"]))
    assert tree(here) == {}


def other_onnx(size: int = 8) -> bytes:
    """A valid model of another kind of image, or of the same with other weights."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 10))
    snnprune.export_onnx(model, "other.onnx", torch.rand(4, 1, size, size))
    return Path("other.onnx").read_bytes()


@pytest.mark.parametrize("how", ["bytes", "cut", "empty", "garbage", "other weights", "other images", "metadata"])
@pytest.mark.parametrize("recorded", [True, False], ids=["digest", "no digest"])
def test_a_damaged_onnx_file_is_not_delivered(finished, said, here, how, recorded):
    file = finished / "model.onnx"
    data = file.read_bytes()
    if how == "bytes":  # the middle of the largest weight
        proto = onnx.load_model_from_string(data)
        raw = max((t.raw_data for t in proto.graph.initializer), key=len)
        at = data.index(raw) + len(raw) // 2 // 4 * 4
        data = data[:at] + np.full(64, 7, np.float32).tobytes() + data[at + 256 :]
    elif how == "metadata":  # computes the same, and tells users to feed it something else
        if not recorded:
            pytest.skip("runs of before cannot notice")
        assert data.count(b'"mean": [0.3') == 1
        data = data.replace(b'"mean": [0.3', b'"mean": [0.8')
    elif how.startswith("other"):
        data = other_onnx(8 if how == "other weights" else 9)
        Path("other.onnx").unlink()
    else:
        data = {"cut": data[: len(data) // 2], "empty": b"", "garbage": b"?" * 5000}[how]
    file.write_bytes(data)
    if not recorded:
        structure = json.loads((finished / "structure.json").read_text())
        del structure["onnx_sha256"]
        (finished / "structure.json").write_text(json.dumps(structure))
    before = tree(here)
    for options in (["--output", "out.onnx"], ["--fp16"], []):
        message = said(run(["export", "--onnx", *options]))
        assert str(Path("runs/digits/model.onnx")) in message
        assert "DEBUG" not in message
        assert tree(here) == before


def test_a_damaged_probe_is_noticed(finished, said):
    (finished / "probe.safetensors").write_bytes(b"?" * 100)
    assert "probe.safetensors cannot be read" in said(run(["export", "--onnx"]))
    (finished / "probe.safetensors").unlink()
    assert "probe.safetensors cannot be read" in said(run(["export", "--onnx"]))


# ---- evaluate, inspect, compare


def test_a_run_and_its_onnx_files_have_the_accuracy_of_the_report(finished, capsys):
    accuracy = json.loads((finished / "report.json").read_text())["compact"]["accuracy"]
    assert run(["export", "--onnx", "--fp16", "--output", "half.onnx"]) == 0
    capsys.readouterr()
    for what in (finished, finished / "model.onnx", Path("half.onnx")):
        assert run(["evaluate", str(what), "--data", "digits", "--arch", DIGITS]) == 0
        out = capsys.readouterr().out
        assert f"{what}: accuracy {accuracy:.2%}" in out
        assert "on 360 test images of digits" in out


def test_a_run_brings_its_own_normalisation(made, here, capsys):
    """Evaluated on a folder, whose default constants are others, it sees what it was made with."""
    digits = snnprune.load_data("digits")
    for kind in ("train", "test"):
        for label in range(10):
            (here / "images" / kind / str(label)).mkdir(parents=True)
        for i, (image, label) in enumerate(zip(digits.test.images, digits.test.labels.tolist(), strict=True)):
            Image.fromarray(image[0].numpy()).save(here / "images" / kind / str(label) / f"{i:03}.png")
    opened = open_model(made / "run", arch=DIGITS)
    report = json.loads((made / "run" / "report.json").read_text())
    for what in (made / "run", made / "run" / "model.onnx"):
        capsys.readouterr()
        assert run(["evaluate", str(what), "--data", "images", "--arch", DIGITS]) == 0
        out = capsys.readouterr().out
        assert f"accuracy {report['compact']['accuracy']:.2%}, loss {report['compact']['loss']:.4f}" in out
    with_other = snnprune.load_data("digits", mean=[0.5], std=[0.5])
    expected = snnprune.evaluate(opened.model, with_other.test)
    assert f"{expected.loss:.4f}" != f"{report['compact']['loss']:.4f}"
    options = ["--arch", DIGITS, "--mean", "0.5", "--std", "0.5"]
    assert run(["evaluate", str(made / "run"), "--data", "images", *options]) == 0
    assert f"loss {expected.loss:.4f}" in capsys.readouterr().out


def test_a_damaged_run_is_not_measured(finished, said):
    path = finished / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 0x10
    path.write_bytes(data)
    for command in (["evaluate", "--data", "digits"], ["inspect"]):
        message = said(run([command[0], str(finished), *command[1:], "--arch", DIGITS]))
        assert f"{path} is not the file that structure.json was written for" in message
    path.unlink()
    assert "holds no model.safetensors" in said(
        run(["evaluate", str(finished), "--data", "digits", "--arch", DIGITS])
    )


@pytest.mark.parametrize("normalization", [3, "x", {"mean": "abc", "std": [1]}, {"mean": [1, 2], "std": [1]}])
def test_a_run_with_a_senseless_normalisation_is_refused_or_falls_back(finished, said, capsys, normalization):
    structure = json.loads((finished / "structure.json").read_text())
    (finished / "structure.json").write_text(json.dumps({**structure, "normalization": normalization}))
    code = run(["evaluate", str(finished), "--data", "digits", "--arch", DIGITS])
    if isinstance(normalization, dict):
        message = said(code)
        assert "--mean" in message
        assert "DEBUG" not in message
    else:
        assert code == 0


def test_onnx_files_that_are_none(finished, said):
    assert "there is no file absent.onnx" in said(run(["evaluate", "absent.onnx", "--data", "digits"]))
    Path("bad.onnx").write_bytes(b"?" * 100)
    message = said(run(["evaluate", "bad.onnx", "--data", "digits"]))
    assert "cannot load bad.onnx" in message


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("run", ["digits", "--image-size", "16"]),
        ("run", ["digits", "--image-size", "4"]),
        ("run", ["fake", "--image-size", "8"]),
        ("run/model.onnx", ["digits", "--image-size", "16"]),
        ("run/model.onnx", ["fake", "--image-size", "8"]),
    ],
    ids=str,
)
def test_evaluate_on_images_that_do_not_fit(made, said, what, data):
    args = ["evaluate", str(made / what), "--arch", DIGITS, "--mean", "0.5", "--std", "0.5", "--data"]
    message = said(run([*args, *data]))
    assert "image size" in message.replace("--image-size", "image size")
    assert "DEBUG" not in message


@pytest.mark.parametrize("what", ["run", "run/model.onnx"])
def test_evaluate_on_other_classes_is_refused(made, said, here, what):
    for kind in ("train", "test"):
        for name in ("a", "b", "c"):
            (here / "images" / kind / name).mkdir(parents=True)
            for k in range(2):
                Image.new("L", (8, 8), 50 * k).save(here / "images" / kind / name / f"{k}.png")
    message = said(run(["evaluate", str(made / what), "--arch", DIGITS, "--data", "images"]))
    assert "10 outputs" in message
    assert "images has 3 classes" in message


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
