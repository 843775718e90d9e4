"""The guide and the README: fences run, commands parse, every key of a run is explained."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, importable
from pages import COMMANDS, PAGES, blocks, ids, inline
from pipeline.clocks import install
from torch import nn

import snnprune
from snnprune.cli import parse
from snnprune.cli.main import run as cli
from snnprune.learner import PruneConfig


def command_lines(fence: str) -> Iterator[list[str]]:
    for line in fence.splitlines():
        for part in line.split("&&"):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words:
                yield words


def ours(words: list[str]) -> list[str] | None:
    """The arguments of a command of ours, however it is started."""
    if Path(words[0]).name == "snnprune":
        return words[1:]
    for at in range(len(words) - 1):
        if words[at : at + 2] == ["-m", "snnprune"]:
            return words[at + 2 :]
    return None


def check_parses(arguments: list[str]) -> None:
    """The command, its options and their values are what the command line takes; named files of ours exist."""
    name, *rest = arguments
    context = COMMANDS[name].make_context(name, list(rest))
    values = context.params
    if values.get("target"):
        parse.target(values["target"])
    if name == "optimize":
        fields = {field.name for field in dataclasses.fields(PruneConfig)} - {"target", "keep"}
        PruneConfig(**{k: v for k, v in values.items() if k in fields and v is not None})
    for value in rest:
        path = value.partition(":")[0]
        if path.startswith(("models/", "examples/", "benchmarks/", "tests/")):
            assert (ROOT / path).is_file(), f"{path} is named by {arguments}"


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder with our models, where runs are short; what a page does to the environment is undone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")

    def short(**options: Any) -> PruneConfig:
        return PruneConfig(**{**options, "epochs": 0.3})

    short.paper = PruneConfig.paper
    monkeypatch.setattr(snnprune, "PruneConfig", short, raising=False)
    before = dict(os.environ)
    with importable(tmp_path):
        yield tmp_path
    os.environ.clear()
    os.environ.update(before)


def shortened(arguments: list[str]) -> list[str]:
    if arguments[0] != "optimize":
        return arguments
    if "--epochs" in arguments:
        at = arguments.index("--epochs")
        arguments = arguments[:at] + arguments[at + 2 :]
    return [*arguments, "--epochs", "0.3"]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_fences_run(page, workplace):
    """Every fence of a page, one after the other; Python in one namespace."""
    runs_commands = page.name != "troubleshooting.md"  # there they repair other packages
    space: dict[str, Any] = {"cli": lambda line: cli(shlex.split(line))}
    for kind, content in blocks(page.read_text()):
        if kind in ("setup", "python"):
            exec(compile(content, f"{page.name}: {content.strip().splitlines()[0]}", "exec"), space)
        elif kind.startswith("file:"):
            compile(content, kind, "exec")
            (workplace / kind.removeprefix("file:")).write_text(content)
        elif kind in ("bash", "parse"):
            for words in command_lines(content):
                arguments = ours(words)
                if arguments is None:
                    check_foreign(words)
                    continue
                if "<command>" in arguments:
                    continue
                check_parses(arguments)
                if runs_commands and kind == "bash" and words[0] != "torchrun":
                    assert cli(shortened(arguments)) == 0, " ".join(words)
        else:
            assert kind in ("text", "console"), f"a fence of {kind!r} is not tested"


def check_foreign(words: list[str]) -> None:
    """Commands that are not ours: known programs, and scripts that exist."""
    program = Path(words[0]).name
    assert program in ("pip", "python", "python3", "ruff", "pyright"), words
    scripts = [w for w in words[1:] if w.endswith(".py")]
    assert all((ROOT / script).is_file() for script in scripts), words


def test_readme_commands_parse():
    found = 0
    for kind, content in blocks((ROOT / "README.md").read_text()):
        if kind == "bash":
            for words in command_lines(content):
                if (arguments := ours(words)) is not None:
                    check_parses(arguments)
                    found += 1
    assert found >= 6


def test_every_key_of_a_run_is_explained(workplace, monkeypatch, timed):
    """The tables of concepts.md against a run of each kind that has keys of its own."""
    install(monkeypatch, lambda share: share)
    text = (ROOT / "docs" / "concepts.md").read_text()
    files, keys = set(), set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            keys.update(value)
            for key, inner in value.items():
                if key not in (
                    "config",
                    "versions",
                    "layers",
                    "kept",
                    "counts",
                    "sparse",
                ):  # names of other things
                    collect(inner)
        elif isinstance(value, list):
            for inner in value:
                collect(inner)

    train, val, _ = snnprune.load_data("digits", batch_size=512)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    torch.manual_seed(0)
    for at, options in enumerate(
        (
            {"target": {"latency": 0.6}},
            {"target": {"drop": 0.9}, "trials": 1},
            {"target": {"params": 0.5}, "granularity": "connection"},
        )
    ):
        result = snnprune.optimize(model, train, val, snnprune.PruneConfig(**options, lr=0.01))
        folder = result.save(f"runs/{at}", onnx=at == 1)
        files |= {p.name for p in folder.iterdir()}
        for name in ("report.json", "structure.json"):
            collect(json.loads((folder / name).read_text()))
    keys |= {"factory", "arch", "kwargs"}  # from the command line only
    named = set(re.findall(r"[\w.]+", " ".join(inline(ROOT / "docs" / "concepts.md"))))
    assert {"trials", "nonzero", "dense_ms", "passed", "weakened", "weights_sha256", "predicted_ms"} <= keys
    assert keys <= named, keys - named
    assert files <= named, files - named
    assert {"model.onnx", "report.json"} <= files
    assert "`checkpoint/`" in text
