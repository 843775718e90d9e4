"""The top of a page: what run it is, and its figures as tiles."""

from __future__ import annotations

from ...shown import cut
from ..judged import interval_of
from ..report import human, size_of
from ..times import digits, per_second, speed_up
from . import html
from .material import Material
from .words import SPLITS, duration, metric_of, named, shape_of, when

_NAME = 60  # characters
_PARTS = ("train", "val", "test")


def title(material: Material) -> str:
    """Network, data, input and date, as far as they are known, with the run's name."""
    report = material.report
    size = f"input {shape_of(material.input_shape)}" if material.input_shape else ""
    day = when(report.date).split(",")[0]
    return ", ".join(part for part in (_subject(material), size, day, material.name) if part)


def _subject(material: Material) -> str:
    """The network on the data."""
    network, data = cut(material.network, _NAME), cut(material.report.data)
    return f"{network} on {data}" if network and data else network or data or material.name


def header(material: Material) -> str:
    """The heading, and lines on what went in and how long it took."""
    report = material.report
    shape = ""
    if material.input_shape:
        names = f" ({shape_of(('channels', 'height', 'width'))})" if len(material.input_shape) == 3 else ""
        shape = f"input {shape_of(material.input_shape)}{names}"
    classes = f"{material.classes:,} classes" if material.classes else ""
    first = [shape, classes, _inputs(material)]
    second = [
        f"run {material.name}",
        when(report.date),
        f"{duration(report.seconds)} on {cut(report.device)}",
    ]
    lines = "".join(
        f'<p class="dim facts">{html.text(" · ".join(part for part in line if part))}</p>'
        for line in (first, second)
        if any(line)
    )
    return f"<h1>{html.text(_subject(material))}</h1>{lines}"


def _inputs(material: Material) -> str:
    """How many inputs each part holds, as far as it is known."""
    counts = [f"{count:,} {SPLITS[part]}" for part in _PARTS if (count := material.report.inputs.get(part))]
    return f"{_kind(material)}: {', '.join(counts)}" if counts else ""


def _kind(material: Material) -> str:
    """What the inputs are: what has channels, height and width is an image."""
    return "images" if material.input_shape and len(material.input_shape) == 3 else "inputs"


def tiles(material: Material) -> str:
    """Time first, then how good it is, costs, size and images."""
    report = material.report
    a, b, times = report.dense, report.compact, report.latency
    found: list[tuple[str, str]] = []
    if times is not None:
        dense, compact = (digits(times[f"{model}_ms"], " ms") for model in ("dense", "compact"))
        slow, fast = (digits(per_second(times, model)) for model in ("dense", "compact"))
        batch = cut(times["batch"])
        found.append((speed_up(times), f"as fast, {cut(times['engine'], _NAME)} at batch size {batch}"))
        found.append((compact, f"a call, dense {dense}"))
        found.append((fast, f"inputs a second, dense {slow}"))
    if a.value is not None and b.value is not None:
        metric, count, interval = report.metric, report.inputs.get(report.split), interval_of(report)
        of = "" if count is None else f" on {count:,} {_kind(material)}"
        sure = "" if interval is None else f" (95 %: {' to '.join(map(metric.difference, interval))})"
        what = f"{metric_of(report.split, metric)}{of}, {metric.change(a.value, b.value)}{sure}"
        found.append((metric.text(b.value), f"{what}, dense {metric.text(a.value)}"))
    found.append((f"{b.macs / a.macs:.1%}", f"of the MACs kept, {human(b.macs)} of {human(a.macs)}"))
    found.append((f"{b.params / a.params:.1%}", f"of the parameters kept, {human(b.params)} of {human(a.params)}"))
    if b.nonzero is not None:
        found.append((f"{b.nonzero / a.params:.1%}", f"of the parameters are not 0, {human(b.nonzero)}"))
    if report.stored:
        found.append((size_of(report.stored["compact"]), f"of weights, dense {size_of(report.stored['dense'])}"))
    if "train" in report.inputs:
        others = [f"{report.inputs[p]:,} for {named(p, SPLITS)}" for p in _PARTS[1:] if p in report.inputs]
        found.append((f"{report.inputs['train']:,}", ", ".join([f"{_kind(material)} to learn from", *others])))
    inner = "".join(f'<div class="tile"><b>{html.text(x)}</b>{html.text(what)}</div>' for x, what in found)
    return f'<div class="tiles">{inner}</div>'
