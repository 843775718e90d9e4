"""What the user sees: lines, tables at the end of a run, JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from ..graph import NeuronGroup
from ..runs.judged import worth
from ..runs.report import Report, finite, size_of
from ..runs.times import remarks
from ..shown import ROWS, cut, first, largest, visible
from .paste import Call, completed
from .tables import Cell, Column, Styled, columns, show_table

if TYPE_CHECKING:
    from ..analysis import Plan


_WIDE = 140  # columns of tables that go into a file or a pipe; wider ones become records
_WORDS = 32  # names in one sentence
_READABLE = 2**20  # characters of JSON
BY_JSON = "--json prints all"


class PlainConsole(Console):
    """A console on which only this program steers the terminal.

    Names of layers, classes and files come from files of others, and may hold what moves the cursor, renames the
    window or reverses the text; every such character is shown as `?`.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as one line, wherever it stands: in a table too a line end would forge a line."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of what is printed, cleaned; what steers the terminal and ends lines is rich's own."""
        for segment in super().render(renderable, options):
            text = "\n".join(map(visible, segment.text.split("\n")))
            yield segment if segment.control else Segment(text, segment.style)


console = PlainConsole(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


@contextmanager
def scripted(as_json: bool) -> Iterator[None]:
    """With `--json` everything for people goes to stderr, so that stdout holds the JSON alone."""
    before, console.stderr = console.stderr, as_json
    try:
        yield
    finally:
        console.stderr = before


def emit(content: Any) -> None:
    """Write JSON to stdout, indented where somebody may want to read it."""
    plain = finite(content)
    text = json.dumps(plain, allow_nan=False)
    if len(text) < _READABLE:  # indenting takes ten times as long
        text = json.dumps(plain, indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")


def say(line: str, style: str | None = None) -> None:
    """One line as it is: names in it are no markup, and it is not wrapped."""
    console.print(line, style=style, markup=False, soft_wrap=True)


class Warnings(logging.Handler):
    """Shows the library's warnings while it is entered, one line each.

    Groups that fail their proof are left out: tables show them with the reason.

    Args:
        call: the command that runs, by which commands in warnings are made whole.
    """

    def __init__(self, call: Call | None = None) -> None:
        super().__init__()
        self.call = Call() if call is None else call

    def __enter__(self) -> None:
        log = logging.getLogger("snnprune")
        self.before = log.level, log.propagate
        log.setLevel(logging.WARNING)
        self.told = logging.getLogger("snnprune.registry")  # which weights were taken
        self.told.setLevel(logging.INFO)
        log.propagate = False
        log.addHandler(self)

    def __exit__(self, *_rest: object) -> None:
        log = logging.getLogger("snnprune")
        log.removeHandler(self)
        self.told.setLevel(logging.NOTSET)
        log.setLevel(self.before[0])
        log.propagate = self.before[1]

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        if record.levelno == logging.INFO and record.name.startswith("snnprune.registry"):
            say(record.getMessage())
        if record.levelno >= logging.WARNING and record.name != "snnprune.proof.verify":
            say(f"warning: {completed(record.getMessage(), self.call)}", style="yellow")


def summary(report: Report, run: Path) -> None:
    """The table at the end of a run."""
    how = f"  ({cut(report.data)}, {report.seconds:.0f} s)" if report.data else ""
    rows, onnx = report.rows(), run / "model.onnx"
    if onnx.is_file():
        rows.append(("ONNX file", "", size(onnx), ""))
    show_table(console, columns("", "dense", "compact", ""), rows, title=f"{run}{how}")
    for sentence in worth(report):
        say(sentence)
    for sentence in remarks(report.latency) if report.latency is not None else ():
        say(sentence)
    if report.groups:
        show_counts(report)
    exact = {name: report.exactness.get(name) for name in ("fold", "remove", "onnx")}
    parts = [f"{name} {value:.1e}" for name, value in exact.items() if value is not None]
    if parts:
        say(f"exactness (max difference / spread of outputs): {', '.join(parts)}")
    names, rest = first(list(report.odd_widths), _WORDS, "groups of odd widths")
    odd = ", ".join(f"{cut(name)} ({report.odd_widths[name]})" for name in names)
    if odd:
        unit = cut(report.config.get("round_to", ""))
        say(f"no multiple of {unit}, so that the target is met within 0.01: {odd}")
        say_rest(rest)
    if report.unpriced:
        names, rest = first(report.unpriced, _WORDS, "operations")
        costs = ", ".join(cut(name) for name in names)
        say(f"not in the MACs, because what they cost is unknown: {costs}")
        say_rest(rest)
    whole = [kept for kept in report.kept_whole if kept["reason"] != "it is an output of the model"]
    whole, rest = first(whole, ROWS, "groups kept whole")
    for kept in whole:
        say(f"kept whole: {cut(kept['id'])}: {cut(kept['reason'])}", style="dim")
    say_rest(rest)


def show_plan(plan: Plan, call: Call) -> None:
    """What a run would start from and take; `call` asked for it."""
    say("the cut that the search would start from:")
    widths, rest = largest(list(plan.widths.items()), ROWS, "groups", lambda entry: entry[1][0], BY_JSON)
    rows = [(cut(name), str(size), f"{kept} ({kept / size:.0%})") for name, (size, kept) in widths]
    show_table(console, columns("group", "size", "kept"), rows)
    say_rest(rest)
    timed = f", and takes {plan.start['latency']:.1%} of the time" if "latency" in plan.start else ""
    say(f"it keeps {plan.start['macs']:.1%} of the MACs and {plan.start['params']:.1%} of the params{timed}")
    for metric, share in plan.least.items():
        say(f"targets within reach: {metric} from {share:.3f} to 1")
    stages = ", ".join(f"{name} {count}" for name, count in plan.steps.items() if count)
    times = f"{plan.trials} times " if plan.trials > 1 else ""
    say(f"training steps: {times}{stages}")
    say(
        f"time: about {_duration(plan.seconds['in all'])} of learning on {plan.device}, if nothing else runs there"
    )
    say(f"memory of a search step: about {size_of(plan.memory)}")
    for note in plan.notes:
        say(completed(note, call))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def show_counts(report: Report) -> None:
    """Print kept, weakened and strengthened neurons per group."""
    groups, rest = largest(report.groups, ROWS, "groups", lambda g: g["size"])
    rows = []
    for g in groups:
        kept = f"{g['kept']} ({g['kept'] / g['size']:.0%})"
        rows.append((cut(g["id"]), str(g["size"]), kept, str(g["weakened"]), str(g["strengthened"])))
    show_table(console, columns("group", "size", "kept", "weakened", "strengthened"), rows)
    say_rest(rest)


def show_groups(groups: Sequence[NeuronGroup], shares: dict[str, tuple[float, float]]) -> None:
    """Print the groups of a model, with what each one's removal would save at most."""
    heads = [*columns("group", "kind", "neurons", "layers", "MACs", "params", text=["kind"])]
    rows: list[tuple[Cell, ...]] = []
    groups, rest = largest(groups, ROWS, "groups", lambda g: g.size, BY_JSON)
    for g in groups:
        macs, params = shares.get(g.id, (0.0, 0.0))
        state = cut(g.note) if g.prunable else Styled(f"kept: {cut(g.reason)}", "yellow")
        cost = (f"{macs:.1%}", f"{params:.1%}") if g.prunable else ("", "")
        kind = "heads" if g.heads else g.kind
        rows.append((cut(g.id), kind, str(g.size), str(len(g.members)), *cost, state))
    show_table(console, [*heads, Column("", sentence=True)], rows)
    say_rest(rest)


def say_rest(sentence: str) -> None:
    """What is said about a list that was cut short, if it was."""
    if sentence:
        say(sentence)


def size(path: Path) -> str:
    """Size of a file for humans."""
    return size_of(path.stat().st_size)
