"""The guide and the README: fences run, options, files, links and messages exist, every key is explained.

In the pages `<!-- setup: .. -->` holds Python that runs at its place, unseen by readers; `<!-- file: NAME -->`
makes the next fence that file; `<!-- parse only -->` keeps the next fence's commands from running.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from conftest import ROOT
from torch import nn

import snnprune
from snnprune.bench import Latency
from snnprune.cli import parse
from snnprune.cli.app import app
from snnprune.cli.main import run as cli
from snnprune.learner import PruneConfig
from snnprune.pipeline import latency

PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
COMMANDS = typer.main.get_command(app).commands
BLOCK = re.compile(r"<!-- *(setup|file|parse only):?(.*?)-->|^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
OTHERS = {
    "--index-url",
    "--yes",
    "--nproc-per-node",
    "--nnodes",
    "--node-rank",
    "--rdzv-endpoint",
}  # pip's, torchrun's
METADATA = {"classes", "normalization", "input_shape", "accuracy"}  # entries of ONNX files
SCRIPTS = {"--family", "--table", "--kills", "--inputs"}  # of benchmarks/zoo.py, tests/faults and tests/fuzz


def ids(path: Path) -> str:
    return path.name


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(kind, content): setup, file:NAME, parse, or the fence's language."""
    name, only_parse = "", False
    for comment, extra, language, body in BLOCK.findall(text):
        if comment == "setup":
            yield "setup", extra
        elif comment == "file":
            name = extra.strip()
        elif comment == "parse only":
            only_parse = True
        else:
            yield f"file:{name}" if name else "parse" if only_parse else language, body
            name, only_parse = "", False


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
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "models").symlink_to(ROOT / "models")

    def short(**options: Any) -> PruneConfig:
        return PruneConfig(**{**options, "epochs": 0.3})

    short.paper = PruneConfig.paper
    monkeypatch.setattr(snnprune, "PruneConfig", short, raising=False)
    before = dict(os.environ)
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


def inline(path: Path) -> list[str]:
    """What stands between backticks outside of fences."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [
        " ".join(code.split()) for code in re.findall(r"`([^`]+)`", re.sub(r"<!--.*?-->", "", text, flags=re.S))
    ]


@pytest.mark.parametrize("page", TEXTS, ids=ids)
def test_named_options_exist(page):
    known = {o for c in COMMANDS.values() for p in c.params for o in p.opts} | {"--version", "--help"}
    codes = inline(page)
    used = {o for code in codes for o in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code)}
    assert used <= known | OTHERS | SCRIPTS, used - known
    for code in codes:
        words = code.split()
        if words[0] == "snnprune" and len(words) > 1 and words[1].isalpha():
            assert words[1] in COMMANDS, code
            own = {o for p in COMMANDS[words[1]].params for o in p.opts} | {"--help"}
            assert {w for w in words if w.startswith("--")} <= own, code


@pytest.mark.parametrize("page", TEXTS, ids=ids)
def test_named_names_and_files_exist(page):
    for code in inline(page):
        for name in re.findall(r"\bsnnprune\.([A-Za-z_]+)", code):
            assert name in {*snnprune.__all__, "__all__", "errors"} | METADATA, code
        for path in re.findall(r"(?:docs|models|examples|benchmarks|tests|snnprune)/[\w./]*\w", code):
            assert (ROOT / path).exists(), f"{page.name} names {path}"


@pytest.mark.parametrize("page", TEXTS, ids=ids)
def test_links_lead_somewhere(page):
    for label, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("https://", "http://")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}"
            if re.fullmatch(r"[\w./]+/[\w./]*", label):
                assert (ROOT / label).exists(), f"{page.name} names {label}"


def test_every_page_and_example_is_in_the_index():
    text = (ROOT / "docs" / "index.md").read_text()
    for path in PAGES:
        assert path.name == "index.md" or f"({path.name})" in text, path.name
    for path in (ROOT / "examples").glob("*.py"):
        assert f"../examples/{path.name}" in text, path.name


@functools.cache
def patterns() -> list[re.Pattern[str]]:
    """Every text in the source that could be a message, with anything in place of its values."""
    found = set()
    for path in (ROOT / "snnprune").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else None for v in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [node.value]
            else:
                continue
            fixed = "".join(p for p in parts if p is not None)
            if len(fixed.strip()) >= 12:  # less would match anything
                found.add("".join(".+?" if p is None else re.escape(p) for p in parts))
    return [re.compile(f"(error: (process \\d+: )?)?{text}\\.?( go on with: .*)?") for text in sorted(found)]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_messages_are_those_of_the_source(page):
    known = patterns()
    for kind, content in blocks(page.read_text()):
        if kind == "text":
            for line in content.splitlines():
                assert any(pattern.fullmatch(line) for pattern in known), f"{page.name}: no such message: {line}"


def test_every_key_of_a_run_is_explained(workplace, monkeypatch):
    """The tables of concepts.md against a run of each kind that has keys of its own."""
    clock = [Latency("", "CPUExecutionProvider", 1, ms, ms, ms, 1) for ms in (2.0, 1.0)]
    monkeypatch.setattr(latency, "bench_onnx", lambda *_paths, **_options: clock)
    monkeypatch.setattr(latency, "_CUTS", 1)
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
    assert {"trials", "nonzero", "dense_ms", "passed", "weakened", "weights_sha256"} <= keys
    assert keys <= named, keys - named
    assert files <= named, files - named
    assert {"model.onnx", "report.json"} <= files
    assert "`checkpoint/`" in text


def test_reasons_are_those_of_the_source():
    text = (ROOT / "docs" / "own-models.md").read_text()
    rows = re.findall(r"^\| ([^|`]+?) \| [^|]*\|$", text.partition("| reason |")[2], re.MULTILINE)
    parts = [ROOT / "snnprune" / folder for folder in ("graph", "surgery")]
    source = "".join(path.read_text() for part in parts for path in part.glob("*.py"))
    assert len(rows) >= 5
    for row in rows:
        assert row == "---" or re.split(r":? ?\(?\.\.", row)[0] in source, row


def test_every_event_is_explained():
    text = (ROOT / "docs" / "own-loop.md").read_text()
    assert snnprune.Event.__doc__ is not None
    stages = set(re.findall(r"`(\w+)`", snnprune.Event.__doc__.partition("step:")[0])) - {"drop"}
    assert {"search", "recover", "trial"} <= stages
    assert all(f"`{stage}`" in text for stage in stages - {"export"}), stages


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=ids)
def test_issue_forms_are_well_formed(path):
    form = pytest.importorskip("yaml").safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    fields = [entry for entry in form["body"] if entry["type"] != "markdown"]
    assert all(entry["attributes"]["label"] for entry in fields)
    assert len({entry["id"] for entry in fields}) == len(fields)
    assert {entry["type"] for entry in fields} <= {"textarea", "input"}
    for name in re.findall(r"docs/[\w-]+\.md", path.read_text()):
        assert (ROOT / name).is_file(), name
