"""Commands that are shown: whole and quoted for a shell, so that they can be pasted."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_NAMED = re.compile(r"`snnprune (inspect|profile|bench)((?: [^`]*)?)`")
_OPENING = ("arch", "num_classes", "image_size", "entry", "trust_pickle")
_GOING_ON = {"--resume": 1, "--dry-run": 1, "--output": 2}  # words of each that going on says anew, or leaves out


@dataclass(slots=True)
class Call:
    """A command as it was typed.

    Attributes:
        arguments: words after the program's name.
        params: values of the command, once they are read.
    """

    arguments: list[str] = field(default_factory=list)
    params: Mapping[str, Any] = field(default_factory=dict)


def shown(*words: object) -> str:
    """A command of this program, as it is started here."""
    return shlex.join([*_program(), *map(str, words)])


def going_on(call: Call, folder: Path) -> str:
    """The command that goes on with a run.

    Args:
        call: what began it.
        folder: where the run will be.
    """
    name, *rest = call.arguments or ["optimize"]
    kept: list[str] = []
    words = iter(rest)
    for word in words:
        option = word.partition("=")[0]
        if option not in _GOING_ON:
            kept.append(word)
        elif option == word and _GOING_ON[option] > 1:
            next(words, None)
    return shown(name, *kept[: _before(kept)], "--output", folder, "--resume", *kept[_before(kept) :])


def completed(text: str, call: Call) -> str:
    """A message in which commands that look at the model of this call are whole.

    The library knows the names of commands alone: `snnprune inspect` becomes `snnprune inspect model.pt --arch
    resnet18`.

    Args:
        text: of the message.
        call: in which it came up.
    """
    model = call.params.get("model") or call.params.get("run")
    if model is None:
        return text

    def whole(found: re.Match[str]) -> str:
        opening = [w for name in _OPENING for w in _option(name, call.params.get(name))]
        return f"`{shown(found[1], model, *opening)}{found[2]}`"

    return _NAMED.sub(whole, text)


def _option(name: str, value: object) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if value is None or value is False:
        return []
    return [flag] if value is True else [flag, str(value)]


def _before(words: Sequence[str]) -> int:
    """Where options end."""
    return words.index("--") if "--" in words else len(words)


def _program() -> list[str]:
    """How the program is started: by its name where a shell finds it, by Python's `-m`, or by torchrun."""
    here = Path(sys.argv[0])
    workers = os.environ.get("LOCAL_WORLD_SIZE")
    if workers is not None and workers == os.environ.get("WORLD_SIZE") and "TORCHELASTIC_RUN_ID" in os.environ:
        return ["torchrun", "--nproc-per-node", workers, "-m", "snnprune"]
    if here.name == "__main__.py" and here.parent.name == "snnprune":
        return [_name_of(Path(sys.executable)), "-m", "snnprune"]
    return [_name_of(here)] if here.stem == "snnprune" else ["snnprune"]


def _name_of(program: Path) -> str:
    """Its name, where that means this program; else its path as it was given."""
    found = shutil.which(program.name)
    same = found is not None and Path(found).exists() and program.exists() and program.samefile(found)
    return program.name if same else str(program)
