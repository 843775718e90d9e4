"""The application: its commands, and what it does without one."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import look
from .bench import bench
from .contest import contest
from .doctor import doctor
from .export import export
from .help import add
from .optimize import optimize
from .profile import profile
from .sensitivity import sensitivity
from .show import console


class Stopped(Exception):
    """Ctrl-C, with what to tell the user."""


class Commands(TyperGroup):
    """The commands; what typer would swallow passes through under another name."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Typer turns Ctrl-C into a bare exit, and takes an end of file for a user's Ctrl-D."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Stopped(str(stop)) from None
        except EOFError as error:
            raise RuntimeError(f"a file ended too early ({error})") from error


app = typer.Typer(
    cls=Commands,
    help="Make a trained vision model smaller, exactly, and export it to ONNX.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the versions that matter, and exit")] = False,
) -> None:
    """Make a trained vision model smaller, exactly, and export it to ONNX."""
    if version:
        from ..runs.report import versions

        for name, value in versions().items():
            console.print(f"{name} {value}")
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        for line in context.get_help().splitlines():
            console.print(line)


COMMANDS = (
    optimize, contest, export, look.inspect, look.evaluate, look.compare, sensitivity, profile, bench, doctor,
)  # fmt: skip
for command in COMMANDS:
    add(app, command)
