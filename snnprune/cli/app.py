"""The commands."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import parse
from .show import Display, console, groups_table, say, size, summary


class Stopped(Exception):
    """Ctrl-C, with what to tell the user."""


class Commands(TyperGroup):
    """The commands; what typer would swallow passes through under another name."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Typer turns Ctrl-C into a bare exit, and takes an end of file for a user's Ctrl-D."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Stopped(str(stop)) from None
        except EOFError as error:
            raise RuntimeError(f"a file ended too early ({error})") from error


app = typer.Typer(
    cls=Commands,
    help="Make a trained vision model smaller, exactly, and export it to ONNX.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ModelFile = Annotated[Path, typer.Argument(help="state dict, safetensors, whole model, or a run folder")]
Data = Annotated[
    str,
    typer.Option(help="digits, mnist, cifar10, ..., fake, a folder, an .npz, or file.py:function"),
]
Arch = Annotated[
    str | None,
    typer.Option(help="torchvision name, file.py:function or package.module:function (runs that code)"),
]
Classes = Annotated[int | None, typer.Option(help="outputs of the model; read off the weights by default")]
DataRoot = Annotated[Path, typer.Option(help="where torchvision's data sets lie")]
Mean = Annotated[str | None, typer.Option(help="per channel, of pixels in [0, 1]: 0.49,0.48,0.45")]
Std = Annotated[str | None, typer.Option(help="per channel, of pixels in [0, 1]")]
ImageSize = Annotated[int | None, typer.Option(help="side of the square images, in pixels")]
BatchSize = Annotated[int, typer.Option(help="images per step")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Trust = Annotated[bool, typer.Option("--trust-pickle", help="load any pickled model, which can run code")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the versions that matter, and exit")] = False,
) -> None:
    """Make a trained vision model smaller, exactly, and export it to ONNX."""
    if version:
        from ..report import versions

        console.print("\n".join(f"{name} {value}" for name, value in versions().items()))
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        console.print(context.get_help())


@app.command()
def optimize(
    model: ModelFile,
    data: Data,
    arch: Arch = None,
    num_classes: Classes = None,
    target: Annotated[str, typer.Option(help="macs=SHARE or params=SHARE to keep, or free")] = "macs=0.5",
    epochs: Annotated[
        float, typer.Option(help="passes over the training data, search and recovery together")
    ] = 20,
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
    round_to: Annotated[int, typer.Option(help="keep multiples of this many channels")] = 1,
    trust_pickle: Trust = False,
) -> None:
    """Prune a trained model and write a run folder with the verified smaller model."""
    from ..errors import RunError
    from ..learner import PruneConfig
    from ..pipeline import open_model
    from ..pipeline import optimize as run_optimize
    from ..pipeline.runs import CHECKPOINT, check_place, partial_of, remove_partial

    config = PruneConfig(
        target=parse.target(target),
        epochs=epochs,
        lr=lr,
        seed=seed,
        keep=tuple(keep or ()),
        round_to=round_to,
    )
    where = parse.device(device)
    folder = _run_folder(model, output, resume)
    if folder.exists():
        raise RunError(f"{folder} exists already. Choose another --output, or remove it.")
    if partial_of(folder).exists() and not resume:
        raise RunError(
            f"{partial_of(folder)} holds an unfinished run. Go on with it by --resume, or remove it to start anew."
        )
    check_place(folder)
    display = Display()
    with display.running():
        display.stage("load")
        opened = open_model(model, arch=arch, num_classes=num_classes, trust_pickle=trust_pickle)
        splits = _load(
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
            result.details["factory"] = {"arch": opened.arch, "kwargs": opened.kwargs}
            display.stage("export")
            result.model.cpu()
            result.save(folder)
        except KeyboardInterrupt:
            if (partial_of(folder) / CHECKPOINT).exists():
                raise KeyboardInterrupt(f"go on with: the same command, --output {folder} --resume") from None
            remove_partial(folder)
            raise
        except BaseException:
            if not resume:
                remove_partial(folder)
            raise
    _warn_about_chance(result.report, splits)
    summary(result.report, folder, model)
    say(f"wrote {folder} - next: snnprune export --onnx")


def _run_folder(model: Path, output: Path | None, resume: bool) -> Path:
    from ..errors import RunError

    if output is not None:
        return output
    name = model.stem if model.suffix else model.name
    if resume:
        found = sorted(Path("runs").glob(f"{name}-*.partial"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise RunError(f"there is no unfinished run of {name} in runs/. Name it with --output.")
        return found[-1].with_name(found[-1].name.removesuffix(".partial"))
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name}-{stamp}"


def _load(
    data: str,
    root: Path,
    batch_size: int,
    image_size: int | None,
    mean: str | None,
    std: str | None,
    seed: int,
    display: Display,
    opened: Any,
    limit: int | None = None,
    num_classes: int | None = None,
) -> Any:
    """Load the data; a run that is opened again brings its own normalisation."""
    from ..data import load_data

    constants: dict[str, Any] = {"mean": parse.numbers(mean, "--mean"), "std": parse.numbers(std, "--std")}
    recorded = (opened.structure or {}).get("normalization") if opened is not None else None
    if isinstance(recorded, dict) and mean is None and std is None:
        constants = {"mean": recorded.get("mean"), "std": recorded.get("std")}
    display.stage("data")
    splits = load_data(
        data,
        root,
        batch_size=batch_size,
        image_size=image_size,
        seed=seed,
        limit=limit,
        num_classes=num_classes,
        progress=display.reading,
        **constants,
    )
    info = getattr(splits.train, "info", None)
    if info is not None and info.kind in ("folder", "arrays"):
        say(f"pixels are normalised with mean {list(info.mean)} and std {list(info.std)}")
    return splits


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


@app.command()
def export(
    run: Annotated[Path | None, typer.Argument(help="run folder; default: the newest in runs/")] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="as an ONNX file")] = False,
    output: Annotated[Path | None, typer.Option(help="file to write; default: inside the run folder")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="half-precision weights")] = False,
    arch: Arch = None,
) -> None:
    """Deliver a run's model as a checked ONNX file."""
    from ..errors import ConfigError
    from ..pipeline import newest_run
    from ..pipeline.deliver import deliver_onnx

    if not onnx:
        raise ConfigError("say what to export: --onnx.")
    folder = run if run is not None else newest_run()
    display = Display()
    with display.running():
        display.stage("export")
        check = deliver_onnx(folder, output, fp16=fp16, arch=arch)
    say(
        f"wrote {check.path} ({size(check.path)}, opset {check.opset}); ONNX Runtime agrees with the model within "
        f"{check.max_abs_error:.1e} at batch sizes {', '.join(map(str, check.batch_sizes))}"
    )


@app.command()
def inspect(
    model: ModelFile,
    arch: Arch = None,
    num_classes: Classes = None,
    image_size: ImageSize = None,
    trust_pickle: Trust = False,
    keep: Annotated[
        list[str] | None, typer.Option(help="module names whose channels must stay, * allowed")
    ] = None,
) -> None:
    """List what can be pruned, what cannot and why, and what a target would cost."""
    from ..pipeline import open_model
    from ..pipeline.inspecting import inspect_model

    display = Display()
    with display.running():
        display.stage("load")
        opened = open_model(model, arch=arch, num_classes=num_classes, trust_pickle=trust_pickle)
        display.stage("trace")
        found = inspect_model(opened, image_size=image_size, keep=tuple(keep or ()))
    console.print(groups_table(found.groups, found.shares))
    say(f"input {tuple(found.input_shape)}, {found.macs:,} MACs, {found.params:,} params")
    for metric, share in found.least.items():
        say(f"smallest {metric} target with 10% of every group kept: {metric}={share:.3f}")


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="run folder, model file or .onnx")],
    data: Data,
    arch: Arch = None,
    num_classes: Classes = None,
    data_root: DataRoot = Path("data"),
    mean: Mean = None,
    std: Std = None,
    image_size: ImageSize = None,
    batch_size: BatchSize = 128,
    device: Device = "auto",
    trust_pickle: Trust = False,
) -> None:
    """Accuracy of a run, a model file or an ONNX file on a test set."""
    from ..pipeline.evaluating import evaluator, onnx_normalization

    where = parse.device(device)
    display = Display()
    with display.running():
        display.stage("load")
        opened, measure = evaluator(
            model, arch=arch, num_classes=num_classes, trust_pickle=trust_pickle, device=where
        )
        recorded = opened if opened is not None else onnx_normalization(model)
        splits = _load(
            data, data_root, batch_size, image_size, mean, std, 0, display, recorded, num_classes=num_classes
        )
        display.stage("test")
        result = measure(splits.test)
    say(f"{model}: accuracy {result.accuracy:.2%}, loss {result.loss:.4f} on {result.count} test images of {data}")


@app.command()
def compare(runs: Annotated[list[Path], typer.Argument(help="run folders")]) -> None:
    """Runs side by side."""
    from rich.markup import escape
    from rich.table import Table

    from ..pipeline.runs import REPORT
    from ..report import Report

    table = Table()
    for name in ("run", "data", "target", "dense", "compact", "points", "MACs kept", "params kept"):
        left = name in ("run", "data", "target")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for path in runs:
        r = Report.read(path / REPORT)
        wanted = "free" if r.target is None else ", ".join(f"{k}={v:g}" for k, v in r.target.items())
        a, b = r.dense.accuracy, r.compact.accuracy
        scores = ("", "", "") if a is None or b is None else (f"{a:.2%}", f"{b:.2%}", f"{100 * (b - a):+.2f}")
        shares = (f"{r.compact.macs / r.dense.macs:.1%}", f"{r.compact.params / r.dense.params:.1%}")
        table.add_row(escape(str(path)), escape(r.data), wanted, *scores, *shares)
    console.print(table)
