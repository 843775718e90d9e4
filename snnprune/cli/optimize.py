"""`snnprune optimize`."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from . import parse
from .config import read as read_options
from .config import refuse_code
from .config import write as write_options
from .data import load_splits
from .options import (
    DEFAULT,
    Arch,
    BatchSize,
    Classes,
    CropRatio,
    Data,
    DataRoot,
    Device,
    EngineName,
    Entry,
    Floor,
    ImageSize,
    Json,
    Keep,
    Mean,
    ModelFile,
    Outputs,
    OwnMetric,
    RoundTo,
    Scores,
    Std,
    ThreadCount,
    Trust,
    ValSplit,
    Width,
    Workers,
    of,
    served,
)
from .progress import Display
from .serving import serving_for
from .session import find_folder, session
from .show import console, emit, say, scripted, show_plan, summary


def optimize(
    context: typer.Context,
    model: ModelFile,
    data: Data,
    arch: Arch = None,
    num_classes: Classes = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="macs=SHARE or params=SHARE to keep, drop=FRACTION of accuracy (or AMOUNT of --metric) to lose, "
            "latency=SHARE of the dense time or latency=3ms, as --engine and the options after it serve, or free; "
            "default macs=0.5 (params=0.5 for connections)"
        ),
    ] = None,
    metric: OwnMetric = None,
    granularity: Annotated[str, of("granularity")] = DEFAULT.granularity,
    scores: Scores = DEFAULT.search.scores,
    epochs: Annotated[float, of("epochs")] = DEFAULT.epochs,
    trials: Annotated[int | None, of("trials", show_default=str(DEFAULT.trials))] = None,
    lr: Annotated[float, of("lr")] = DEFAULT.lr,
    output: Annotated[Path | None, typer.Option(help="run folder; default runs/<model>-<date>-<time>")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with an interrupted run")] = False,
    data_root: DataRoot = Path("data"),
    mean: Mean = None,
    std: Std = None,
    image_size: ImageSize = None,
    crop_ratio: CropRatio = None,
    augment: Annotated[
        str,
        typer.Option(
            help="of training images: none, light (shifts), standard (random crops), strong; auto: standard for "
            "folders of photos, else light"
        ),
    ] = "auto",
    val_split: ValSplit = 0.1,
    workers: Workers = None,
    batch_size: BatchSize = 128,
    limit: Annotated[int | None, typer.Option(help="use only so many training images")] = None,
    device: Device = "auto",
    seed: Annotated[int, of("seed")] = DEFAULT.seed,
    width: Width = None,
    keep: Keep = None,
    outputs: Outputs = None,
    floor: Floor = DEFAULT.floor,
    round_to: RoundTo = DEFAULT.round_to,
    precision: Annotated[str, of("precision")] = DEFAULT.precision,
    channels_last: Annotated[
        bool | None, of("channels_last", "--channels-last/--no-channels-last", show_default="auto")
    ] = None,
    compile: Annotated[bool | None, of("compile", "--compile/--no-compile", show_default="auto")] = None,
    engine: EngineName = None,
    serve_batch_size: Annotated[int | None, served("batch")] = None,
    serve_precision: Annotated[str | None, served("precision")] = None,
    threads: ThreadCount = None,
    profile: Annotated[Path | None, of("profile")] = None,
    time: Annotated[
        bool, typer.Option(help="time the result beside the dense model for the report; latency=... always does")
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="say what the run would start from, and its time and memory; write nothing"
        ),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="also write TensorBoard files, into the run folder")
    ] = False,
    trust_pickle: Trust = False,
    entry: Entry = None,
    as_json: Json = False,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="options from a file, as every run folder holds one (run.yaml); those given here go before",
            callback=read_options,
            is_eager=True,
        ),
    ] = None,
) -> None:
    """Prune a trained model and write a run folder with the verified smaller model."""
    from ..budget import check_drop, parse_drop
    from ..criteria import check_scores
    from ..errors import ConfigError
    from ..learner import Callback, PruneConfig, SearchOptions
    from ..learner.tensorboard import TensorBoard
    from ..pipeline import optimize as run_optimize
    from ..pipeline.arguments import check_timed
    from ..ranks import launched
    from ..runs.folder import open_model
    from ..runs.places import OPTIONS

    def load(where: str, display: Display | None = None) -> tuple[Any, Any]:
        display = display or Display()
        display.stage("load")
        opened = open_model(model, arch=arch, num_classes=num_classes, trust_pickle=trust_pickle, entry=entry)
        splits = load_splits(
            data,
            opened,
            display,
            root=data_root,
            mean=mean,
            std=std,
            image_size=image_size,
            crop_ratio=crop_ratio,
            augment=augment,
            val_fraction=val_split,
            workers=workers,
            batch_size=batch_size,
            limit=limit,
            num_classes=num_classes,
            seed=seed,
        )
        opened.model.to(where)
        return opened, splits

    refuse_code(context)
    if target is None:
        target = "params=0.5" if granularity == "connection" else "macs=0.5"
    goal = parse.target(target)
    if trials is not None and parse_drop(goal) is None:
        raise ConfigError(
            f"--trials {trials} belongs to a target drop=...; {target} takes one run. Leave it out, "
            "or give more --epochs."
        )
    check_scores(scores)
    config = PruneConfig(
        target=goal,
        granularity=granularity,  # type: ignore[arg-type]  # checked by the config
        epochs=epochs,
        trials=DEFAULT.trials if trials is None else trials,
        lr=lr,
        seed=seed,
        width=tuple(width or ()),
        keep=tuple(keep or ()),
        outputs=tuple(outputs or ()),
        round_to=round_to,
        precision=precision,  # type: ignore[arg-type]  # checked by the config
        channels_last="auto" if channels_last is None else channels_last,
        compile="auto" if compile is None else compile,
        floor=floor,
        search=SearchOptions(scores=scores),
        serving=serving_for(
            target, profile, engine=engine, batch=serve_batch_size, precision=serve_precision, threads=threads
        ),
        profile=profile,
    )
    check_timed(config)
    drop = parse_drop(goal)
    if drop is not None and metric is None:
        check_drop(drop, "accuracy")
    where, own = parse.device(device), parse.metric(metric)
    with scripted(as_json), launched(where) as (ranks, where):
        if not ranks.first:
            console.quiet = True
        if dry_run:
            _dry_run(*load(where), config, where, as_json=as_json)
            return
        folder = find_folder(model, output, resume, ranks)
        display = Display(percent=own is not None and own.info.percent)
        with display.running(), session(folder, ranks, resume=resume) as run:
            if ranks.first and not (resume and (run.work / OPTIONS).exists()):
                run.work.mkdir(parents=True, exist_ok=True)
                write_options(context, run.work / OPTIONS, target=target)
            with contextlib.ExitStack() as stack:  # what was told is on file whatever ends the run
                callbacks: list[Callback] = [display]
                if tensorboard and ranks.first:
                    callbacks.append(
                        stack.enter_context(contextlib.closing(TensorBoard(run.work / "tensorboard")))
                    )
                opened, splits = load(where, display)
                result = run_optimize(
                    opened.model,
                    splits.train,
                    splits.val,
                    config,
                    test=splits.test,
                    callbacks=callbacks,
                    checkpoint=run.checkpoint,
                    resume=resume,
                    data_name=data,
                    metric=own,
                )
            run.learned = True
            result.report.command = shlex.join(["snnprune", *(context.obj or ())])
            if ranks.first:
                if opened.arch is not None:
                    result.details["factory"] = {"arch": opened.arch, "kwargs": opened.kwargs}
                display.stage("save")
                result.model.cpu()
                result.save(folder, time=time)
        if ranks.first:
            summary(result.report, folder)
            if as_json:
                emit({"run": str(folder), **result.report.to_dict()})
        say(f"wrote {folder} with its page report.html - next: snnprune export {folder} --onnx")


def _dry_run(opened: Any, splits: Any, config: Any, where: str, *, as_json: bool) -> None:
    from ..analysis import plan

    found = plan(opened.model, splits.train, splits.val, config, device=where)
    if as_json:
        emit(found.to_dict())
    show_plan(found)
    say("nothing was written")
