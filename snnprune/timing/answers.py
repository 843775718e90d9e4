"""Times that are kept: in a cache of this machine, and in files that other machines have written."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, RunError, TimingError
from ..files import read_json, write_json
from .serving import Serving

logger = logging.getLogger(__name__)
FORMAT = 1
_MOST = 1e9  # milliseconds; of more nobody has waited for the answer
_SERVING = ("engine", "batch", "precision", "threads")
Answers = dict[str, float | None]


def cache_folder() -> Path:
    """Where times are kept: `SNNPRUNE_CACHE`, else the user's folder for such things."""
    own = os.environ.get("SNNPRUNE_CACHE")
    if own:
        return Path(own)
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a container's user may have no home
        base = tempfile.gettempdir()
    return Path(base) / "snnprune"


def cache_file(key: Mapping[str, Any], folder: Path | None = None) -> Path:
    """The file for times of one kind."""
    told = json.dumps(dict(key), sort_keys=True)
    name = f"{key.get('engine', 'engine')}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.json"
    return (cache_folder() if folder is None else folder) / "times" / name


def load(key: Mapping[str, Any], folder: Path | None = None) -> Answers:
    """What is known already; nothing where the file is missing, or is none."""
    path = cache_file(key, folder)
    if not path.is_file():
        return {}
    try:
        found, answers = read_answers(path)
    except TimingError as error:
        logger.warning("%s They are measured anew.", error)
        return {}
    return answers if found == dict(key) else {}


def keep(key: Mapping[str, Any], answers: Answers, folder: Path | None = None) -> None:
    """Add times to the cache; one that cannot be written is done without.

    What could not be run is tried again next time: memory may have been short.
    """
    found = {name: ms for name, ms in answers.items() if ms is not None}
    try:
        write_json(cache_file(key, folder), answers_in({**load(key, folder), **found}, key))
    except RunError as error:
        logger.warning("measured times are not kept: %s", error)


def answers_in(answers: Answers, key: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of times holds."""
    return {"format": FORMAT, "key": dict(key), "answers": answers}


def read_answers(path: Path) -> tuple[dict[str, Any], Answers]:
    """A file of times: what they are of, and the times.

    Args:
        path: of the file.

    Raises:
        TimingError: it is missing or none.
    """
    try:
        found = read_json(path)
        key, answers = found["key"], found["answers"]
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {str(found['format'])[:20]}, where {FORMAT} is known")
        if type(key) is not dict or type(answers) is not dict:
            raise ValueError("its key or its answers are none")
        for name, ms in answers.items():
            if ms is not None and (type(ms) not in (int, float) or not 0 <= ms <= _MOST):
                raise ValueError(f"a time is {str(ms)[:40]!r} ({name[:40]})")
        serving_of(key)
    except RunError as error:
        raise TimingError(f"{error}") from error
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        again = shlex.join(["snnprune", "profile", "--output", str(path)])
        raise TimingError(f"{path} holds no times of a device ({why}). Write it anew by `{again}`.") from error
    return key, {name: None if ms is None else float(ms) for name, ms in answers.items()}


def serving_of(key: Mapping[str, Any]) -> Serving:
    """What served when these times were measured.

    Raises:
        ConfigError: it is not said, or makes no sense.
    """
    return Serving(**{name: key[name] for name in _SERVING})
