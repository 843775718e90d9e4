"""A report as plain text, for a terminal or a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..shown import ROWS, cut, largest
from .judged import worth
from .times import remarks

if TYPE_CHECKING:
    from .report import Report


def text_of(report: Report) -> str:
    """A table of both models, what has to be known of it, and a table of the groups."""
    rows = report.rows()
    first = max(22, *(len(row[0]) + 1 for row in rows))
    last = max(18, *(len(row[3]) + 2 for row in rows))
    lines = [f"{'':{first}}{'dense':>12}{'compact':>12}{'':>{last}}".rstrip()]
    lines += [f"{what:{first}}{x:>12}{y:>12}{change:>{last}}".rstrip() for what, x, y, change in rows]
    lines += worth(report)
    if report.latency is not None:
        lines += remarks(report.latency)
    if report.unpriced:
        lines.append(f"not in the MACs: {cut(', '.join(report.unpriced))}")
    if not report.groups:
        return "\n".join(lines)
    lines.append("")
    groups, rest = largest(report.groups, ROWS, "groups", lambda g: g["size"], "its attribute groups holds all")
    wide = max(32, *(len(cut(g["id"])) + 1 for g in groups))
    lines.append(f"{'group':{wide}}{'size':>7}{'kept':>7}{'weaker':>8}{'stronger':>9}")
    for g in groups:
        counts = f"{g['size']:>7}{g['kept']:>7}{g['weakened']:>8}{g['strengthened']:>9}"
        lines.append(f"{cut(g['id']):{wide}}{counts}")
    return "\n".join([*lines, rest] if rest else lines)
