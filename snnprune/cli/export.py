"""`snnprune export`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .data import DataOptions, load_splits
from .gather import gathered
from .options import Json, Network
from .progress import Display
from .show import emit, say, scripted, size

if TYPE_CHECKING:
    from ..export import ExportCheck
    from ..quantize import Quantized


@gathered
def export(
    network: Network,
    asked: DataOptions,
    run: Annotated[
        Path | None,
        typer.Argument(
            help="run folder, default the newest in runs/; or a model file; with --int8 also an .onnx file"
        ),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="as an ONNX file")] = False,
    output: Annotated[Path | None, typer.Option(help="file to write; default: inside the run folder")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="half-precision weights")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="weights and activations of 8 bits; needs --data")] = False,
    fixed_batch: Annotated[int | None, typer.Option(help="inputs per call, and no other number")] = None,
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="images of any height and width")] = False,
    input_name: Annotated[
        list[str] | None, typer.Option(help="of the file's inputs; repeat it for several")
    ] = None,
    output_name: Annotated[
        list[str] | None, typer.Option(help="of the file's outputs; repeat it for several")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="for --int8: calibrated on its training part, measured on the others")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="accuracy that --int8 may lose: 0.01 is one point")] = 0.01,
    calibration: Annotated[int, typer.Option(help="training images that --int8 is calibrated on")] = 256,
    calibration_method: Annotated[str, typer.Option(help="minmax, percentile or entropy")] = "minmax",
    engine: Annotated[str, typer.Option(help="that --int8 is for: cpu, cpu-vnni (also ARM) or tensorrt")] = "cpu",
    as_json: Json = False,
) -> None:
    """Deliver a run's model as a checked ONNX file."""
    from ..errors import ConfigError
    from ..runs.delivery import Form, deliver_onnx, export_file
    from ..runs.folder import newest_run

    if not onnx:
        raise ConfigError("say what to export: --onnx.")
    if int8 and fp16:
        raise ConfigError("--int8 and --fp16 are two files; export one after the other.")
    if int8 and data is None:
        raise ConfigError("--int8 is calibrated on training data: name them with --data.")
    if data is not None and not int8:
        raise ConfigError("--data is for --int8, which is calibrated and measured on them.")
    folder = run if run is not None else newest_run()
    form = Form(fp16, fixed_batch, dynamic_size, input_name or None, output_name or None)
    with scripted(as_json):
        display = Display()
        with display.running():
            if int8:
                from ..analysis.quantizing import quantize_model

                def splits(opened: Any) -> Any:
                    return load_splits(str(data), opened, display, network, asked, augment="none")

                made = quantize_model(
                    folder,
                    output,
                    splits,
                    form=form,
                    **network.opening,
                    on_stage=display.stage,
                    tolerance=tolerance,
                    calibration_size=calibration,
                    method=calibration_method,
                    engine=engine,
                )
            else:
                display.stage("export")
                if folder.is_file():
                    opened = network.open(folder)
                    made = export_file(opened, folder, output, form, image_size=network.image_size)
                else:
                    known = {name: getattr(network, name) for name in ("arch", "num_classes", "image_size")}
                    made = deliver_onnx(folder, output, form, **known)
        if as_json:
            emit({**dataclasses.asdict(made), "path": str(made.path), "bytes": made.path.stat().st_size})
        _tell_int8(made) if int8 else _tell(made, fp16)  # type: ignore[arg-type]


def _tell(check: ExportCheck, fp16: bool) -> None:
    batches = ", ".join(map(str, check.batch_sizes))
    images = ", ".join(f"{height}x{width}" for height, width in check.image_sizes)
    where = " and ".join(name.removesuffix("ExecutionProvider") for name in check.differences)
    say(
        f"wrote {check.path} ({size(check.path)}, opset {check.opset}); ONNX Runtime agrees with the model "
        f"within {check.max_abs_error:.1e} (absolute) at batch sizes {batches}"
        + (f", and with images of {images}" if images else "")
        + f", on {where}"
    )
    if fp16 and len(check.differences) == 1:
        say("it was not run on a GPU, because ONNX Runtime gets none here")
    if fp16 and check.same_class is not None:
        say(f"{check.same_class:.1%} of the inputs tried are in the class that the model says")


def _tell_int8(made: Quantized) -> None:
    from ..quantizer import CHOICES

    share = made.bytes_after / made.bytes_before
    say(
        f"wrote {made.path} ({size(made.path)}, {share:.0%} of fp32's); {made.layers} of {made.layers_in_all} "
        f"layers have weights of 8 bits ({CHOICES[made.quantized]}), calibrated on {made.calibrated} training "
        "inputs"
    )
    say(f"validation: {made.val}")
    if made.test is not None:
        say(f"test: {made.test}")
