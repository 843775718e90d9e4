"""What serves a model, by the options of a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError

FLAGS = {
    "engine": "--engine",
    "batch": "--serve-batch-size",
    "precision": "--serve-precision",
    "threads": "--threads",
}


def serving_for(target: str, profile: Path | None, **asked: Any) -> Any:
    """The serving of a run: what was asked for, else what the profile is of, else the default.

    Args:
        target: as written.
        profile: file with the times of a device.
        asked: options of `Serving`; None where the user did not give them.

    Raises:
        ConfigError: a value makes no sense; the profile is of no use to the target, or of something else.
        TimingError: the profile is no file of times.
    """
    from ..budget import parse_latency
    from ..timing.answers import read_answers, serving_of
    from ..timing.serving import Serving
    from . import parse

    given = {name: value for name, value in asked.items() if value is not None}
    found = Serving(**given)
    if profile is not None and parse_latency(parse.target(target)) is None:
        raise ConfigError(
            f"--profile belongs to a target latency=...; {target} counts, and has no use for times of layers. "
            "Leave it out, or ask for a time."
        )
    if profile is None:
        return found
    key, _ = read_answers(profile)
    stated = serving_of(key)
    for name, value in given.items():
        if getattr(stated, name) != value:
            raise ConfigError(
                f"{FLAGS[name]} {value}, but the times in {profile} are of {getattr(stated, name)} (on "
                f"{key.get('device', 'an unnamed device')}). Leave it out, or make a profile of what will serve."
            )
    return stated
