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
from .data import DataOptions, load_splits
from .gather import gathered
from .options import (
    DEFAULT,
    Augment,
    Data,
    Device,
    EngineName,
    Floor,
    Json,
    ModelFile,
    Network,
    OwnMetric,
    Patterns,
    RoundTo,
    Scores,
    ThreadCount,
    of,
    served,
)
from .paste import Call, shown
from .progress import Display
from .serving import serving_for
from .session import find_folder, session
from .show import console, emit, say, scripted, show_plan, summary


@gathered
def optimize(
    context: typer.Context,
    model: ModelFile,
    data: Data,
    network: Network,
    asked: DataOptions,
    patterns: Patterns,
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
    augment: Augment = "auto",
    limit: Annotated[int | None, typer.Option(help="use only so many training images")] = None,
    device: Device = "auto",
    seed: Annotated[int, of("seed")] = DEFAULT.seed,
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
    from ..analysis import plan
    from ..budget import check_drop, parse_drop
    from ..criteria import check_scores
    from ..errors import ConfigError
    from ..learner import Callback, PruneConfig, SearchOptions
    from ..learner.tensorboard import TensorBoard
    from ..pipeline import optimize as run_optimize
    from ..pipeline.arguments import check_timed
    from ..ranks import launched
    from ..runs.places import OPTIONS

    def load(where: str, display: Display) -> tuple[Any, Any]:
        display.stage("load")
        opened = network.open(model)
        more = {"augment": augment, "limit": limit, "seed": seed}
        splits = load_splits(data, opened, display, network, asked, **more)
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
        **patterns.all,
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
    where, own, call = parse.device(device), parse.metric(metric), context.obj or Call()
    with scripted(as_json), launched(where) as (ranks, where):
        if not ranks.first:
            console.quiet = True
        if dry_run:
            display = Display()
            with display.running():
                opened, splits = load(where, display)
                display.stage("plan")
                found = plan(opened.model, splits.train, splits.val, config, device=where)
            if as_json:
                emit(found.to_dict())
            show_plan(found, call)
            say("nothing was written")
            return
        folder = find_folder(model, output, resume, ranks)
        display = Display(percent=own is not None and own.info.percent)
        with display.running(), session(folder, ranks, call, resume=resume) as run:
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
            result.report.command = shlex.join(["snnprune", *call.arguments])
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
        say(f"wrote {folder} with its page report.html - next: {shown('export', folder, '--onnx')}")
