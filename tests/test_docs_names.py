"""The guide and the README: options, files, links, messages and events that they name exist."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re

import pytest
from conftest import ROOT
from pages import COMMANDS, PAGES, blocks, ids, inline

import snnprune

TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
OTHERS = {
    "--index-url",
    "--yes",
    "--nproc-per-node",
    "--nnodes",
    "--node-rank",
    "--rdzv-endpoint",
}  # pip's, torchrun's
METADATA = {
    "classes",
    "normalization",
    "input_shape",
    "crop_ratio",
    "accuracy",
    "metric",
    "quantization",
}  # entries of ONNX files
LOGGERS = {"progress"}
SCRIPTS = {
    "--family",
    "--table",
    "--kills",
    "--inputs",
    "--sample",
    "--seconds",
}  # of zoo.py, programs in tests, profiles


@pytest.mark.parametrize("page", TEXTS, ids=ids)
def test_named_options_exist(page):
    known = {o for c in COMMANDS.values() for p in c.params for o in (*p.opts, *p.secondary_opts)} | {
        "--version",
        "--help",
        "--install-completion",
    }
    codes = inline(page)
    used = {o for code in codes for o in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", code)}
    assert used <= known | OTHERS | SCRIPTS, used - known
    for code in codes:
        words = code.split()
        if words[0] == "snnprune" and len(words) > 1 and words[1].isalpha():
            assert words[1] in COMMANDS, code
            own = {o for p in COMMANDS[words[1]].params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
            assert {w for w in words if w.startswith("--")} <= own, code


@pytest.mark.parametrize("page", TEXTS, ids=ids)
def test_named_names_and_files_exist(page):
    for code in inline(page):
        for name in re.findall(r"\bsnnprune\.([A-Za-z_]+)", code):
            assert name in {*snnprune.__all__, "__all__", "errors"} | METADATA | LOGGERS, code
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
    for path in (p for p in (ROOT / "examples").iterdir() if p.suffix in (".py", ".ipynb")):
        assert f"../examples/{path.name}" in text, path.name


def test_every_entry_of_an_onnx_file_is_explained():
    source = "".join(path.read_text() for path in (ROOT / "snnprune").rglob("*.py"))
    written = set(re.findall(r'[{ ]"snnprune\.(\w+)": ', source))
    assert written == METADATA
    text = (ROOT / "docs" / "deploy.md").read_text()
    assert all(f"| `snnprune.{name}` |" in text for name in written)


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
    head = r"(error: (process \d+: )?|warning: )?"
    return [re.compile(f"{head}{text}\\.?( Go on with: .*)?") for text in sorted(found)]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_messages_are_those_of_the_source(page):
    known = patterns()
    for kind, content in blocks(page.read_text()):
        if kind == "text":
            for line in content.splitlines():
                assert any(pattern.fullmatch(line) for pattern in known), f"{page.name}: no such message: {line}"


def test_reasons_are_those_of_the_source():
    text = (ROOT / "docs" / "own-models.md").read_text()
    rows = re.findall(r"^\| ([^|`]+?) \| [^|]*\|$", text.partition("| reason |")[2], re.MULTILINE)
    parts = [ROOT / "snnprune" / folder for folder in ("graph", "proof")]
    source = "".join(path.read_text() for part in parts for path in part.glob("*.py"))
    assert len(rows) >= 5
    for row in rows:
        assert row == "---" or re.split(r":? ?\(?\.\.", row)[0] in source, row


def test_the_page_of_options_is_what_the_options_say():
    """`python docs/options.py` writes it anew."""
    spec = importlib.util.spec_from_file_location("options_page", ROOT / "docs" / "options.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    text = (ROOT / "docs" / "options.md").read_text()
    assert made.page() == text
    for name in ("`lr`, `--lr`", "`round_to`, `--round-to`", "`hold`", "`warmup`", "a number in [0, 1]"):
        assert f"| {name} |" in text


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
