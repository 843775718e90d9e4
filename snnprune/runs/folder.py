"""Run folders: write one, find the newest, open a model from a run or from a file."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RunError, first_line
from ..export import export_onnx
from ..files import STRUCTURE, brief, check_name, file_errors, reason, remove_leftovers
from ..inputs import Inputs, tensors_in
from ..memory import check_memory
from ..registry import LoadedModel, build, load_model, torchvision_names
from .places import CHECKPOINT, ONNX, OPTIONS, PROBE, check_work, has_checkpoint, partial_of, remove_checkpoint
from .report import Report
from .saving import WEIGHTS, digest, load, read_structure, write_model, write_tensors
from .visual import write_page
from .visual.material import REPORT

logger = logging.getLogger(__name__)
_PROBE_SIZE = 4
_MAX_CLASSES = 2**20
_ARGUMENTS = (("num_classes", int), ("aux_logits", bool), ("transform_input", bool), ("head", dict))  # of a file


@dataclass(slots=True)
class Opened:
    """A model from a run folder or from a file.

    Attributes:
        model: in eval mode, on the CPU.
        arch: how its skeleton is built; None for a whole pickled model.
        kwargs: arguments of the factory.
        structure: the run's structure file; None for a plain file.
    """

    model: nn.Module
    arch: str | None
    kwargs: dict[str, Any]
    structure: dict[str, Any] | None = None


@file_errors()
def save_run(
    model: nn.Module,
    report: Report,
    sample: Inputs,
    details: Mapping[str, Any],
    folder: Path,
    *,
    onnx: bool,
    drawn: Mapping[str, Mapping[str, Tensor]],
) -> Path:
    """Write a finished run into `<folder>.partial`, then move it into place.

    `drawn` is what the page is drawn from, besides the report: file name -> tensors.

    Raises:
        RunError: the folder exists, or cannot be written.
        ExportError: the ONNX file is not what the model computes.
    """
    check_free(folder)
    work = partial_of(folder)
    check_work(work)
    try:
        _write_run(model, report, sample, details, folder, onnx=onnx, drawn=drawn)
    except (OSError, RunError) as error:
        if work.exists() and not isinstance(error, _Gone):
            raise
        logger.warning("%s was removed while the run was written into it; it is written once more", work)
        _write_run(model, report, sample, details, folder, onnx=onnx, drawn=drawn)
    remove_checkpoint(folder / CHECKPOINT)
    return folder


@file_errors()
def check_free(folder: Path) -> None:
    """Refuse a folder that is there already.

    Raises:
        RunError: it is, or its name cannot be that of a folder.
    """
    check_name(partial_of(folder))
    if folder.exists():
        raise RunError(f"{folder} exists already. Choose another --output, or remove it.")


class _Gone(RunError):
    """Files of a run were removed while it was written."""


def _write_run(
    model: nn.Module,
    report: Report,
    sample: Inputs,
    details: Mapping[str, Any],
    folder: Path,
    *,
    onnx: bool,
    drawn: Mapping[str, Mapping[str, Tensor]],
) -> None:
    work = partial_of(folder)
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{brief(work)} cannot be made ({reason(error)}).") from error
    extra = dict(details)
    sparse = extra.pop("sparse", ())
    if onnx:
        metadata = run_metadata(details, report)
        check = export_onnx(model, work / ONNX, sample, metadata=metadata)
        report.exactness["onnx"] = check.relative_error
        extra["onnx_sha256"] = digest(work / ONNX)
    write_model(model, work, extra=extra, sparse=sparse)
    if isinstance(sample, Tensor):
        _write_probe(model, sample[:_PROBE_SIZE], work / PROBE)
    report.to_json(work / REPORT)
    for name, tensors in drawn.items():
        if tensors:
            write_tensors(work / name, {k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()})
    try:
        write_page(work)
    except Exception as error:  # the model is what matters, and it is proved and on file
        again = shlex.join(["snnprune", "compare", str(folder)])
        logger.warning(
            "the page of %s could not be drawn (%s); `%s` tries again", folder, first_line(error), again
        )
    written = [
        STRUCTURE,
        WEIGHTS,
        REPORT,
        *([ONNX] if onnx else []),
        *(name for name, found in drawn.items() if found),
    ]
    for name in written:  # a folder that was removed is made again by whatever is written next
        if not (work / name).is_file():
            raise _Gone(f"{work / name} was removed while the run was written.")
    _make_newest(work / REPORT, folder.parent)
    remove_leftovers(work)
    try:
        os.rename(work, folder)
    except OSError as error:
        where = "; the result is in the former" if work.exists() else ""
        raise RunError(f"{work} cannot be moved to {folder} ({reason(error)}){where}.") from error


@torch.no_grad()
def _write_probe(model: nn.Module, inputs: Tensor, path: Path) -> None:
    inputs = inputs.detach().cpu().contiguous()
    outputs = [t.contiguous().clone() for t in tensors_in(copy.deepcopy(model).cpu().eval()(inputs))]
    names = ["outputs"] if len(outputs) == 1 else [f"outputs.{i}" for i in range(len(outputs))]
    write_tensors(path, {"inputs": inputs.clone(), **dict(zip(names, outputs, strict=True))})


def run_metadata(details: Mapping[str, Any], report: Report | None) -> dict[str, Any]:
    """What goes into the ONNX file beside the graph; without a report there is no accuracy to tell."""
    figures = None if report is None else report.compact
    accuracy = metric = None
    if report is not None and figures is not None and figures.accuracy is None and figures.value is not None:
        metric = {**report.metric.to_dict(), "split": report.split, "value": figures.value}
    elif report is not None and figures is not None:
        accuracy = {"split": report.split, "value": figures.accuracy}
    return {
        "snnprune.classes": details.get("classes"),
        "snnprune.normalization": details.get("normalization"),
        "snnprune.input_shape": details.get("input_shape"),
        "snnprune.crop_ratio": details.get("crop_ratio"),
        "snnprune.accuracy": accuracy,
        "snnprune.metric": metric,
    }


def _make_newest(report: Path, root: Path) -> None:
    """Let a report be the last one written, also where the clock went back since the one before."""
    own = report.stat().st_mtime_ns
    with contextlib.suppress(OSError):
        others = (p / REPORT for p in root.iterdir() if is_run(p))
        last = max((p.stat().st_mtime_ns for p in others if p.is_file()), default=0)
        if last >= own:
            os.utime(report, ns=(last + 10**6, last + 10**6))


def refuse_unfinished(path: Path) -> None:
    """Say how to go on with a run that has not ended.

    Raises:
        RunError: it is the working folder of one, or will be its folder.
    """
    name = path.parent / path.name.removesuffix(".partial")
    inside = path != name and path.is_dir() and not (path / REPORT).is_file()
    if inside or (not path.exists() and has_checkpoint(path)):
        options, more = partial_of(name) / OPTIONS, ["--output", str(name), "--resume"]
        how = f"the command that began it and {shlex.join(more)}"
        if options.is_file():
            how = shlex.join(["snnprune", "optimize", "--config", str(options), *more])
        raise RunError(f"{path} is a run that has not ended. Go on with: {how}")


def is_run(path: Path) -> bool:
    """True for a finished run folder."""
    return path.is_dir() and (path / STRUCTURE).is_file() and not path.name.endswith(".partial")


@file_errors()
def newest_run(root: str | Path = "runs") -> Path:
    """The finished run whose report was written last.

    Raises:
        RunError: there is none.
    """
    root = Path(root)
    found: dict[Path, int] = {}
    for path in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(OSError):  # one that has no report, or that somebody is removing
            if is_run(path):
                found[path] = (path / REPORT).stat().st_mtime_ns
    if not found:
        raise RunError(
            f"there is no finished run in {root}/. Name a run folder; `snnprune optimize -h` says how to make one."
        )
    return max(found, key=lambda path: found[path])


@file_errors()
def open_model(
    path: str | Path,
    *,
    arch: str | None = None,
    num_classes: int | None = None,
    trust_pickle: bool = False,
    entry: str | None = None,
) -> Opened:
    """Open a run folder or a model file.

    A run's structure file never makes code run: only torchvision architectures are built from it, any
    other needs `arch` again.

    Raises:
        ModelFileError: the file cannot be read or fits nothing.
        RunError: a run that needs `arch`.
        StructureError: the run does not fit the architecture.
    """
    path = Path(path)
    check_name(path)
    refuse_unfinished(path)
    if not (path.is_dir() and (path / STRUCTURE).is_file()):
        loaded: LoadedModel = load_model(
            path, arch=arch, num_classes=num_classes, trust_pickle=trust_pickle, entry=entry
        )
        return Opened(loaded.model, loaded.arch, loaded.kwargs)
    structure = read_structure(path)
    factory = structure.get("factory") or {}
    recorded = factory.get("arch") if isinstance(factory, dict) else None
    stored = factory.get("kwargs") if isinstance(factory, dict) else None
    stored = stored if isinstance(stored, dict) else {}
    kwargs: dict[str, Any] = {k: v for k, v in stored.items() if (k, type(v)) in _ARGUMENTS}
    if num_classes is not None:
        kwargs["num_classes"] = num_classes
    chosen = arch
    if chosen is None:
        if recorded not in torchvision_names():
            hint = f" (it was {recorded})" if isinstance(recorded, str) else ""
            raise RunError(
                f"{path}: give the run's architecture with --arch{hint}; code is never run from a file."
            )
        chosen = recorded
        _check_size(path, chosen, kwargs)
    assert chosen is not None
    model = load(path, model=build(chosen, **kwargs))
    return Opened(model, chosen, kwargs, structure)


def _check_size(path: Path, arch: str, kwargs: Mapping[str, Any]) -> None:
    """The number of classes comes from the file; the layers that it makes must fit into memory."""
    if not 0 < kwargs.get("num_classes", 1) < _MAX_CLASSES:
        raise RunError(
            f"{path}: {kwargs['num_classes']} classes in its {STRUCTURE} make no sense; give --num-classes."
        )
    state = build(arch, meta=True, **kwargs).state_dict()
    check_memory(
        f"{path}: {arch} with {dict(kwargs)}",
        sum(t.numel() * t.element_size() for t in state.values()),
        RunError,
        "Its structure.json may be damaged; give --arch and --num-classes.",
    )
