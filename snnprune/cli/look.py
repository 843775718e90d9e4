"""The commands that look at results: inspect, evaluate, compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import parse
from .data import DataOptions, load_splits
from .gather import gathered
from .options import (
    DEFAULT,
    Arch,
    Classes,
    Data,
    Device,
    Floor,
    ImageSize,
    Json,
    ModelFile,
    Network,
    OwnMetric,
    Patterns,
    RoundTo,
)
from .progress import Display
from .show import console, emit, say, scripted, show_groups, summary
from .tables import columns, show_table

if TYPE_CHECKING:
    from ..analysis.inspecting import Inspection


@gathered
def inspect(
    model: ModelFile,
    network: Network,
    patterns: Patterns,
    target: Annotated[str | None, typer.Option(help="macs=SHARE or params=SHARE, to see what it leaves")] = None,
    floor: Floor = DEFAULT.floor,
    round_to: RoundTo = DEFAULT.round_to,
    as_json: Json = False,
) -> None:
    """List what can be pruned, what cannot and why, and what a target would leave."""
    from ..analysis.inspecting import inspect_model

    goal = None if target is None else parse.target(target)
    with scripted(as_json):
        display = Display()
        with display.running():
            display.stage("load")
            opened = network.open(model)
            display.stage("trace")
            found = inspect_model(
                opened,
                image_size=network.image_size,
                **patterns.all,
                target=goal,
                floor=floor,
                round_to=round_to,
            )
        if as_json:
            emit({"model": str(model), **found.to_dict()})
        _tell(found, floor)


def _tell(found: Inspection, floor: float) -> None:
    from ..errors import TargetError

    show_groups(found.groups, found.shares)
    say(f"input {tuple(found.input_shape)}, {found.macs:,} MACs, {found.params:,} params")
    if found.guessed:
        say("the size of the images was found by trying; give --image-size if it is another")
    if found.nonzero < 0.9 * found.params:
        say(
            f"only {found.nonzero:,} params are not 0: they keep their places here and cost as many MACs; "
            "pruning neurons fills such gaps while it trains"
        )
    say(f"layers that can lose neurons: {found.reach['macs']:.1%} of MACs, {found.reach['params']:.1%} of params")
    for metric, share in found.least.items():
        say(f"smallest {metric} target with {floor:.0%} of every group kept: {metric}={share:.3f}")
    if found.allowed:
        start, low, high = (found.allowed[name] for name in ("start", "cheapest", "dearest"))
        shares = ", ".join(f"{share:.1%} of {metric}" for metric, share in start.items())
        say(f"cut to the target in the order of the norms: {shares}")
        other = max(("macs", "params"), key=lambda metric: high[metric] - low[metric])
        say(f"by which neurons go, the target leaves from {low[other]:.1%} to {high[other]:.1%} of {other}")
    if found.trouble:
        raise TargetError(found.trouble)


@gathered
def evaluate(
    model: Annotated[Path, typer.Argument(help="run folder, model file or .onnx")],
    data: Data,
    network: Network,
    asked: DataOptions,
    metric: OwnMetric = None,
    limit: Annotated[int | None, typer.Option(help="test images at most, as many of each class", min=1)] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Accuracy of a run, a model file or an ONNX file on a test set, or a metric of your own."""
    from ..analysis.evaluating import evaluator, recorded_in
    from ..data import some

    where, own = parse.device(device), parse.metric(metric)
    with scripted(as_json):
        display = Display()
        with display.running():
            display.stage("load")
            opened, measure = evaluator(model, **network.opening, device=where, metric=own)
            recorded = opened if opened is not None else recorded_in(model)
            test = load_splits(data, recorded, display, network, asked).test
            if limit is not None:
                test = some(test, limit)
            display.stage("test")
            result = measure(test)
        if as_json:
            emit({"model": str(model), "data": data, **result.to_dict()})
        loss = "" if result.loss is None else f", loss {result.loss:.4f}"
        figures = f"{result.metric.name} {result.metric.text(result.value)}{loss}"
        low, high = map(result.metric.text, result.interval or (0.0, 0.0))
        sure = f" (95 % interval: {low} to {high})" if result.interval else ""
        say(f"{model}: {figures} on {result.count} test images of {data}{sure}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="run folders")],
    html: Annotated[
        Path | None, typer.Option(help="also write a page; for one run by default its own report.html")
    ] = None,
    arch: Arch = None,
    num_classes: Classes = None,
    image_size: ImageSize = None,
    as_json: Json = False,
) -> None:
    """Runs side by side; of one run all there is, and its page drawn anew.

    Of folders that snnprune.save wrote, the costs of the model before and after; --arch and what follows are
    only for those.
    """
    from ..analysis.comparing import report_of
    from ..runs.times import marks
    from ..runs.visual import comparison, head, write_comparison, write_page
    from ..runs.visual.material import REPORT

    found = [
        (str(path), report_of(path, arch=arch, num_classes=num_classes, image_size=image_size)) for path in runs
    ]
    with scripted(as_json):
        if as_json:
            emit([{"run": name, **report.to_dict()} for name, report in found])
        if len(found) == 1 and not as_json:
            summary(found[0][1], runs[0])
        else:
            heads = columns(*head(found), text=["data", "target", "metric"])
            show_table(console, heads, comparison(found))
            for sentence in marks([report.latency for _, report in found])[1]:
                say(sentence)
        bare = [path for path in runs if not (path / REPORT).is_file()]
        for path in bare:
            say(f"{path} holds no {REPORT}: what its groups lost and how good it is was not written down")
        if len(found) == 1 and html is None and not bare:
            say(f"wrote {write_page(runs[0], found[0][1])}")
        elif html is not None:
            say(f"wrote {write_comparison(found, html)}")
