"""The pages of the guide, their fences, and the commands that they may name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import typer
from conftest import ROOT

from snnprune.cli.app import app

PAGES = sorted((ROOT / "docs").glob("*.md"))
COMMANDS = typer.main.get_command(app).commands
# In the pages `<!-- setup: .. -->` holds Python that runs at its place, unseen by readers; `<!-- file: NAME -->`
# makes the next fence that file; `<!-- parse only -->` keeps the next fence's commands from running.
BLOCK = re.compile(r"<!-- *(setup|file|parse only):?(.*?)-->|^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


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


def inline(path: Path) -> list[str]:
    """What stands between backticks outside of fences."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [
        " ".join(code.split()) for code in re.findall(r"`([^`]+)`", re.sub(r"<!--.*?-->", "", text, flags=re.S))
    ]
