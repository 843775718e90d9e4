"""`snnprune doctor`."""

from __future__ import annotations

import typer

from .options import Json
from .show import emit, say, scripted


def doctor(as_json: Json = False) -> None:
    """Try what the commands need on this machine, and name the cure for what is wrong."""
    from ..doctor import examine, healthy, plain

    with scripted(as_json):
        findings = examine()
        if as_json:
            emit(plain(findings))
        for finding in findings:
            style = {"ok": None, "warning": "yellow", "wrong": "red"}[finding.state]
            say(f"{finding.state:<8}{finding.what}: {finding.found}", style=style)
            if finding.cure:
                say(f"{'':8}{finding.cure}")
    if not healthy(findings):
        raise typer.Exit(1)
