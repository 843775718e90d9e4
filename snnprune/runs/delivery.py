"""Deliver a run's ONNX file: checked again before it leaves the run folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import ExportError, RunError, first_line
from ..export import ExportCheck, check_onnx, export_onnx
from ..files import STRUCTURE, check_name, file_errors, path_inside, write_atomically, write_json
from ..inputs import rows
from ..protos import in_form
from .examples import example_for
from .folder import ONNX, PROBE, REPORT, Opened, open_model, refuse_unfinished, run_metadata
from .report import Report
from .saving import digest, read_structure


class _Recorded(nn.Module):
    """Stands in for the model: gives the outputs that were recorded with the run."""

    def __init__(self, inputs: Tensor, outputs: list[Tensor]) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        assert torch.equal(x, rows(self.inputs, len(x)))
        return [rows(output, len(x)) for output in self.outputs]


@dataclass(frozen=True, slots=True)
class Form:
    """What a file is to be like, as `export_onnx` takes it.

    Attributes:
        fp16: half-precision weights.
        batch: inputs per call; None for any number.
        dynamic_size: images of any size.
        input_names: of the file's inputs.
        output_names: of its outputs.
    """

    fp16: bool = False
    batch: int | None = None
    dynamic_size: bool = False
    input_names: Sequence[str] | None = None
    output_names: Sequence[str] | None = None

    def given(self) -> dict[str, Any]:
        """The options by name."""
        return dataclasses.asdict(self)


@file_errors()
def deliver_onnx(
    run: Path,
    output: Path | None = None,
    form: Form | None = None,
    *,
    arch: str | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
) -> ExportCheck:
    """Write a run's model as an ONNX file whose outputs are checked.

    The file made by `optimize` is compared with the outputs that were recorded beside it, so the
    model's code is not needed. Where the run holds no ONNX file, or images of any size are asked for, the model is
    built and exported. Where it holds no recorded outputs, the model is built and gives them, on random images.

    Args:
        run: a finished run folder, or one that `snnprune.save` wrote.
        output: file to write; by default inside the run folder.
        form: what the file is to be like; by default as `optimize` made it.
        arch: architecture, when the model must be built and is not torchvision's.
        num_classes: outputs of the model that is built; by default recorded or the architecture's own.
        image_size: side of its images; by default recorded or found by trying.

    Raises:
        ConfigError: a part of `form` makes no sense.
        RunError: no such run, or it is damaged.
        ExportError: the file does not compute what the model computed, or cannot be of that form.
    """
    form = form or Form()
    check_name(run)
    refuse_unfinished(run)
    if not (run / STRUCTURE).is_file():
        what = f"is no finished run folder (it has no {STRUCTURE})" if run.exists() else "is not there"
        raise RunError(f"{run} {what}. Name a run folder; `snnprune optimize -h` says how to make one.")
    target = output if output is not None else path_inside(run, _name_of(form))
    structure = read_structure(run)
    recorded = _probe(run) if (run / PROBE).is_file() else None
    source = run / ONNX
    made_anew = form.dynamic_size or not source.is_file()
    if recorded is None or made_anew:
        if recorded is None and "input_shape" in structure and structure["input_shape"] is None:
            raise RunError(
                f"{run} is of a model that takes more than one tensor, so there is nothing to run it on here. "
                f"{f'Use its {ONNX} as it is, or' if source.is_file() else 'Use'} snnprune.export_onnx() with "
                "inputs of your own."
            )
        try:
            opened = open_model(run, arch=arch, num_classes=num_classes)
        except RunError as error:
            if recorded is not None or not source.is_file():
                raise
            raise RunError(
                f"{run / PROBE} cannot be read (there is no such file), so the model itself has to be run. {error}"
            ) from error
        inputs = recorded.inputs if recorded else example_for(opened, image_size)
        model: nn.Module = opened.model
    else:
        inputs, model = recorded.inputs, recorded
    if made_anew:
        report = Report.read(run / REPORT) if (run / REPORT).is_file() else None
        metadata = run_metadata(structure, report)
        path_inside(run, STRUCTURE)  # to which the new file's digest goes
        check = export_onnx(model, target, inputs, metadata=metadata, **form.given())
        if target.resolve() == source.resolve():
            write_json(run / STRUCTURE, {**structure, "onnx_sha256": digest(source)})
        return check
    if structure.get("onnx_sha256", digest(source)) != digest(source):
        raise RunError(
            f"{source} is not the file that {STRUCTURE} was written for; one of them was changed. Remove the "
            "former to have it made again from the weights."
        )
    data = source.read_bytes()
    try:
        check = check_onnx(model, data, inputs, path=source)
    except ExportError as error:
        raise ExportError(f"{source} is not the model of this run: {error}") from error
    except Exception as error:  # ONNX Runtime's own tree of exceptions
        raise ExportError(f"{source} is not the model of this run ({first_line(error)}).") from error
    if form != Form():
        data = in_form(
            data, fp16=form.fp16, batch=form.batch, input_names=form.input_names, output_names=form.output_names
        )
        check = check_onnx(model, data, inputs, path=target, fp16=form.fp16, batch=form.batch)
    if target.resolve() != source.resolve():
        write_atomically(target, lambda p: p.write_bytes(data))
    return dataclasses.replace(check, path=target)


def _name_of(form: Form) -> str:
    """The default file of a form: that of another form than the run's own leaves the run's file alone."""
    words = ["fp16"] if form.fp16 else []
    words += [f"batch{form.batch}"] if form.batch is not None else []
    words += ["anysize"] if form.dynamic_size else []
    words += ["renamed"] if form.input_names is not None or form.output_names is not None else []
    return "-".join([Path(ONNX).stem, *words]) + Path(ONNX).suffix


def export_file(
    opened: Opened,
    source: Path,
    output: Path | None = None,
    form: Form | None = None,
    *,
    image_size: int | None = None,
) -> ExportCheck:
    """Export a model from a file, checked on random images: the dense one, to time a run's against.

    Args:
        opened: the model.
        source: where it came from; its name with `.onnx` is the default for `output`.
        output: file to write.
        form: what the file is to be like.
        image_size: side of its images; found by trying where it is not given.

    Raises:
        ConfigError: a part of `form` makes no sense.
        RunError: there is a file of the default name already.
        ExportError: the file does not compute what the model computes, or cannot be of that form.
    """
    target = output if output is not None else source.with_suffix(".onnx")
    if output is None and target.exists():
        raise RunError(f"{target} exists already. Name another file with --output.")
    return export_onnx(opened.model, target, example_for(opened, image_size), **(form or Form()).given())


def _probe(run: Path) -> _Recorded:
    try:
        content = load_file(run / PROBE)
        inputs = content.pop("inputs")
        several = [f"outputs.{i}" for i in range(len(content))]
        outputs = [content[name] for name in (several if "outputs" not in content else ["outputs"])]
        if not outputs or not inputs.dim() or any(not t.dim() or len(t) != len(inputs) for t in outputs):
            raise ValueError("its inputs and outputs do not belong together")
        return _Recorded(inputs, outputs)
    except Exception as error:  # its own, and those of element types that PyTorch lacks
        raise RunError(
            f"{run / PROBE} cannot be read ({first_line(error)}); the run is damaged. Remove "
            "that file to have the model itself tried instead, on random images."
        ) from error
