"""`report.html` of a run folder, with its figures as PNG beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RunError, first_line
from ..files import file_errors, write_atomically
from . import figures, html
from .material import Material, read_material
from .render import png, style, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, PLOTS = "report.html", "plots"


@file_errors()
def write_page(folder: Path) -> Path:
    """Write `report.html` and `plots/*.png` into a run folder, from the files that it holds.

    The page holds its drawings and its style, loads nothing, and takes the reader's light or dark setting.

    Args:
        folder: a finished run, or one that is about to be.

    Returns:
        The page.

    Raises:
        RunError: the folder holds no report, a file of it is damaged, or it cannot be written to.
    """
    material = read_material(folder)
    drawings: dict[str, str] = {}
    images: dict[str, bytes] = {}
    try:
        with style():
            for name, draw in _figures(material):
                figure = draw()
                drawings[name], images[name] = svg(figure, name), png(figure)
        content = _page(material, drawings)
    except Exception as error:  # a report from elsewhere may hold anything in its history
        raise RunError(f"{folder}: what its files hold cannot be drawn ({first_line(error)}).") from error
    for name, data in images.items():
        write_atomically(folder / PLOTS / f"{name}.png", lambda p, data=data: p.write_bytes(data))
    write_atomically(folder / PAGE, lambda p: p.write_text(content, encoding="utf-8"))
    return folder / PAGE


def _figures(material: Material) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Names and drawings of what there is material for."""
    report = material.report
    if report.groups:
        yield "groups", lambda: figures.group_bars(report.groups)
    accuracy = any(h.get("val_accuracy") is not None for h in report.history)
    if report.curve or accuracy:
        a, b = report.dense, report.compact
        alive = b.params if b.nonzero is None else b.nonzero
        kept = {"macs": b.macs / a.macs, "params": alive / a.params}
        yield "course", lambda: figures.course(report.curve, report.history, report.steps, kept)
    if sum("counts" in h for h in report.history) > 1:  # one epoch's are those of the groups
        sizes = {g["id"]: g["size"] for g in report.groups}
        yield "counts", lambda: figures.counts(report.history, sizes)
    if material.scales:
        yield "scales", lambda: figures.histograms(material.scales, [g["id"] for g in report.groups])
    pixels = material.pixels()
    if pixels is not None:
        group, shape = pixels
        yield "pixels", lambda: figures.pixel_map(material.scales[group], shape)
    if {"input"} < set(material.pictures):
        yield "maps", lambda: figures.feature_maps(material.pictures)


_SECTIONS = {
    "groups": (
        "Neurons by group",
        "Share of every group's neurons that was removed, weakened (scale below 1) and strengthened.",
    ),
    "course": (
        "Course of the run",
        "Over the training steps: the search, then the recovery. The share of the cost is what the budget allows "
        "in the search, and what the compact model has in the recovery.",
    ),
    "counts": ("Counts per epoch of the search", "How many neurons of a group were off, weakened, strengthened."),
    "scales": (
        "Scales",
        "Distribution of the scales at compaction. The grey bar is those of exactly 0; single inputs "
        "that go with their channel are not among them.",
    ),
    "pixels": ("Inputs", "Which values of the input are still read, and their scales."),
    "maps": (
        "Feature maps",
        "What kernels make of one input before the search: pruned against strengthened ones.",
    ),
}


def _page(material: Material, drawings: dict[str, str]) -> str:
    report = material.report
    parts = [_header(material), _tiles(material), html.section("Before and after", _before_after(material))]
    for name, (title, caption) in _SECTIONS.items():
        if name in drawings:
            parts.append(html.section(title, html.figure(drawings[name], caption)))
    parts.append(html.section("Can it be trusted?", _exactness(material)))
    if report.trials:
        names = list(dict.fromkeys(key for trial in report.trials for key in trial))
        rows = [[_cell(trial.get(name)) for name in names] for trial in report.trials]
        parts.append(html.section("Trials", html.table(names, rows)))
    if report.kept_whole:
        kept = [(k["id"], k["reason"]) for k in report.kept_whole]
        parts.append(html.section("Kept whole", html.table(("group", "reason"), kept, words=True)))
    parts.append(html.section("How it was made", _making(material)))
    return html.page(f"{material.name}: snnprune", *parts)


def _header(material: Material) -> str:
    report = material.report
    goal = "free mode" if report.target is None else ", ".join(f"{k}={v:g}" for k, v in report.target.items())
    line = f"{report.data} · target {goal} · seed {report.seed} · {report.seconds:.0f} s on {report.device}"
    return f'<h1>{html.text(material.name)}</h1><p class="dim">{html.text(line)}</p>'


def _tiles(material: Material) -> str:
    a, b = material.report.dense, material.report.compact
    tiles = []
    if a.accuracy is not None and b.accuracy is not None:
        change = 100 * (b.accuracy - a.accuracy)
        tiles.append((f"{b.accuracy:.2%}", f"{material.report.split} accuracy, {change:+.2f} points"))
    tiles.append((f"{b.macs / a.macs:.1%}", "of the MACs kept"))
    tiles.append((f"{b.params / a.params:.1%}", "of the parameters kept"))
    if b.nonzero is not None:
        tiles.append((f"{b.nonzero / a.params:.1%}", "of the parameters are not 0"))
    inner = "".join(f'<div class="tile"><b>{html.text(x)}</b>{html.text(what)}</div>' for x, what in tiles)
    return f'<div class="tiles">{inner}</div>'


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
    stages = ", ".join(f"{name} {count}" for name, count in report.steps.items())
    versions = ", ".join(f"{name} {value}" for name, value in report.versions.items())
    command = f"<pre>{html.text(report.command)}</pre>" if report.command else ""
    rows = [(name, _cell(value)) for name, value in report.config.items()]
    options = (
        f"<details><summary>All options</summary>{html.table((), rows, words=True)}</details>" if rows else ""
    )
    lines = [f"Training steps: {stages}."] if stages else []
    lines.append(f"Versions: {versions}.")
    return f"{command}{''.join(f'<p>{html.text(line)}</p>' for line in lines)}{options}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
