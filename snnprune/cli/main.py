"""Entry point: runs a command and turns every failure into one line and an exit code.

0: done. 1: any failure and any bad value. 2: an unknown option or command. 130: Ctrl-C. 143: SIGTERM, which
stops a run like Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from ..errors import SnnPruneError
from ..files import brief, reason
from ..shown import cut
from .app import Stopped, app
from .paste import Call, completed
from .show import PlainConsole, Warnings

_LONGEST = 2000
_AGAIN = 10.0  # seconds after which a further SIGTERM counts
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
    command, call = typer.main.get_command(app), Call(arguments)
    terminated: list[float] = []
    try:
        with _terminable(terminated), Warnings(call):
            result = command.main(arguments, prog_name="snnprune", standalone_mode=False, obj=call)
    except SnnPruneError as error:
        if debug:
            raise
        _complain(console, completed(str(error), call))
        return 1
    except (KeyboardInterrupt, Stopped) as stop:
        said = str(stop)
        how = f"{': ' if said[0].islower() else '. '}{said}" if said else ""
        console.print(f"[yellow]stopped[/]{escape(how)}")
        return 143 if terminated else 130
    except SystemExit as error:  # of a user's own code: commands return, and end nothing
        if arguments[:1] in (["--show-completion"], ["--install-completion"]):  # which end so
            return 0 if error.code is None else int(error.code)
        if debug:
            raise
        told = f" ({error})" if isinstance(error.code, str) else ""
        _complain(
            console,
            f"code that the command runs has ended it by sys.exit{told}, so it is not done. Take that call out.",
        )
        return 1
    except BaseException as error:
        message = getattr(error, "format_message", None)
        name = type(error).__name__
        if callable(message):  # the command-line parser's own errors
            text = " ".join(str(message()).split())
            _complain(console, text)
            return 2 if name in _UNKNOWN or text.startswith("No such command") else 1
        if debug:
            raise
        if isinstance(error, OSError) and error.filename is not None:
            path = brief(Path(os.fsdecode(error.filename)))
            _complain(console, f"{path} cannot be read or written ({reason(error)}).")
            return 1
        _complain(console, f"{name}: {' '.join(str(error).split())}. Set SNNPRUNE_DEBUG=1 to see where.")
        return 1
    return result if isinstance(result, int) else 0


@contextmanager
def _terminable(terminated: list[float]) -> Iterator[None]:
    """SIGTERM, as schedulers send it, stops a command like Ctrl-C; when it came is noted in `terminated`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: Any) -> None:
        # A second one must not disturb the writing of the checkpoint. But where the first came in a callback of
        # Python's own, such as that of a weak reference, it was lost.
        now = time.monotonic()
        if not terminated or now - terminated[-1] > _AGAIN:
            terminated.append(now)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is stop:  # one of several processes may have to survive its last words
            signal.signal(signal.SIGTERM, before)


def _complain(console: PlainConsole, text: str) -> None:
    rank = os.environ.get("RANK", "0")
    if rank != "0":  # one of several processes, which torchrun started
        text = f"process {rank}: {text}"
    # A file may hold names of any length, with line ends that would forge another message.
    console.print(f"[red]error:[/] {escape(cut(text, _LONGEST))}")
