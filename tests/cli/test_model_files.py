"""Model files and architectures that are refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Explosive
from safetensors.torch import save_file
from torch import Tensor, nn

from cli.conftest import ARCH, command
from snnprune.cli.main import run
from snnprune.registry import build, match


class UserNet(nn.Module):
    """A class that no list of allowed ones can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((1, 2, 3))[:, None].expand(-1, 4))


def test_no_such_model(refused):
    refused(*command("absent.pt"), says="there is no file absent.pt")
    refused(*command("digit.pt"), says="there is no file digit.pt. Did you mean digits.pt?")
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
