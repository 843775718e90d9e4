"""`snnprune optimize`."""

from __future__ import annotations

import datetime
import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import parse
from .options import (
    Arch,
    BatchSize,
    Classes,
    Data,
    DataRoot,
    Device,
    ImageSize,
    Mean,
    ModelFile,
    Std,
    Trust,
    load_splits,
)
from .show import Display, console, say, summary

if TYPE_CHECKING:
    from ..ranks import Ranks


def optimize(
    model: ModelFile,
    data: Data,
    arch: Arch = None,
    num_classes: Classes = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="macs=SHARE or params=SHARE to keep, drop=FRACTION of accuracy to lose, latency=SHARE of the "
            "dense time, or free; "
            "default macs=0.5 (params=0.5 for connections)"
        ),
    ] = None,
    granularity: Annotated[
        str, typer.Option(help="switch each neuron, or each connection of fully connected layers")
    ] = "neuron",
    epochs: Annotated[
        float, typer.Option(help="passes over the training data, search and recovery together")
    ] = 20,
    trials: Annotated[
        int | None, typer.Option(help="runs of so many epochs by which drop= is bisected", show_default="5")
    ] = None,
    lr: Annotated[float, typer.Option(help="learning rate of the network")] = 0.05,
    output: Annotated[Path | None, typer.Option(help="run folder; default runs/<model>-<date>-<time>")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with an interrupted run")] = False,
    data_root: DataRoot = Path("data"),
    mean: Mean = None,
    std: Std = None,
    image_size: ImageSize = None,
    batch_size: BatchSize = 128,
    limit: Annotated[int | None, typer.Option(help="use only so many training images")] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="of everything random", min=0, max=2**32 - 1)] = 0,
    keep: Annotated[
        list[str] | None, typer.Option(help="module names whose channels must stay, * allowed")
    ] = None,
    floor: Annotated[float, typer.Option(help="least kept share of every group")] = 0.1,
    round_to: Annotated[int, typer.Option(help="keep multiples of this many channels; 1: any number")] = 8,
    precision: Annotated[
        str, typer.Option(help="of the learning: float32, or bfloat16 (faster on recent GPUs)")
    ] = "float32",
    trust_pickle: Trust = False,
) -> None:
    """Prune a trained model and write a run folder with the verified smaller model."""
    from ..errors import ConfigError, LostRankError, RunError
    from ..files import remove_leftovers
    from ..gates import parse_drop
    from ..learner import PruneConfig
    from ..pipeline import open_model
    from ..pipeline import optimize as run_optimize
    from ..pipeline.lock import locked
    from ..pipeline.runs import CHECKPOINT, check_place, has_checkpoint, partial_of, remove_partial
    from ..ranks import launched

    if target is None:
        target = "params=0.5" if granularity == "connection" else "macs=0.5"
    goal = parse.target(target)
    if trials is not None and parse_drop(goal) is None:
        raise ConfigError(
            f"--trials {trials} belongs to a target drop=...; {target} takes one run. Leave it out, "
            "or give more --epochs."
        )
    config = PruneConfig(
        target=goal,
        granularity=granularity,  # type: ignore[arg-type]  # checked by the config
        epochs=epochs,
        trials=PruneConfig().trials if trials is None else trials,
        lr=lr,
        seed=seed,
        keep=tuple(keep or ()),
        round_to=round_to,
        precision=precision,  # type: ignore[arg-type]  # checked by the config
        floor=floor,
    )
    where = parse.device(device)
    with launched(where) as (ranks, where):
        if not ranks.first:
            console.quiet = True
        folder = _run_folder(model, output, resume, ranks)
        _check_free(folder, resume)
        check_place(folder)
        ranks.wait()  # until all have looked, before the first one writes
        display = Display()
        learned = False
        with display.running(), locked(partial_of(folder)):
            if ranks.first:
                if folder.exists():
                    raise RunError(f"{folder} has been written meanwhile by another run.")
                remove_leftovers(partial_of(folder))
            begun = has_checkpoint(folder)
            if resume and not begun:
                say(f"there is no checkpoint in {partial_of(folder)} yet; starting from the beginning")
            display.stage("load")
            opened = open_model(model, arch=arch, num_classes=num_classes, trust_pickle=trust_pickle)
            splits = load_splits(
                data, data_root, batch_size, image_size, mean, std, seed, display, opened, limit, num_classes
            )
            try:
                result = run_optimize(
                    opened.model.to(where),
                    splits.train,
                    splits.val,
                    config,
                    test=splits.test,
                    callbacks=[display],
                    checkpoint=partial_of(folder) / CHECKPOINT,
                    resume=resume,
                    data_name=data,
                )
                learned = True
                if ranks.first:
                    result.details["factory"] = {"arch": opened.arch, "kwargs": opened.kwargs}
                    display.stage("export")
                    result.model.cpu()
                    result.save(folder)
            except (KeyboardInterrupt, LostRankError) as stop:
                if has_checkpoint(folder):
                    raise type(stop)(
                        f"{stop} go on with: the same command, --output {folder} --resume".strip()
                    ) from None
                remove_partial(folder)
                raise
            except BaseException as error:
                kept = has_checkpoint(folder) and not isinstance(error, ConfigError)
                if learned or (kept and not begun):
                    say(f"what was learned is kept; go on with: the same command, --output {folder} --resume")
                elif not kept and not begun and ranks.first:
                    remove_partial(folder)
                raise
        _warn_about_chance(result.report, splits)
        if ranks.first:
            summary(result.report, folder, model)
        say(f"wrote {folder} - next: snnprune export --onnx")


