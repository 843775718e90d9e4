"""`snnprune contest`."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from . import parse
from .data import DataOptions, load_splits
from .gather import gathered
from .options import (
    DEFAULT,
    Augment,
    Data,
    Device,
    Floor,
    Json,
    ModelFile,
    Network,
    OwnMetric,
    Patterns,
    RoundTo,
    of,
)
from .paste import Call, going_on
from .progress import Display
from .show import console, emit, say, scripted
from .tables import columns, show_table


@gathered
def contest(
    context: typer.Context,
    model: ModelFile,
    data: Data,
    network: Network,
    asked: DataOptions,
    patterns: Patterns,
    methods: Annotated[
        str | None,
        typer.Option(
            help="who takes part, with commas: ours, free, norm, dense (not cut, trained on), and torch-pruning's "
            "random, l1, l2, lamp, fpgm, taylor, hessian, bn-scale; as they are also bn-sparse, group-sparse, "
            "growing, l2-iterative, taylor-iterative; or all. lamp:global is one of its two scopes alone",
            show_default="ours,free,norm,l2,lamp,taylor",
        ),
    ] = None,
    our_surgery: Annotated[
        bool, typer.Option("--our-surgery", help="torch-pruning's order, our threshold and surgery (the default)")
    ] = False,
    as_they_are: Annotated[
        bool, typer.Option("--as-they-are", help="torch-pruning's own pruner, where it can build the network")
    ] = False,
    both: Annotated[bool, typer.Option("--both", help="its criteria in both ways")] = False,
    seeds: Annotated[int, typer.Option(help="runs of every method, from --seed on")] = 3,
    target: Annotated[str, typer.Option(help="macs=SHARE or params=SHARE to keep, of every run")] = "macs=0.5",
    metric: OwnMetric = None,
    epochs: Annotated[float, of("epochs")] = DEFAULT.epochs,
    lr: Annotated[float, of("lr")] = DEFAULT.lr,
    distill: Annotated[
        bool, typer.Option("--distill/--no-distill", help="all learn from the original model too")
    ] = True,
    output: Annotated[Path | None, typer.Option(help="folder; default runs/<model>-contest-<date>-<time>")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with --output, also with more methods or seeds")
    ] = False,
    augment: Augment = "auto",
    limit: Annotated[int | None, typer.Option(help="use only so many training images")] = None,
    device: Device = "auto",
    seed: Annotated[int, of("seed")] = DEFAULT.seed,
    floor: Floor = DEFAULT.floor,
    round_to: RoundTo = DEFAULT.round_to,
    precision: Annotated[str, of("precision")] = DEFAULT.precision,
    time: Annotated[
        bool, typer.Option("--time/--no-time", help="time every result beside the dense model, seconds each")
    ] = True,
    as_json: Json = False,
) -> None:
    """Ours against norms and torch-pruning's criteria on your model and data, at equal steps and recovery."""
    from ..learner import PruneConfig
    from ..rivals import DEFAULT as METHODS
    from ..rivals import PAGE
    from ..rivals import contest as hold

    ways = _ways(our_surgery, as_they_are, both)
    config = PruneConfig(
        target=parse.target(target),
        epochs=epochs,
        lr=lr,
        distill=DEFAULT.distill if distill else 0.0,
        seed=seed,
        **patterns.all,
        round_to=round_to,
        precision=precision,  # type: ignore[arg-type]  # checked by the config
        floor=floor,
    )
    named = METHODS if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    where, own, call = parse.device(device), parse.metric(metric), context.obj or Call()
    folder = _folder(model, output, resume=resume)
    with scripted(as_json):
        display = Display(percent=own is not None and own.info.percent)
        try:
            with display.running():
                display.stage("load")
                opened = network.open(model)
                more = {"augment": augment, "limit": limit, "seed": seed}
                splits = load_splits(data, opened, display, network, asked, **more)
                found = hold(
                    opened.model.to(where),
                    splits.train,
                    splits.val,
                    config,
                    methods=named,
                    ways=ways,  # type: ignore[arg-type]
                    seeds=seeds,
                    test=splits.test,
                    metric=own,
                    time=time,
                    callbacks=[display],
                    folder=folder,
                    resume=resume,
                    data_name=data,
                    command=shlex.join(["snnprune", *call.arguments]),
                )
        except KeyboardInterrupt as stop:
            if not _kept(folder):
                raise
            raise type(stop)(f"{stop} Go on with: {going_on(call, folder)}".strip()) from None
        _show(found, model)
        if as_json:
            emit({"contest": str(folder), **found.to_dict()})
        say(f"wrote {folder} with its page {PAGE}")


def _ways(our_surgery: bool, as_they_are: bool, both: bool) -> str:
    """The one of three switches that was given.

    Raises:
        ConfigError: two of them.
    """
    from ..errors import ConfigError

    if our_surgery + as_they_are + both > 1:
        raise ConfigError(
            "--our-surgery, --as-they-are and --both are three ways of one contest; give one of them."
        )
    return "both" if both else "as-they-are" if as_they_are else "our-surgery"


def _folder(model: Path, output: Path | None, *, resume: bool) -> Path:
    """Where the contest is kept.

    Raises:
        RunError: it holds something else, or there is nothing to go on with.
    """
    from ..errors import RunError

    if output is None:
        if resume:
            raise RunError("--resume goes on with the contest in --output; name its folder.")
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        return Path("runs") / f"{(model.stem or model.name)[:100]}-contest-{stamp}"
    if resume and not _kept(output):
        raise RunError(f"there is nothing to go on with: {output} holds no contest. Leave out --resume to begin.")
    if not resume and output.exists():
        raise RunError(f"{output} exists already. Choose another --output, or go on with a contest by --resume.")
    return output


def _kept(folder: Path) -> bool:
    """Whether there is a contest to go on with."""
    from ..rivals import BOOK
    from ..runs.places import CHECKPOINT

    return (folder / BOOK).is_file() or (folder / CHECKPOINT).is_dir()


def _show(found: Any, model: Path) -> None:
    """The table, and what can be said of it."""
    from ..runs.report import goal

    title = f"{model}: {goal(found.target)}, {found.steps} steps a run, {found.metric.name} on {found.split} data"
    show_table(console, columns(*found.heads), found.table(), title=title)
    if found.dense.get("value") is not None:
        say(f"dense: {found.metric.text(found.dense['value'])}")
    for remark in found.remarks():
        say(remark)
    say(found.verdict)
