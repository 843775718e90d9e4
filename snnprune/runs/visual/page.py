"""`report.html` of a run folder, with its figures as PNG beside it."""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import RunError, first_line
from ...files import file_errors, path_inside, write_atomically
from ...shown import ROWS, cut, first, largest, last
from ..judged import worth
from ..report import Report
from ..times import CONDITIONS, OPEN, digits, varies
from . import asked, html, tops
from .charts import enough, epochs_judged
from .drawings import drawings
from .material import REPORT, Material, read_material
from .render import png, style, svg
from .words import CHECKS, SERVED, STAGES, metric_of, named, plain, steps_of, trial_cell, trial_head

PAGE, PLOTS = "report.html", "plots"
_COLUMNS, _WORDS = 16, 32  # of the table of trials, and of an enumeration
_NAME, _COMMAND = 60, 4000  # characters
_BRIEF = reprlib.Repr()
_BRIEF.maxlist = _BRIEF.maxdict = _WORDS


@file_errors()
def write_page(folder: Path, report: Report | None = None) -> Path:
    """Write `report.html` and `plots/*.png` into a run folder, from the files that it holds.

    The page holds its drawings and its style, loads nothing, and takes the reader's light or dark setting.

    Args:
        folder: a finished run, or one that is about to be.
        report: its report, where that has been read already.

    Returns:
        The page.

    Raises:
        RunError: the folder holds no report, a file of it is damaged, or it cannot be written to.
    """
    material = read_material(folder, report)
    sections: list[str] = []
    images: dict[Path, bytes] = {}
    try:
        with style():
            for drawing in drawings(material):
                figure = drawing.draw()
                shown = html.figure(svg(figure, drawing.name), drawing.caption)
                sections.append(html.section(drawing.title, shown))
                images[path_inside(folder, PLOTS, f"{drawing.name}.png")] = png(figure)
        content = _page(material, sections)
    except RunError:
        raise
    except Exception as error:  # numbers from elsewhere may be too large or too far apart to be drawn
        raise RunError(
            f"{folder}: what its files hold cannot be drawn ({first_line(error)}). Take its {REPORT} as the run "
            "wrote it."
        ) from error
    page = path_inside(folder, PAGE)
    for path, data in images.items():
        write_atomically(path, lambda p, data=data: p.write_bytes(data))
    write_atomically(page, lambda p: p.write_text(content, encoding="utf-8"))
    return page


def _page(material: Material, drawn: Sequence[str]) -> str:
    report = material.report
    parts = [
        tops.header(material),
        tops.tiles(material),
        html.section(
            "Asked and got",
            html.table(("", "asked", "got"), asked.rows(material), words=True),
            *(f"<p>{html.text(sentence)}</p>" for sentence in worth(report)),
        ),
        *([] if report.latency is None else [html.section("Time", _time(report.latency))]),
        html.section("Before and after", _before_after(material)),
        *drawn,
        *_few_epochs(report),
    ]
    parts.append(html.section("Can it be trusted?", _exactness(material)))
    if report.trials:
        parts.append(html.section("Trials", *_trials(report)))
    if report.groups:
        parts.append(html.section("Groups", *_groups(report)))
    if report.kept_whole:
        groups, rest = first(report.kept_whole, ROWS, "groups")
        kept = [(k["id"], k["reason"]) for k in groups]
        table = html.table(("group", "reason"), kept, words=True)
        parts.append(html.section("Kept whole", table, html.note(rest)))
    parts.append(html.section("How it was made", _making(material)))
    return html.page(f"{tops.title(material)}: snnprune", *parts)


def _time(times: Mapping[str, Any]) -> str:
    """What was timed on what, how far it varies, and why a figure is missing."""
    spreads = [
        ("share of the dense time", "spread"),
        ("dense time", "dense_spread"),
        ("compact time", "compact_spread"),
    ]
    words = ", ".join(f"{what} {varies(times[key])}" for what, key in spreads)
    rows = [(SERVED[name], times[name]) for name in CONDITIONS]
    rows += [("spread", words), ("load of the machine", times["load"] or "not known")]
    if times["predicted_ms"] is not None:
        rows.append(("predicted by parts", digits(times["predicted_ms"], " ms")))
    text = "Both models were timed side by side, call by call, as they are served."
    if times["refused"] is not None:
        rows.append((f"why there is a {OPEN}", times["refused"]))
        text += f" What cannot be trusted is a {OPEN}."
    return f"<p>{text}</p>{html.table((), rows, words=True)}"


