"""A run as a file: the options of `snnprune optimize`, read by `--config` and written into every run folder."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path
from typing import Any

import typer

from ..errors import ConfigError, RunError, first_line
from ..files import brief, reason, write_atomically

_LONGEST = 2**16  # bytes of a file: what is longer is no list of options
_LEFT_OUT = {"config_file", "output", "resume", "dry_run", "as_json"}  # where a run goes, and how it is told
_CODE = ("arch", "data", "metric")  # whose values may be `file.py:function`
_TYPED = {"trust_pickle"}  # what lets code of others run is asked for in person, or not at all
_HEAD = (
    "# What this run was asked for. `snnprune optimize --config` with the path of this file repeats it.\n"
    "# Code that it names (arch, data, metric) has to be named there again.\n"
)


def read(context: typer.Context, path: Path | None) -> Path | None:
    """Take the options of a file as defaults; those of the command line go before them.

    Args:
        context: of the command.
        path: of the file, or None.

    Raises:
        ConfigError: it cannot be read, is no YAML, or names what is no option.
    """
    if path is not None and not context.resilient_parsing:
        context.default_map = _options(path, context.command)
    return path


def refuse_code(context: typer.Context) -> None:
    """Refuse to run code that only a file of options names: whoever handed that over may have handed over both.

    Args:
        context: of the command, after its values are read.

    Raises:
        ConfigError: an architecture, data or a metric of the form `file.py:function` come from the file.
    """
    for name in _CODE:
        value, source = str(context.params.get(name)), context.get_parameter_source(name)
        if source is not None and source.name == "DEFAULT_MAP" and ":" in value:
            raise ConfigError(
                f"--config names code to run ({_flag(name)}: {value[:200]}), and may be somebody else's. If that "
                f"code is yours, say so: --{_flag(name)} {shlex.quote(value[:200])}"
            )


def write(context: typer.Context, path: Path, **settled: Any) -> None:
    """Write what a command was asked for, in the form that `read` takes.

    Args:
        context: of the command.
        settled: values that the command has chosen itself, by name of parameter.
        path: of the file, replaced if it is there.

    Raises:
        RunError: it cannot be written.
    """
    import yaml

    values = {**context.params, **settled}
    names = [param.name for param in context.command.params if param.name in values]
    content = {
        _flag(name): _plain(values[name])
        for name in names
        if name not in _LEFT_OUT | _TYPED and values[name] not in (None, [], ())
    }
    text = _HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    try:
        write_atomically(path, lambda place: place.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{brief(path)} cannot be written ({reason(error)}).") from error


def _options(path: Path, command: Any) -> dict[str, Any]:
    import yaml

    try:
        with path.open("rb") as file:
            raw = file.read(_LONGEST + 1)
    except OSError as error:
        raise ConfigError(f"--config {brief(path)} cannot be read ({reason(error)}).") from error
    if len(raw) > _LONGEST:
        raise ConfigError(f"--config {brief(path)} has more than {_LONGEST} bytes; it is no list of options.")
    try:
        content = yaml.safe_load(raw.decode("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"--config {brief(path)} is no YAML ({first_line(error)}).") from error
    if not isinstance(content, dict):
        raise ConfigError(f"--config {brief(path)} holds no options; write lines such as `epochs: 10`.")
    known = {_flag(param.name): param for param in command.params if param.name not in _LEFT_OUT}
    found = {}
    for name, value in content.items():
        param = known.get(_flag(name)) if isinstance(name, str) else None
        if param is not None and param.name in _TYPED:
            raise ConfigError(
                f"--config {brief(path)} cannot say {_flag(name)}, for it may be somebody else's. Give "
                f"--{_flag(name)} on the command line."
            )
        if param is None:
            near = difflib.get_close_matches(_flag(str(name)), known, 1)
            hint = f" Did you mean {near[0]}?" if near else " `snnprune optimize -h` lists them."
            raise ConfigError(f"--config {brief(path)}: {str(name)[:100]!r} is no option.{hint}")
        items = value if isinstance(value, list) else [value]
        if any(not isinstance(item, (str, int, float, bool)) for item in items) or (
            isinstance(value, list) and not getattr(param, "multiple", False)
        ):
            raise ConfigError(f"--config {brief(path)}: {name}={str(value)[:100]!r} is no value for an option.")
        found[param.name] = items if getattr(param, "multiple", False) else value
    return found


def _flag(name: str) -> str:
    """A parameter's name as it stands in the file, which is that of its option."""
    return name.replace("_", "-")


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
