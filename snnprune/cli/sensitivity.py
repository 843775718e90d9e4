"""`snnprune sensitivity`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from . import parse
from .data import DataOptions, load_splits
from .gather import gathered
from .options import DEFAULT, Data, Device, Floor, Json, ModelFile, Network, OwnMetric, Patterns, RoundTo
from .progress import Display
from .show import BY_JSON, console, emit, say, say_rest, scripted
from .tables import columns, show_table


@gathered
def sensitivity(
    model: ModelFile,
    data: Data,
    network: Network,
    asked: DataOptions,
    patterns: Patterns,
    cost: Annotated[str, typer.Option(help="of the whole model's curve: macs or params")] = "macs",
    metric: OwnMetric = None,
    limit: Annotated[int, typer.Option(help="validation images to measure on, in whole batches")] = 1000,
    device: Device = "auto",
    floor: Floor = 0.1,
    round_to: RoundTo = DEFAULT.round_to,
    time: Annotated[
        bool, typer.Option("--time", help="also time the cuts of the whole model in ONNX Runtime, seconds each")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="also write a page with the curves")] = None,
    as_json: Json = False,
) -> None:
    """Accuracy, or your own metric, against the kept share of every group and of all, before any training."""
    from ..analysis import sensitivity as measure
    from ..budget import COUNTED, Counted
    from ..errors import ConfigError
    from ..options import checked
    from ..runs.times import served_by, speed_up
    from ..runs.visual import write_sensitivity
    from ..shown import ROWS, cut, largest

    if metric in COUNTED:  # until 0.3
        typer.echo(
            f"warning: --metric {metric} is now --cost {metric}; as it was it is taken until 0.3.", err=True
        )
        cost, metric = str(metric), None
    where, own = parse.device(device), parse.metric(metric)
    if limit < 1:
        raise ConfigError(f"--limit {limit} must be at least 1.")
    with scripted(as_json):
        display = Display()
        with display.running():
            display.stage("load")
            opened = network.open(model)
            splits = load_splits(data, opened, display, network, asked)
            display.stage("trace")
            val = list(itertools.islice(splits.val, max(1, -(-limit // asked.batch_size))))
            found = measure(
                opened.model.to(where),
                val,
                cost=checked("cost", cost, Counted),
                metric=own,
                **patterns.all,
                floor=floor,
                round_to=round_to,
                batches=list(itertools.islice(splits.train, 4)),
                time=time,
                on_step=display.cuts,
            )
        if as_json:
            emit({"model": str(model), "data": data, **found.to_dict()})
        text = found.metric.text
        shares = [point["kept"] / found.groups[0]["size"] for point in found.groups[0]["points"]]
        heads = columns("group", "neurons", *(f"{share:.0%} kept" for share in shares))
        groups, rest = largest(found.groups, ROWS, "groups", lambda group: group["size"], BY_JSON)
        rows = [
            (cut(group["id"]), str(group["size"]), *(text(point["value"]) for point in group["points"]))
            for group in groups
        ]
        show_table(console, heads, rows, title=f"{model}: {found.metric.name} without recovery")
        say_rest(rest)
        say(f"dense: {text(found.value)} on {found.count} validation images of {data}")
        for point in found.whole:
            fast = f", {speed_up(point, spread=True)}" if "latency" in point else ""
            say(f"all groups cut to {cost}={point[cost]:.2f}: {text(point['value'])}{fast}")
        if found.served is not None:
            say(f"timed with {served_by(found.served)}")
        for why in dict.fromkeys(point["refused"] for point in found.whole if point.get("refused")):
            say(f"not to be believed, hence ?: {why}")
        if html is not None:
            say(f"wrote {write_sensitivity(model.stem, found.to_dict(), html)}")
