"""`report.html` of a run folder, with its figures as PNG beside it."""

from __future__ import annotations

import itertools
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import RunError, first_line
from ...files import file_errors, path_inside, write_atomically
from ...shown import ROWS, cut, first, last
from ..report import Report, goal
from ..times import CONDITIONS, OPEN, digits, per_second, speed_up, varies
from . import html
from .drawings import drawings
from .material import REPORT, Material, read_material
from .render import png, style, svg

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
        _header(material),
        _tiles(material),
        *([] if report.latency is None else [html.section("Time", _time(report.latency))]),
        html.section("Before and after", _before_after(material)),
        *drawn,
    ]
    parts.append(html.section("Can it be trusted?", _exactness(material)))
    if report.trials:
        trials, rest = last(report.trials, ROWS, "trials")  # under a target of latency the last is the final model
        keys = dict.fromkeys(key for trial in trials for key in trial if key not in ("val_metric", "val_accuracy"))
        names, more = first(list(keys), _COLUMNS, "columns")
        heads = [f"val {report.metric.name}" if name == "val_value" else name for name in names]
        rows = [[_trial_cell(trial, name) for name in names] for trial in trials]
        parts.append(html.section("Trials", html.table(heads, rows), html.note(rest), html.note(more)))
    if report.kept_whole:
        groups, rest = first(report.kept_whole, ROWS, "groups")
        kept = [(k["id"], k["reason"]) for k in groups]
        table = html.table(("group", "reason"), kept, words=True)
        parts.append(html.section("Kept whole", table, html.note(rest)))
    parts.append(html.section("How it was made", _making(material)))
    return html.page(f"{material.name}: snnprune", *parts)


def _header(material: Material) -> str:
    report = material.report
    wanted = "free mode" if report.target is None else goal(report.target)
    data, device = cut(report.data), cut(report.device)
    line = f"{data} · target {wanted} · seed {report.seed} · {report.seconds:.0f} s on {device}"
    return f'<h1>{html.text(material.name)}</h1><p class="dim">{html.text(line)}</p>'


def _tiles(material: Material) -> str:
    a, b, times = material.report.dense, material.report.compact, material.report.latency
    tiles = []
    if times is not None:
        dense, compact = (digits(times[f"{model}_ms"], " ms") for model in ("dense", "compact"))
        slow, fast = (digits(per_second(times, model)) for model in ("dense", "compact"))
        batch = cut(times["batch"])
        tiles.append((speed_up(times), f"as fast, {cut(times['engine'], _NAME)} at batch size {batch}"))
        tiles.append((compact, f"a call, dense {dense}"))
        tiles.append((fast, f"inputs a second, dense {slow}"))
    if a.value is not None and b.value is not None:
        metric = material.report.metric
        what = f"{cut(material.report.split, _NAME)} {cut(metric.name, _NAME)}"
        tiles.append((metric.text(b.value), f"{what}, {metric.change(a.value, b.value)}"))
    tiles.append((f"{b.macs / a.macs:.1%}", "of the MACs kept"))
    tiles.append((f"{b.params / a.params:.1%}", "of the parameters kept"))
    if b.nonzero is not None:
        tiles.append((f"{b.nonzero / a.params:.1%}", "of the parameters are not 0"))
    inner = "".join(f'<div class="tile"><b>{html.text(x)}</b>{html.text(what)}</div>' for x, what in tiles)
    return f'<div class="tiles">{inner}</div>'


def _time(times: Mapping[str, Any]) -> str:
    """What was timed on what, how far it varies, and why a figure is missing."""
    spreads = [
        ("share of the dense time", "spread"),
        ("dense time", "dense_spread"),
        ("compact time", "compact_spread"),
    ]
    words = ", ".join(f"{what} {varies(times[key])}" for what, key in spreads)
    rows = [(name, times[name]) for name in CONDITIONS]
    rows += [("spread", words), ("load", times["load"] or "not known")]
    if times["predicted_ms"] is not None:
        rows.append(("predicted by parts", digits(times["predicted_ms"], " ms")))
    if times["refused"] is not None:
        rows.append(("why there is a ?", times["refused"]))
    text = "Both models were timed side by side, call by call, as they are served. What cannot be trusted is a ?."
    return f"<p>{text}</p>{html.table((), rows, words=True)}"


def _before_after(material: Material) -> str:
    return html.table(("", "dense", "compact", "change"), material.report.rows())


def _exactness(material: Material) -> str:
    meanings = {
        "fold": "scales folded into weights against the model with gates, float64",
        "remove": "neurons removed against the model with gates, float64",
        "onnx": "ONNX Runtime against PyTorch, final model, float32",
    }
    found = material.report.exactness
    rows = [
        (name, "not checked" if found.get(name) is None else f"{found[name]:.1e}", meaning)
        for name, meaning in meanings.items()
    ]
    note = "Largest difference of the outputs on real inputs, over their standard deviation."
    return f"<p>{note}</p>{html.table(('check', 'difference', 'of what'), rows, words=True)}"


def _making(material: Material) -> str:
    report = material.report
    steps, versions = (
        ", ".join(
            f"{cut(name, _NAME)} {cut(value, _NAME)}" for name, value in itertools.islice(table.items(), _WORDS)
        )
        for table in (report.steps, report.versions)
    )
    command = f"<pre>{html.text(report.command, _COMMAND)}</pre>" if report.command else ""
    chosen, rest = first(list(_options(report.config)), ROWS, "options")
    table = html.table((), [(name, _cell(value)) for name, value in chosen], words=True)
    options = f"<details><summary>All options</summary>{table}{html.note(rest)}</details>" if chosen else ""
    lines = [f"Training steps: {steps}."] if steps else []
    lines.append(f"Versions: {versions}.")
    return f"{command}{''.join(f'<p>{html.text(line, _COMMAND)}</p>' for line in lines)}{options}"


def _options(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Options by name, those of a group behind the group's name; a run of before 0.2 has no groups."""
    for name, value in config.items():
        if name in ("search", "recovery") and isinstance(value, dict):
            yield from ((f"{name}.{inner}", one) for inner, one in value.items())
        else:
            yield name, value


def _trial_cell(trial: Mapping[str, Any], name: str) -> str:
    refused = trial.get("refused") is not None and name in ("latency", "dense_ms", "compact_ms")
    return OPEN if refused and trial.get(name) is None else _cell(trial.get(name))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, (dict, list)):  # of which the text could be as long as a file
        return _BRIEF.repr(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