def _before_after(material: Material) -> str:
    rows = html.table(("", "dense", "compact", "change"), material.report.rows())
    return f"{rows}{html.note('MACs are multiply-adds for one input.')}"


def _few_epochs(report: Report) -> list[str]:
    """The metric of one or two epochs, of which there is no chart."""
    judged = epochs_judged(report.history)
    if not judged or enough(judged):
        return []
    heads = ("stage", "training step", metric_of("val", report.metric), "validation loss")
    rows = [
        (
            named(h["stage"], STAGES),
            f"{h['step']:,}",
            report.metric.text(h["val_value"]),
            "" if h.get("val_loss") is None else f"{h['val_loss']:.4f}",
        )
        for h in judged
    ]
    return [html.section("Epochs", html.table(heads, rows))]


def _exactness(material: Material) -> str:
    found = material.report.exactness
    rows = [
        (name, "not checked" if found.get(name) is None else f"{found[name]:.1e}", meaning)
        for name, meaning in CHECKS.items()
    ]
    note = "Largest difference of the outputs on real inputs, over their standard deviation."
    return f"<p>{note}</p>{html.table(('check', 'difference', 'of what'), rows, words=True)}"


def _trials(report: Report) -> list[str]:
    trials, rest = last(report.trials, ROWS, "trials")  # under a target of latency the last is the final model
    keys = dict.fromkeys(key for trial in trials for key in trial if key not in ("val_metric", "val_accuracy"))
    names, more = first(list(keys), _COLUMNS, "columns")
    heads = [trial_head(name, report.metric) for name in names]
    rows = [[trial_cell(trial, name, report.metric) for name in names] for trial in trials]
    return [html.table(heads, rows), html.note(rest), html.note(more)]


def _groups(report: Report) -> list[str]:
    groups, rest = largest(report.groups, ROWS, "groups", lambda g: g["size"])
    heads = ("group", "neurons", "kept", "share kept", "weakened", "strengthened")
    rows = [
        (
            cut(g["id"]),
            *(f"{g[name]:,}" for name in ("size", "kept")),
            f"{g['kept'] / g['size']:.1%}",
            *(f"{g[name]:,}" for name in ("weakened", "strengthened")),
        )
        for g in groups
    ]
    whole = f"<details><summary>All {len(report.groups):,} groups in numbers</summary>{html.table(heads, rows)}"
    return [f"{whole}{html.note(rest)}</details>"]


def _making(material: Material) -> str:
    report = material.report
    versions = ", ".join(
        f"{cut(name, _NAME)} {cut(value, _NAME)}"
        for name, value in itertools.islice(report.versions.items(), _WORDS)
    )
    command = f"<pre>{html.text(report.command, _COMMAND)}</pre>" if report.command else ""
    chosen, rest = first(list(_options(report.config)), ROWS, "options")
    table = html.table((), [(name, _cell(value)) for name, value in chosen], words=True)
    options = f"<details><summary>All options</summary>{table}{html.note(rest)}</details>" if chosen else ""
    lines = [f"Training steps: {steps_of(report.steps)}."] if report.steps else []
    lines.append(f"Seed {report.seed}. Versions: {versions}.")
    return f"{command}{''.join(f'<p>{html.text(line, _COMMAND)}</p>' for line in lines)}{options}"


def _options(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Options by name, those of a group behind the group's name; a run of before 0.2 has no groups."""
    for name, value in config.items():
        if name in ("search", "recovery", "serving") and isinstance(value, dict):
            yield from ((f"{name}.{inner}", one) for inner, one in value.items())
        else:
            yield name, value


def _cell(value: object) -> str:
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, (dict, list)):  # of which the text could be as long as a file
        return _BRIEF.repr(value)
    return plain(value)
