"""The commands that look at results: export, inspect, evaluate, compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from .show import Display, console, groups_table, say, size


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
    if found.nonzero < 0.9 * found.params:
        say(
            f"only {found.nonzero:,} params are not 0: they keep their places here and cost as many MACs; "
            "pruning neurons fills such gaps while it trains"
        )
    say(f"layers that can lose neurons: {found.reach['macs']:.1%} of MACs, {found.reach['params']:.1%} of params")
    for metric, share in found.least.items():
        say(f"smallest {metric} target with 10% of every group kept: {metric}={share:.3f}")


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
        splits = load_splits(
            data, data_root, batch_size, image_size, mean, std, 0, display, recorded, num_classes=num_classes
        )
        display.stage("test")
        result = measure(splits.test)
    say(f"{model}: accuracy {result.accuracy:.2%}, loss {result.loss:.4f} on {result.count} test images of {data}")


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
        table.add_row(escape(str(path)), escape(r.data), escape(wanted), *scores, *shares)
    console.print(table)