def _check_free(folder: Path, resume: bool) -> None:
    from ..errors import RunError
    from ..pipeline.lock import locked
    from ..pipeline.runs import CHECKPOINT, has_checkpoint, is_run, partial_of

    if resume and is_run(folder):
        with locked(partial_of(folder)):  # what a kill just after the end has left goes
            shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
        raise RunError(f"{folder} is finished already, so there is nothing to go on with.")
    if folder.exists():
        raise RunError(f"{folder} exists already. Choose another --output, or remove it.")
    if not resume and has_checkpoint(folder):
        raise RunError(
            f"{partial_of(folder)} holds an unfinished run. Go on with it by --resume, or remove it to start anew."
        )


def _run_folder(model: Path, output: Path | None, resume: bool, ranks: Ranks) -> Path:
    from ..errors import RunError
    from ..pipeline.runs import partial_of

    if output is not None:
        return output
    name = model.stem if model.suffix else model.name
    if resume:
        places = Path("runs").glob(f"{name}-*.partial*")  # of a run that was killed early there is only the lock
        found = [p for p in places if p.name.endswith((".partial", ".partial.lock"))]
        if not found:
            raise RunError(f"there is no unfinished run of {name} in runs/. Name it with --output.")
        last = max(found, key=lambda p: p.stat().st_mtime).name
        return Path("runs") / last.removesuffix(".lock").removesuffix(".partial")
    (now,) = ranks.same_values(datetime.datetime.now().timestamp())  # one folder for all processes
    stamp = datetime.datetime.fromtimestamp(now).strftime("%Y%m%d-%H%M%S")
    names = itertools.chain([stamp], (f"{stamp}-{n}" for n in itertools.count(2)))
    folders = (Path("runs") / f"{name}-{n}" for n in names)  # the clock may have been put back
    return next(f for f in folders if not f.exists() and not partial_of(f).exists())


def _warn_about_chance(report: Any, splits: Any) -> None:
    info = getattr(splits.train, "info", None)
    if info is None or report.dense.accuracy is None:
        return
    if report.dense.accuracy < 2 / len(info.classes):
        say(
            f"warning: the model that came in is near chance ({report.dense.accuracy:.1%}). "
            "Check --mean/--std, --image-size and the order of the classes.",
            style="yellow",
        )
