"""Entry point: runs a command and turns every failure into one line and an exit code.

0: done. 1: any failure and any bad value. 2: an unknown option or command. 130: Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence

import typer
from rich.markup import escape

from ..errors import SnnPruneError
from .app import Stopped, app
from .show import PlainConsole, visible

_LONGEST = 2000
_UNKNOWN = ("NoSuchOption", "NoSuchCommand")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if args is None else args)
    debug = bool(os.environ.get("SNNPRUNE_DEBUG"))
    console = PlainConsole(stderr=True, highlight=False, soft_wrap=True)
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
    if not debug:
        warnings.simplefilter("ignore")
    command = typer.main.get_command(app)
    try:
        result = command.main(arguments, prog_name="snnprune", standalone_mode=False)
    except SnnPruneError as error:
        if debug:
            raise
        _complain(console, str(error))
        return 1
    except (KeyboardInterrupt, Stopped) as stop:
        console.print(f"[yellow]stopped[/]{escape(f': {stop}') if str(stop) else ''}")
        return 130
    except Exception as error:
        message = getattr(error, "format_message", None)
        name = type(error).__name__
        if callable(message):  # the command-line parser's own errors
            text = str(message())
            _complain(console, text)
            return 2 if name in _UNKNOWN or text.startswith("No such command") else 1
        if debug:
            raise
        _complain(console, f"{name}: {error}. Set SNNPRUNE_DEBUG=1 to see where.")
        return 1
    return result if isinstance(result, int) else 0


def _complain(console: PlainConsole, text: str) -> None:
    rank = os.environ.get("RANK", "0")
    if rank != "0":  # one of several processes, which torchrun started
        text = f"process {rank}: {text}"
    line = visible(" ".join(text.split()))
    if len(line) > _LONGEST:  # a file may hold names of any length
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    console.print(f"[red]error:[/] {escape(line)}")
