"""The command line: typer and rich, and no logic."""

from .main import main

__all__ = ["main"]
