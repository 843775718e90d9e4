"""The frame of a page: head, style, tables. Every text is escaped here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from ...shown import cut

_CELL = 300  # characters
_CSS = """
:root { color-scheme: light dark;
  --ink: #1f2a37; --dim: #5b6673; --paper: #fff; --card: #f5f7f9; --line: #d9dee4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --dim: #9aa5b1; --paper: #14181d; --card: #1c2229; --line: #343d47; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .3rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
.dim { color: var(--dim); }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.tile { flex: 1 1 9rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.5rem; font-weight: 600; line-height: 1.25; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
.words td { min-width: 5rem; overflow-wrap: anywhere; }
pre, code { font: 13px/1.5 ui-monospace, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
figure { margin: .4rem 0; }
figure svg { display: block; width: 100%; height: auto; min-width: 34rem; max-width: 56rem; }
figcaption { color: var(--dim); }
details { margin-top: 1rem; }
summary { cursor: pointer; }
""".strip()


def text(value: object, length: int = 1000) -> str:
    """Escaped, without characters that do not print, and of at most `length` of them."""
    return html.escape(cut(value, length))


def note(sentence: str) -> str:
    """What is said about a table, if anything."""
    return f'<p class="dim">{text(sentence)}</p>' if sentence else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, words: bool = False) -> str:
    """A table; the first column to the left and the others to the right, or all to the left for words."""
    top = (
        f"<thead><tr>{''.join(f'<th scope=col>{text(h, _CELL)}</th>' for h in head)}</tr></thead>" if head else ""
    )
    body = "".join(f"<tr>{''.join(f'<td>{text(cell, _CELL)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table{" class=words" if words else ""}>{top}<tbody>{body}</tbody></table></div>'


def figure(svg: str, caption: str) -> str:
    """A drawing with what it shows, for the eye and for a screen reader."""
    head = f'<figure role="group" aria-label="{text(caption)}"><figcaption>{text(caption)}</figcaption>'
    return f'{head}<div class="wide">{svg}</div></figure>'


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
