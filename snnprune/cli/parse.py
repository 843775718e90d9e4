"""Command-line values to the library's values."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ..budget import read_target
from ..budget.hints import hint
from ..errors import ConfigError, TargetError, first_line

if TYPE_CHECKING:
    from ..measures import Metric

_FORMS = "macs=0.5, params=0.3, drop=0.005, latency=0.5, latency=3ms or free"
_DEVICES = ("auto", "cpu", "cuda", "mps")


def target(text: str) -> dict[str, float | str] | None:
    """`macs=0.5`, `params=0.3`, `drop=0.005`, `latency=0.5`, `latency=3ms` or `free`.

    Raises:
        TargetError: anything else.
    """
    if text == "free":
        return None
    name, equals, value = text.partition("=")
    timed = name == "latency" and value.rstrip().endswith("s")
    try:
        share = value if timed else float(value)
    except ValueError:
        share = float("nan")
    if not equals or share != share:
        raise TargetError(f"target {text!r} is not of the form {_FORMS}.{hint(text)}")
    return read_target({name: share})


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """`0.5` or `0.49,0.48,0.45`.

    Raises:
        ConfigError: not a list of numbers.
    """
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        values = ()
    if not values:
        raise ConfigError(f"{option} {text!r} is no list of numbers such as 0.49,0.48,0.45.")
    return values


def metric(spec: str | None) -> Metric | None:
    """The metric that `file.py:name` or `package.module:name` names; runs that code.

    It is a function of (model, loader), an object with `update`, `compute` and `reset`, or a `snnprune.Metric`.

    Raises:
        ConfigError: what is named is none of them.
        ModelFileError: there is no such file, module or name, or it fails while loading.
    """
    from ..measures import Metric
    from ..registry import load_named

    if spec is None:
        return None
    if spec.endswith(".py"):
        raise ConfigError(f"--metric {spec} names a file alone; add its function of (model, loader), {spec}:name.")
    found = load_named(spec)
    if found is None:
        raise ConfigError(f"--metric {spec}: there is no such name in it.")
    return found if isinstance(found, Metric) else Metric(found)


def device(name: str) -> str:
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`.

    Raises:
        ConfigError: no such device here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name).numpy(force=True)  # which the device without memory, meta, cannot do
    except Exception as error:  # PyTorch has several for a device that it knows but lacks
        cause = first_line(error).split(". ")[0].rstrip(".")
        near = ["cuda"] if name.startswith("gpu") else difflib.get_close_matches(name, _DEVICES, 1)
        meant = (
            f" Did you mean {near[0]}{name[3:] if name.startswith('gpu:') else ''}?"
            if near and name not in near
            else ""
        )
        raise ConfigError(
            f"--device {name!r} is not available here ({cause}); use auto, cpu or cuda.{meant}"
        ) from None
    return name
