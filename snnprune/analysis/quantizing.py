"""What `snnprune export --int8` does: a run, a model file or an ONNX file, calibrated and measured on data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import BatchLoader, info_of
from ..errors import ConfigError, RunError
from ..export import export_onnx
from ..feeds import OnnxModel
from ..files import file_errors, path_inside, write_atomically
from ..inputs import first_images
from ..pipeline.checks import check_classes
from ..protos import in_form
from ..quantize import Quantized, check_options, quantize_onnx
from ..runs.delivery import Form, deliver_onnx
from ..runs.folder import open_model
from ..runtime import open_session
from .evaluating import recorded_in

_NAME = "model-int8.onnx"
_TRIED = 4  # images that a model file is compared with its ONNX file on


@file_errors()
def quantize_model(
    source: Path,
    output: Path | None,
    load: Callable[[Any], Any],
    *,
    form: Form,
    arch: str | None = None,
    num_classes: int | None = None,
    trust_pickle: bool = False,
    entry: str | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> Quantized:
    """Write the int8 file of a run, a model file or an ONNX file.

    The file in float32 that it is made from is checked first, as every export is.

    Args:
        source: run folder, model file, or `.onnx`.
        output: file to write; by default inside the run folder, or beside the file.
        load: gives (train, val, test) loaders for a model that tells its normalisation.
        form: batch and names of the file.
        arch: architecture, where the model must be built.
        num_classes: its outputs.
        trust_pickle: of a model file.
        entry: of a checkpoint, the weights to take.
        on_stage: called with the name of what begins.
        options: as `quantize_onnx` takes them.

    Raises:
        ConfigError: an option makes no sense.
        RunError: the run is damaged, or there is a file of the default name already.
        DataError: the data do not go with the model.
        ExportError: the model cannot be exported or quantised, or int8 loses too much.
    """
    check_options(**options)
    if form.fp16:
        raise ConfigError("int8 and fp16 are two files.")
    whole = source.is_file()
    if output is None:
        output = source.with_name(f"{source.stem}-int8.onnx") if whole else path_inside(source, _NAME)
        if whole and output.exists():
            raise RunError(f"{output} exists already. Name another file with --output.")
    with tempfile.TemporaryDirectory(prefix="snnprune.") as folder:
        full = Path(folder) / "model.onnx"
        on_stage("export")
        if whole and source.suffix != ".onnx":
            opened = open_model(source, arch=arch, num_classes=num_classes, trust_pickle=trust_pickle, entry=entry)
            splits = load(opened)
            example, told = first_images(splits.val, _TRIED), _told(splits.train)
            export_onnx(opened.model, full, example, metadata=told, **form.given())
        else:
            if whole:
                full = _in_form(source, full, form)
            else:
                deliver_onnx(source, full, form, arch=arch, num_classes=num_classes)
            splits = load(recorded_in(full))
        _check_classes(source, full, splits.val)
        on_stage("int8")
        return quantize_onnx(full, output, _unaugmented(splits.train), splits.val, test=splits.test, **options)


def _told(loader: Any) -> dict[str, Any]:
    """What a file tells of its inputs, as far as the data know it."""
    info = info_of(loader)
    if info is None:
        return {}
    return {
        "snnprune.classes": list(info.classes),
        "snnprune.normalization": {"mean": list(info.mean), "std": list(info.std)},
        "snnprune.input_shape": list(info.shape),
        "snnprune.crop_ratio": info.crop_ratio,
    }


def _in_form(source: Path, target: Path, form: Form) -> Path:
    """An ONNX file of somebody's, in the form that is wanted."""
    open_session(source)  # which looks at what it reaches for
    if form == Form():
        return source
    if form.dynamic_size:
        raise ConfigError(f"{source} is an ONNX file, whose sizes are what they are. Give the model itself.")
    data = in_form(
        source.read_bytes(), batch=form.batch, input_names=form.input_names, output_names=form.output_names
    )
    write_atomically(target, lambda p: p.write_bytes(data))
    return target


def _check_classes(source: Path, file: Path, loader: Any) -> None:
    """Refuse a data set with other classes; only images are looked at, and the rest when it is measured."""
    model = OnnxModel(source, open_session(file))
    if len(model.types) == 1 and isinstance(loader, BatchLoader):
        (name,) = model.types

        def run(images: Tensor) -> Tensor:
            return torch.from_numpy(model({name: images.numpy()}))

        check_classes(run, first_images(loader, 2), loader)


def _unaugmented(loader: Any) -> Any:
    """The training images as they will be met; a loader that is not ours as it is."""
    return loader.plain() if isinstance(loader, BatchLoader) else loader
