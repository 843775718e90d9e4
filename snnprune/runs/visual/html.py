"""The frame of a page: head, style, tables. Every text is escaped here."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Sequence

from ...shown import cut

_CELL, _SHORT = 300, 4  # characters, and columns that there is room for anywhere
_CSS = """
:root { color-scheme: light dark;
  --ink: #1f2a37; --dim: #5b6673; --paper: #fff; --card: #f5f7f9; --line: #d9dee4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --dim: #9aa5b1; --paper: #14181d; --card: #1c2229; --line: #343d47; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 54rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; line-height: 1.3; margin: 0 0 .2rem; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .3rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
.dim { color: var(--dim); }
.facts { margin: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .8rem;
  margin: 1.2rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.5rem; font-weight: 600; line-height: 1.25; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
th, table:not(.words) td:not(:first-child) { overflow-wrap: break-word; }
.words td:first-child { min-width: 6.5rem; }
th:last-child, td:last-child { padding-right: 0; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
pre, code { font: 13px/1.5 ui-monospace, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem;
  white-space: pre-wrap; }
figure { margin: .4rem 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 44rem; margin-top: .3rem; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { color: var(--dim); max-width: 46rem; }
details { margin-top: 1rem; }
summary { cursor: pointer; }
@media (max-width: 32rem) {
  .tiles { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
  th, td { padding-right: .6rem; }
}
@media (max-width: 56rem) {
  .long, .long tbody, .long tr, .long td { display: block; }
  .long thead { display: none; }
  .long tr { padding: .4rem 0; border-bottom: 1px solid var(--line); }
  .long td, .long td:first-child { display: flex; gap: 1rem; justify-content: space-between; padding: 0;
    border: 0; text-align: right; overflow-wrap: anywhere !important; }
  .long td::before { content: attr(data-head); color: var(--dim); text-align: left;
    flex: 0 1 auto; min-width: 8rem; }
  .long td:empty { display: none; }
  .long td:first-child { font-weight: 600; }
}
""".strip()


def text(value: object, length: int = 1000) -> str:
    """Escaped, without characters that do not print, and of at most `length` of them."""
    return html.escape(cut(value, length))


def note(sentence: str) -> str:
    """What is said about a table, if anything."""
    return f'<p class="dim">{text(sentence)}</p>' if sentence else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, words: bool = False) -> str:
    """A table; the first column to the left and the others to the right, or all to the left for words.

    One of many columns becomes, where there is no room for it, a list of its rows, whose cells have the names in
    the head.
    """
    heads = [text(h, _CELL) for h in head]
    top = f"<thead><tr>{''.join(f'<th scope=col>{h}</th>' for h in heads)}</tr></thead>" if head else ""
    kinds = [kind for kind, holds in (("words", words), ("long", len(head) > _SHORT)) if holds]
    names = [f' data-head="{h}"' for h in heads] if "long" in kinds else [""] * len(heads)
    body = "".join(f"<tr>{''.join(itertools.starmap(_cell, _with(row, names)))}</tr>" for row in rows)
    marked = f' class="{" ".join(kinds)}"' if kinds else ""
    return f"<table{marked}>{top}<tbody>{body}</tbody></table>"


def _with(row: Sequence[object], names: Sequence[str]) -> Iterable[tuple[object, str]]:
    return itertools.zip_longest(row, names[: len(row)], fillvalue="")


def _cell(value: object, name: str) -> str:
    return f"<td{name}>{text(value, _CELL)}</td>"


def figure(svg: str, caption: str) -> str:
    """A drawing with what it shows, for the eye and for a screen reader."""
    head = f'<figure role="group" aria-label="{text(caption)}"><figcaption>{text(caption)}</figcaption>'
    return f"{head}{svg}</figure>"


def section(title: str, *parts: str) -> str:
    """A heading and what is under it."""
    return f"<section><h2>{text(title)}</h2>{''.join(parts)}</section>"


def page(title: str, *parts: str) -> str:
    """A whole document; it may load nothing, from anywhere."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>\n{_CSS}\n</style></head>\n<body>{''.join(parts)}</body></html>\n"
    )
