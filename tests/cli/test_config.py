"""`--config`: a run as a file, which repeats it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cli.conftest import ARCH, command
from snnprune.cli.config import read
from snnprune.cli.main import run
from snnprune.runs.saving import digest


def given(here: Path, content: object) -> list[str]:
    (here / "mine.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return ["optimize", "--config", "mine.yaml"]


def test_a_run_folder_holds_what_repeats_it(here):
    """Every option as it was asked for, defaults too; another one on the command line goes before it."""
    first = command("digits.pt", "digits", *ARCH, "--keep", "hidden", "--keep", "features.0", "--no-time")
    first += ["--uniform", "features.3"]
    assert run([*first, "--lr", "0.02", "--output", "a"]) == 0
    kept = yaml.safe_load((here / "a" / "run.yaml").read_text())
    assert kept["model"] == "digits.pt"
    assert kept["target"] == "macs=0.5"
    assert kept["keep"] == ["hidden", "features.0"]
    assert kept["uniform"] == ["features.3"]
    assert (kept["epochs"], kept["lr"], kept["time"], kept["batch-size"]) == (1.0, 0.02, False, 128)
    assert not {"output", "resume", "json", "config", "trust-pickle"} & set(kept)
    assert run(["optimize", "--config", "a/run.yaml", *ARCH, "--output", "b"]) == 0
    assert digest(here / "a" / "model.safetensors") == digest(here / "b" / "model.safetensors")
    assert (here / "a" / "run.yaml").read_text() == (here / "b" / "run.yaml").read_text()
    assert run(["optimize", "--config", "a/run.yaml", *ARCH, "--target", "macs=0.7", "--output", "c"]) == 0
    assert yaml.safe_load((here / "c" / "run.yaml").read_text()) == {**kept, "target": "macs=0.7"}


def test_nothing_is_left_of_a_run_that_fails(refused, here):
    refused(*given(here, {"model": "digits.pt", "data": "nowhere"}), *ARCH, says="'nowhere'")


@pytest.mark.parametrize("name", ["arch", "data", "metric"])
def test_a_file_runs_no_code(refused, here, name):
    """A folder that was handed over may hold both the options and what they name."""
    (here / "evil.py").write_text("raise SystemExit('run')\n")
    content = {"model": "digits.pt", "data": "digits", "arch": "resnet18", name: "evil.py:f"}
    refused(*given(here, content), says=("names code to run", f"say so: --{name} evil.py:f"))
    own = [] if name == "arch" else ARCH
    refused(
        *given(here, content), *own, f"--{name}", "evil.py:f", says="evil.py"
    )  # asked for in person, it is run


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"epoch": 3}, "'epoch' is no option. Did you mean epochs?"),
        ({"banana": 3}, "'banana' is no option. `snnprune optimize -h` lists them."),
        ({"output": "x"}, "'output' is no option"),
        ({"trust-pickle": True}, "cannot say trust-pickle, for it may be somebody else's"),
        ({"trust_pickle": True}, "cannot say trust-pickle"),
        ({3: 4}, "'3' is no option"),
        (["epochs"], "holds no options"),
        ("", "holds no options"),
        ("a: [", "is no YAML"),
        ("!!python/object/apply:os.system ['true']", "is no YAML"),
        ({"epochs": {"a": 1}}, "is no value for an option"),
        ({"epochs": [1, 2]}, "is no value for an option"),
        ({"epochs": "many", "model": "x", "data": "x"}, "'--epochs'"),
        ("x" * 70_000, "has more than 65536 bytes"),
    ],
    ids=range(14),
)
def test_files_that_will_not_do(refused, here, content, says):
    refused(*given(here, content), says=says)


def test_a_file_that_is_not_there(refused):
    refused("optimize", "--config", "none.yaml", says="--config none.yaml cannot be read")


def test_completion_reads_no_file():
    class Context:
        resilient_parsing = True
        default_map = None

    assert read(Context(), Path("none.yaml")) == Path("none.yaml")  # type: ignore[arg-type]
