"""The command line refuses what is wrong: exit code 1, one line that helps, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from snnprune.cli import main, parse
from snnprune.cli.main import run
from snnprune.errors import ConfigError, TargetError
from snnprune.registry import build, match

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parent.parent
DIGITS = f"{ROOT / 'models' / 'digits_cnn.py'}:digits_cnn"
ARCH = ["--arch", DIGITS]


class UserNet(nn.Module):
    """A class that no list of allowed ones can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((1, 2, 3))[:, None].expand(-1, 4))


class Explosive:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return exec, ("open('ran', 'w').close()",)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build(DIGITS).state_dict()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, state) -> Path:
    """An empty working folder with one good model file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.save(state, "digits.pt")
    return tmp_path


@pytest.fixture
def refused(capsys, here):
    """Runs a command that must fail with one line that holds some words, and change nothing on disk."""

    def check(*args: object, says: str | tuple[str, ...], code: int = 1) -> str:
        before = tree(here)
        capsys.readouterr()
        found = run([str(a) for a in args])
        captured = capsys.readouterr()
        assert found == code, captured
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("error: ")
        assert len(lines[0]) < 800
        for part in (says,) if isinstance(says, str) else says:
            assert part in lines[0], lines[0]
        assert "DEBUG" not in lines[0], "this failure has no message of its own"
        assert tree(here) == before, "something was left behind"
        return lines[0]

    return check


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, and what it holds."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def command(model: str = "digits.pt", data: str = "digits", *more: str) -> list[str]:
    return ["optimize", model, "--data", data, "--epochs", "1", "--device", "cpu", *more]


def write_images(folder: str, classes: int, mode: str = "L", side: int = 8, count: int = 3) -> str:
    for kind in ("train", "test"):
        for label in range(classes):
            inner = Path(folder, kind, f"c{label}")
            inner.mkdir(parents=True)
            for k in range(count):
                Image.new(mode, (side, side), 20 * k).save(inner / f"{k}.png")
    return folder


# ---- model files


def test_no_such_model(refused):
    refused(*command("absent.pt"), says="there is no file absent.pt")
    refused(*command("digits.pt/inner"), says="digits.pt/inner")


def test_an_empty_model_file(refused):
    Path("empty.pt").touch()
    refused(*command("empty.pt"), says="empty.pt is empty")


def test_a_folder_that_is_no_run(refused):
    Path("folder").mkdir()
    refused(*command("folder"), says="folder is a folder, but neither a run nor a model file")


@pytest.mark.parametrize("name", ["half.pt", "half.safetensors"])
def test_a_truncated_model_file(refused, state, name):
    path = Path(name)
    if path.suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(*command(name, "digits", *ARCH), says=name)


@pytest.mark.parametrize("name", ["garbage.pt", "garbage.safetensors", "garbage.bin"])
@pytest.mark.parametrize("content", [bytes(range(256)) * 20, b"hello\n", b"\x80\x02}q\x00.", b"PK\x03\x04" * 9])
def test_garbage_as_a_model(refused, name, content):
    Path(name).write_bytes(content)
    refused(*command(name, "digits", *ARCH), says=name)


@pytest.mark.parametrize("more", [[], ARCH], ids=["no arch", "arch"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickle_with_code_is_not_run(refused, here, more, zipped):
    torch.save({"state_dict": Explosive()}, "bomb.pt", _use_new_zipfile_serialization=zipped)
    for name in ("optimize", "inspect", "evaluate"):
        data = [] if name == "inspect" else ["--data", "digits"]
        refused(name, "bomb.pt", *data, *more, says=("bomb.pt", "exec", "--trust-pickle"))
    assert not (here / "ran").exists()


def test_a_model_of_a_foreign_class_is_named(refused):
    torch.save(UserNet(), "whole.pt")
    refused(*command("whole.pt"), says=("whole.pt", f"{UserNet.__module__}.UserNet", "--trust-pickle", "--arch"))


def test_trust_pickle_loads_it(capsys):
    torch.save(UserNet(), "whole.pt")
    assert run(["evaluate", "whole.pt", "--data", "digits", "--trust-pickle"]) == 0
    assert "360 test images" in capsys.readouterr().out
    assert run(["evaluate", "whole.pt", "--data", "digits"]) == 1


def test_a_whole_torchvision_model_needs_no_trust(capsys):
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    torch.save(squeezenet1_1(num_classes=10), "whole.pt")
    assert run(["evaluate", "whole.pt", "--data", "fake", "--image-size", "32"]) == 0
    assert "128 test images of fake" in capsys.readouterr().out


def test_a_state_dict_that_fits_no_architecture(refused):
    refused(*command(), says=("fits no torchvision classifier", "--arch"))


def test_a_state_dict_that_fits_several_architectures(refused, monkeypatch):
    monkeypatch.setattr(match, "torchvision_names", lambda: ("squeezenet1_1", "resnet18", "squeezenet1_1"))
    torch.save(build("squeezenet1_1", 10).state_dict(), "squeeze.pt")
    refused(
        *command("squeeze.pt"),
        says=("several architectures (squeezenet1_1, squeezenet1_1)", "with --arch"),
    )


def test_a_state_dict_that_does_not_fit_the_architecture(refused, state):
    message = refused(
        *command("digits.pt", "digits", "--arch", "squeezenet1_1"), says=("digits.pt does not fit squeezenet1_1",)
    )
    assert " is missing" in message
    refused(
        *command("digits.pt", "digits", *ARCH, "--num-classes", "3"),
        says="classifier.weight is (10, 56) in the file, (3, 56) in the model",
    )


def test_weights_that_are_not_finite(refused, state):
    torch.save({**state, "hidden.0.bias": torch.full((56,), torch.nan)}, "nan.pt")
    refused(*command("nan.pt", "digits", *ARCH), says=("nan.pt", "hidden.0.bias holds NaN"))


@pytest.mark.parametrize("arch", ["resnet19", "absent.py:net", "absent.module:net", ":", "os:path"])
def test_an_architecture_that_is_none(refused, arch):
    refused(*command("digits.pt", "digits", "--arch", arch), says=arch.split(":")[0])


# ---- data


@pytest.mark.parametrize(
    ("data", "more"),
    [("digits", ["--image-size", "16"]), ("digits", ["--image-size", "6"]), ("colour", []), ("large", [])],
    ids=["larger", "smaller", "colour", "large"],
)
def test_images_that_do_not_fit_the_model(refused, data, more):
    if data == "colour":
        write_images(data, 10, "RGB")
    elif data == "large":
        write_images(data, 10, side=20)
    refused(*command("digits.pt", data, *ARCH, *more), says=("does not run", "image size", "channels"))


def test_another_number_of_classes(refused):
    write_images("three", 3)
    refused(*command("digits.pt", "three", *ARCH), says=("10 outputs", "three has 3 classes"))


def test_an_empty_class(refused):
    write_images("images", 10)
    for file in Path("images/train/c4").iterdir():
        file.unlink()
    refused(*command("digits.pt", "images", *ARCH), says="images/train/c4 holds no image")


def test_a_folder_without_a_training_part(refused):
    write_images("images", 10)
    os.rename("images/train", "images/learn")
    refused(*command("digits.pt", "images", *ARCH), says=("images must hold train/<class>/", "test/<class>/"))


@pytest.mark.parametrize("content", [b"no image", b"", b"\x89PNG\r\n\x1a\n"], ids=["text", "empty", "head"])
def test_an_image_that_is_none(refused, content):
    write_images("images", 10)
    Path("images/train/c4/1.png").write_bytes(content)
    refused(*command("digits.pt", "images", *ARCH), says="images/train/c4/1.png is no readable image")


@pytest.mark.parametrize("name", ["cifar11", "absent/folder", "absent.npz", "DIGITS", ""])
def test_an_unknown_data_set(refused, name):
    refused(*command("digits.pt", name, *ARCH), says=(f"data set {name!r}", "digits"))


@pytest.mark.parametrize("spec", ["absent.py:fn", "no_such_module:fn", "math:nothing", "math:gcd"])
def test_data_from_code_that_is_none(refused, spec):
    refused(*command("digits.pt", spec, *ARCH), says=spec.split(":")[0])


def npz(**changes: np.ndarray | None) -> str:
    content = {
        "x_train": np.zeros((20, 8, 8), np.uint8),
        "y_train": np.arange(20) % 10,
        "x_test": np.zeros((10, 8, 8), np.uint8),
        "y_test": np.arange(10),
    }
    np.savez("d.npz", **{k: v for k, v in {**content, **changes}.items() if v is not None})
    return "d.npz"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_test": None}, "lacks the arrays y_test"),
        ({"x_train": np.zeros((20, 8, 8), np.float32)}, "x_train must be uint8"),
        ({"y_train": np.array([Explosive()] * 20, dtype=object)}, "no readable .npz archive"),
        ({"x_train": np.array([Explosive()] * 20, dtype=object)}, "no readable .npz archive"),
        ({"y_train": np.arange(19)}, "20 integer labels"),
        ({"y_train": np.full(20, 10**15)}, "20 integer labels"),
    ],
    ids=["missing", "float", "object labels", "object images", "fewer labels", "huge labels"],
)
def test_a_bad_array_file(refused, here, changes, says):
    refused(*command("digits.pt", npz(**changes), *ARCH), says=("d.npz", says))
    assert not (here / "ran").exists()


def test_a_truncated_array_file(refused):
    path = Path(npz())
    path.write_bytes(path.read_bytes()[:900])
    refused(*command("digits.pt", "d.npz", *ARCH), says="d.npz is no readable .npz archive")


# ---- options


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("macs=1.5", "macs=1.5 is no share"),
        ("macs=0", "macs=0.0 is no share"),
        ("macs=-0.5", "macs=-0.5 is no share"),
        ("macs=inf", "macs=inf is no share"),
        ("macs=nan", "'macs=nan' is not of the form"),
        ("macs=abc", "'macs=abc' is not of the form"),
        ("macs", "'macs' is not of the form"),
        ("0.5", "'0.5' is not of the form"),
        ("", "'' is not of the form"),
        ("drop=0.01", "drop=... is not available"),
        ("foo=0.5", "'foo' is unknown"),
        ("macs=0.5,params=0.5", "not of the form"),
    ],
)
def test_a_target_that_is_none(refused, target, says):
    refused(*command("digits.pt", "digits", *ARCH, "--target", target), says=("target", says))


@pytest.mark.parametrize("target", ["params=0.0001", "macs=0.001"])
def test_a_target_below_the_floors_says_what_can_be_reached(refused, target):
    metric = target.split("=")[0]
    message = refused(*command("digits.pt", "digits", *ARCH, "--target", target), says=(target, "below what"))
    reachable = float(message.split(f"Ask for {metric}=")[1].split()[0])
    assert 0.001 < reachable < 0.1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--epochs", "abc"], "--epochs"),
        (["--epochs", "0"], "epochs=0"),
        (["--epochs", "nan"], "epochs=nan"),
        (["--epochs", "inf"], "epochs=inf"),
        (["--lr", "-1"], "lr=-1"),
        (["--seed", "x"], "--seed"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "9" * 40], "--seed"),
        (["--batch-size", "0"], "batch_size=0"),
        (["--limit", "0"], "limit=0"),
        (["--image-size", "0"], "image_size=0"),
        (["--image-size", "1000000"], "image_size=1000000"),
        (["--round-to", "0"], "round_to=0"),
        (["--mean", "0.1,0.2"], "--mean has 2 values for images of 1 channels"),
        (["--std", "1 1 1"], "--std has 3 values for images of 1 channels"),
        (["--mean", "abc"], "--mean 'abc' is no list of numbers"),
        (["--mean", ""], "--mean '' is no list of numbers"),
        (["--mean", "nan"], "--mean [nan]"),
        (["--std", "0"], "--std [0.0] must be positive"),
        (["--device", "nonsense"], "--device 'nonsense' is not available here"),
        (["--device", ""], "--device ''"),
        (["--device", "meta"], "--device 'meta'"),
        (["--device", "cpu:x"], "--device 'cpu:x'"),
        (["--output"], "--output"),
        (["--keep", "*", "--target", "macs=0.5"], "nothing in this model can be pruned"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, list) else "",
)
def test_a_bad_value_of_an_option(refused, options, says):
    refused(*command("digits.pt", "digits", *ARCH), *options, says=says)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["optimize"], "argument"),
        (["optimize", "digits.pt"], "--data"),
        (["optimize", "digits.pt", "--data"], "--data"),
        (["optimize", "digits.pt", "more.pt", "--data", "digits"], "more.pt"),
        (["evaluate", "digits.pt"], "--data"),
        (["inspect"], "argument"),
        (["compare"], "argument"),
        (["export"], "--onnx"),
        (["compare", "absent"], "absent/report.json"),
    ],
    ids=" ".join,
)
def test_a_missing_or_extra_argument(refused, args, says):
    refused(*args, says=says)


@pytest.mark.parametrize(
    "args",
    [
        ["--bogus"],
        ["bogus"],
        ["optimise", "digits.pt", "--data", "digits"],
        ["optimize", "digits.pt", "--data", "digits", "--bogus", "3"],
        ["inspect", "digits.pt", "-x"],
        ["export", "--onx"],
        ["evaluate", "digits.pt", "--data", "digits", "--epochs", "3"],
    ],
    ids=" ".join,
)
def test_an_unknown_option_or_command_is_exit_code_2(refused, args):
    refused(*args, says="No such", code=2)


# ---- where the result goes


def test_an_output_folder_that_exists(refused):
    Path("out").mkdir()
    refused(*command("digits.pt", "digits", *ARCH, "--output", "out"), says=("out exists already", "--output"))
    Path("file").touch()
    refused(*command("digits.pt", "digits", *ARCH, "--output", "file"), says="file exists already")
    refused(*command("absent.pt", "absent", "--output", "out"), says="out exists already")  # before all else


def test_an_output_folder_that_cannot_be_made(refused):
    refused(
        *command("digits.pt", "digits", *ARCH, "--output", "digits.pt/out"),
        says=("digits.pt/out cannot be written", "--output"),
    )


def test_a_stopped_run_is_not_overwritten(refused):
    Path("out.partial").mkdir()
    refused(
        *command("digits.pt", "digits", *ARCH, "--output", "out"),
        says=("out.partial holds an unfinished run", "--resume"),
    )


def test_nothing_to_resume(refused):
    refused(*command("digits.pt", "digits", *ARCH, "--resume"), says="no unfinished run of digits")


def test_a_name_that_looks_like_markup_or_an_escape_is_shown_as_it_is(refused):
    refused(*command("[red]x[/red].pt"), says="there is no file [red]x[/red].pt")
    refused(*command("[/]"), says="there is no file [/]")
    assert "\x1b" not in refused(*command("a\x1b[31mb.pt"), says="there is no file a?[31mb.pt")


def test_names_in_the_output_are_no_markup(capsys):
    Path("[bold]x[").mkdir()
    os.rename("digits.pt", "[bold]x[/y].pt")
    assert run(["evaluate", "[bold]x[/y].pt", "--data", "digits", *ARCH]) == 0
    assert "[bold]x[/y].pt: accuracy" in capsys.readouterr().out


def test_a_failure_of_our_own_says_how_to_find_it(capsys, monkeypatch):
    def broken(*args, **kwargs):
        raise LookupError("of two\nlines")

    monkeypatch.setattr("snnprune.pipeline.open_model", broken)
    assert run(["inspect", "digits.pt"]) == 1
    error = capsys.readouterr().err
    assert error == "error: LookupError: of two lines. Set SNNPRUNE_DEBUG=1 to see where.\n"
    monkeypatch.setenv("SNNPRUNE_DEBUG", "1")
    with pytest.raises(LookupError):
        run(["inspect", "digits.pt"])


def test_an_end_of_file_is_a_failure_and_no_ctrl_d(capsys, monkeypatch):
    def broken(*args, **kwargs):
        raise EOFError("Ran out of input")

    monkeypatch.setattr("snnprune.pipeline.open_model", broken)
    assert run(["inspect", "digits.pt"]) == 1
    assert "Ran out of input" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["optimize", "inspect", "evaluate"])
def test_ctrl_c_is_130_everywhere(capsys, monkeypatch, here, name):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("snnprune.pipeline.open_model", interrupt)
    monkeypatch.setattr("snnprune.pipeline.evaluating.open_model", interrupt)
    before = tree(here)
    assert run([name, "digits.pt", *([] if name == "inspect" else ["--data", "digits"])]) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert tree(here) == before


# ---- what is asked of the program itself


def test_version(capsys):
    import snnprune

    assert run(["--version"]) == 0
    captured = capsys.readouterr()
    lines = dict(line.split(maxsplit=1) for line in captured.out.splitlines())
    assert lines["snnprune"] == snnprune.__version__
    assert lines["torch"] == torch.__version__.split("+")[0] or lines["torch"] == torch.__version__
    assert captured.err == ""


@pytest.mark.parametrize("args", [[], ["--help"]], ids=["nothing", "--help"])
def test_help_lists_the_commands(capsys, args):
    assert run(args) == 0
    captured = capsys.readouterr()
    for name in ("optimize", "export", "inspect", "evaluate", "compare"):
        assert name in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("name", ["optimize", "export", "inspect", "evaluate", "compare"])
def test_every_command_explains_itself(capsys, name):
    assert run([name, "--help"]) == 0
    assert f"Usage: snnprune {name}" in capsys.readouterr().out


def test_main_exits_with_the_code(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["snnprune", "--bogus"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2


def test_the_module_is_the_program():
    """In a process of its own, as `python -m snnprune`: code, and nothing but the line on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "snnprune", "inspect", "absent.pt"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == "error: there is no file absent.pt.\n"


# ---- values


def test_targets_are_read():
    assert parse.target("macs=0.5") == {"macs": 0.5}
    assert parse.target("params=1") == {"params": 1.0}
    assert parse.target("free") is None
    with pytest.raises(TargetError):
        parse.target("free=1")


def test_numbers_are_read():
    assert parse.numbers(None, "--mean") is None
    assert parse.numbers("0.5", "--mean") == (0.5,)
    assert parse.numbers("0.1, 0.2,0.3", "--mean") == parse.numbers("0.1 0.2 0.3", "--mean") == (0.1, 0.2, 0.3)
    with pytest.raises(ConfigError):
        parse.numbers(",", "--mean")


def test_devices_are_read(monkeypatch):
    assert parse.device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert parse.device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert parse.device("auto") == "cuda"
