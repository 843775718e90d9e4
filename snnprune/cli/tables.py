"""Tables in which no name is broken: side by side where they fit, else row after row.

A name of a layer or a file that is cut by the edge of a column can be neither searched nor pasted. So a table that
is wider than the terminal is written as records: the name in a line of its own, and what belongs to it below.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..shown import visible

_INDENT = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        head: its title; empty where values say themselves what they are.
        text: whether it holds words, which stand left; numbers stand right.
        sentence: whether it holds sentences, which may be wrapped between words.
    """

    head: str
    text: bool = False
    sentence: bool = False


@dataclass(frozen=True, slots=True)
class Styled:
    """A cell in a colour."""

    text: str
    style: str


Cell = str | Styled


def columns(*heads: str, text: Sequence[str] = ()) -> list[Column]:
    """Columns of these titles; those named in `text` hold words, and so does the first."""
    return [Column(head, at == 0 or head in text) for at, head in enumerate(heads)]


def show_table(console: Console, heads: Sequence[Column], rows: Sequence[Sequence[Cell]], title: str = "") -> None:
    """Print a table, or records where it is too wide.

    Args:
        console: where to.
        heads: its columns; the first one names the rows.
        rows: cells, one for each column.
        title: a line above it.
    """

    def say(line: str, style: str | None = None) -> None:
        console.print(line, style=style, markup=False, soft_wrap=True)

    if title:
        say(title, style="italic")
    plain = [[_plain(cell) for cell in row] for row in rows]
    if _width(heads, plain) <= console.width:
        console.print(_table(heads, rows))
        return
    for row, texts in zip(rows, plain, strict=True):
        say(texts[0])
        style = next((cell.style for cell in row if isinstance(cell, Styled)), None)
        for line in _below(heads[1:], texts[1:], console.width - len(_INDENT)):
            say(_INDENT + line, style=style)


def _plain(cell: Cell) -> str:
    return visible(cell.text if isinstance(cell, Styled) else cell)


def _width(heads: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    """Columns of the terminal that the table takes where nothing in it is broken."""
    widest = [max(cell_len(one.head), *(cell_len(row[at]) for row in rows), 0) for at, one in enumerate(heads)]
    return sum(widest) + 3 * len(widest) + 1


def _table(heads: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> Table:
    table = Table()
    for one in heads:
        table.add_column(escape(one.head), justify="left" if one.text or one.sentence else "right", no_wrap=True)
    for row in rows:
        cells = (f"[{c.style}]{escape(c.text)}[/]" if isinstance(c, Styled) else escape(c) for c in row)
        table.add_row(*cells)
    return table


def _below(heads: Sequence[Column], texts: Sequence[str], room: int) -> Iterator[str]:
    """Lines with what belongs to a name: pairs of title and value, then sentences; so wide if they can."""
    line = ""
    for one, text in zip(heads, texts, strict=True):
        pair = f"{one.head} {text}".strip()
        if one.sentence or not text:
            continue
        if line and cell_len(line) + 3 + cell_len(pair) > room:  # a comma at the end too
            yield line + ","
            line = ""
        line = f"{line}, {pair}" if line else pair
    if line:
        yield line
    for one, text in zip(heads, texts, strict=True):
        if one.sentence and text:
            whole = f"{one.head}: {text}" if one.head else text
            yield from textwrap.wrap(whole, max(1, room), break_long_words=False, break_on_hyphens=False)
